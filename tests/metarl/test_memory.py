"""Freed memory is kept: a block that is needed again has no pages to touch for the first time."""

import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from metarl.memory import keep_freed_memory

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


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc's malloc is told what to keep")
def test_a_block_needed_again_costs_no_page_faults():
    found = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    kept, before, after = map(int, found.stdout.split())
    if not kept:
        pytest.skip("another malloc than glibc's")
    assert before > 20 * 1000  # 40 MB in pages of 4 KiB, every time
    assert after < before / 10
