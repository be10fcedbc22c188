"""What training frees it gets back without the system."""

import platform
import subprocess
import sys

import pytest

LOOP = """
import ctypes, resource, sys
from derain.training.allocator import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def fill_and_free():
    blocks = [libc.malloc(16 * 2**20) for _ in range(6)]
    for block in blocks:
        ctypes.memset(block, 1, 16 * 2**20)
    for block in reversed(blocks):
        libc.free(block)

fill_and_free()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    fill_and_free()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told")
def test_what_is_freed_is_not_asked_for_again_page_by_page():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", LOOP, how], check=True, capture_output=True, text=True).stdout)
        for how in ("plain", "kept")
    }
    assert faults["kept"] < 0.1 * faults["plain"]
