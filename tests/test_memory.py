import subprocess
import sys

import pytest

ALLOCATE = """
import resource
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from contextseg.memory import keep_freed_memory
def allocate():
    tensors = [np.ones(30 * 2**20, np.uint8) for _ in range(3)]
{begin}
pool = ThreadPoolExecutor(1)
run = {run}
run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
PAGES = 10 * 3 * 30 * 2**20 // 4096


def faults(begin: str, run: str) -> int:
    code = ALLOCATE.format(begin=begin, run=run)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is asked")
@pytest.mark.parametrize("run", ["allocate", "lambda: pool.submit(allocate).result()"], ids=["main", "thread"])
def test_memory_that_was_freed_is_not_asked_for_again(run: str) -> None:
    assert faults("", run) > PAGES / 100
    assert faults("keep_freed_memory()", run) < PAGES / 1000
