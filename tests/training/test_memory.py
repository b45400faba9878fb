"""Freed memory is kept: a step that needs what the last one freed touches no new page."""

from __future__ import annotations

import subprocess
import sys

import pytest

COUNT = """
import resource, sys, torch
from polyface.training.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def step():
    tensors = [torch.ones(12_000_000) for _ in range(2)]  # 48 MB each: always mapped anew by default
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
before = faults()
for _ in range(5):
    step()
print(faults() - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts page faults as Linux does")
def test_no_page_is_mapped_anew() -> None:
    kept, given_back = page_faults("keep"), page_faults("default")
    if given_back < 1000:
        pytest.skip("this system's allocator keeps memory by itself")
    assert kept < given_back / 2
