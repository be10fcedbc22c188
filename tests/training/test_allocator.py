"""What training frees it gets back without the system."""

import platform
import subprocess
import sys

import pytest

LOOP = """
import resource, sys
import torch
from derain.training.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
for round in range(12):
    if round == 2:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2 * 2**20) for _ in range(8)]  # 8 MiB each
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_not_asked_for_again_page_by_page():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", LOOP, how], check=True, capture_output=True, text=True).stdout)
        for how in ("plain", "kept")
    }
    assert faults["kept"] < 0.1 * faults["plain"]
