"""Freed memory is kept: a block that is needed again has no pages to touch for the first time."""

import ctypes
import platform
import subprocess
import sys

import pytest

from metarl.allocator import keep_freed_memory

GLIBC = platform.libc_ver()[0] == "glibc"

FAULTS = """
import resource
import torch
from metarl.allocator import keep_freed_memory

def faults(rounds):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(rounds):
        torch.ones(10_000_000)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(20)
apart = faults(20)
kept = keep_freed_memory()
faults(20)  # aligned blocks do not fit the holes they leave at once
print(int(kept), apart, faults(20))
"""


@pytest.mark.skipif(not GLIBC, reason="this system's malloc is not glibc's, the only one that is told what to keep")
def test_a_block_needed_again_costs_no_page_faults():
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, before, after = map(int, found.stdout.split())
    assert kept
    assert before > 20 * 1000  # 40 MB in pages of 4 KiB, every time
    assert after < before / 10


def test_elsewhere_nothing_changes_and_it_says_so(monkeypatch):
    monkeypatch.setattr(ctypes, "CDLL", lambda name: object())  # musl: a C library without mallopt
    assert keep_freed_memory() is False
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", None)  # would fail if it were asked
    assert keep_freed_memory() is False
