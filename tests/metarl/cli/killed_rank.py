"""A callback of a test: this process is killed once, after an iteration; nothing of it is left to say so."""

import os
import signal

AFTER = "METARL_TEST_KILLED_AFTER"  # iterations
ONCE = "TORCHELASTIC_RESTART_COUNT"


class Killed:
    """Kills the process, as a machine that goes away does."""

    def on_iteration(self, metrics):
        if metrics["iteration"] + 1 == int(os.environ[AFTER]) and os.environ.get(ONCE, "0") == "0":
            os.kill(os.getpid(), signal.SIGKILL)
