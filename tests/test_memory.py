import subprocess
import sys

import pytest

ALLOCATE = """
import resource
import numpy as np
from contextseg.memory import keep_freed_memory
{begin}
def allocate():
    tensors = [np.ones(2**23, np.uint8) for _ in range(4)], np.ones(2**24, np.uint8)
allocate()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    allocate()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * (4 * 2**23 + 2**24) // 4096


def faults(begin: str) -> int:
    code = ALLOCATE.format(begin=begin)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is asked")
def test_memory_that_was_freed_is_not_asked_for_again() -> None:
    assert faults("") > PAGES / 10
    assert faults("keep_freed_memory()") < PAGES / 100
