"""What the soak of long runs calls sound."""

import os
import threading
from dataclasses import replace

import pytest
from soak_memory import EVERY, Sample, verdict

FLAT = [Sample(i, 300.0, 4, 2) for i in range(EVERY, 5001, EVERY)]


def test_what_stays_as_it_is_is_sound():
    early = [replace(s, resident=100.0, files=3, threads=1) if s.iteration < 500 else s for s in FLAT]
    for samples in (FLAT, early):  # what happens in the first 500 iterations is not looked at
        assert verdict("rl2", samples)["sound"]
        assert verdict("rl2", samples)["growth"] == 0


@pytest.mark.parametrize("change", [{"resident": 306.1}, {"files": 5}, {"threads": 3}])
def test_what_grows_is_not(change):
    for where in (30, -1):
        samples = [*FLAT]
        samples[where] = replace(samples[where], **change)
        assert not verdict("rl2", samples)["sound"]


def test_a_sample_counts_files_and_threads():
    before = Sample.now(1)
    descriptor, stop = os.open(os.devnull, os.O_RDONLY), threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    after = Sample.now(2)
    stop.set()
    thread.join()
    os.close(descriptor)
    assert (after.files, after.threads) == (before.files + 1, before.threads + 1)
    assert 10 < before.resident < 1e5
