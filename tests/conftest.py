"""What every test starts from."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from metarl.reporting.films import draw_without_display

settings.register_profile("house", deadline=None)  # machines are shared: a slow example is no defect
settings.load_profile("house")
draw_without_display()  # before anything imports mujoco


@pytest.fixture(autouse=True)
def signals_arrive() -> Iterator[None]:
    """Tests, and their children, take signals although whoever started them has them ignored: a shell in the background
    SIGINT, nohup SIGHUP.
    """
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    if hasattr(signal, "SIGHUP"):
        handlers[signal.SIGHUP] = signal.SIG_DFL
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
