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
def ctrl_c_interrupts() -> Iterator[None]:
    """A shell that starts the tests in the background has them, and their children, ignore SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
