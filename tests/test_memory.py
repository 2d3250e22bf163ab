import subprocess
import sys

import pytest

ALLOCATE = """
import resource
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from contextseg.memory import keep_freed_memory
def allocate():
    tensors = [np.ones(size, np.uint8) for size in {sizes}]
{begin}
pool = ThreadPoolExecutor(1)
run = {run}
run()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    run()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
IN_THREAD = "lambda: pool.submit(allocate).result()"


def faults(begin: str, run: str, sizes: list[int]) -> int:
    code = ALLOCATE.format(begin=begin, run=run, sizes=sizes)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="it is glibc that is asked")
@pytest.mark.parametrize(
    ("run", "sizes", "else_more_than", "less_than"),
    # by itself, the heap of a thread keeps what two such tensors take: a third one is asked for again each time
    [("allocate", [2**23] * 4 + [2**24], 1 / 10, 1 / 100), (IN_THREAD, [30 * 2**20] * 3, 1 / 100, 1 / 1000)],
    ids=["main", "thread"],
)
def test_memory_that_was_freed_is_not_asked_for_again(
    run: str, sizes: list[int], else_more_than: float, less_than: float
) -> None:
    pages = 10 * sum(sizes) // 4096
    assert faults("", run, sizes) > pages * else_more_than
    assert faults("keep_freed_memory()", run, sizes) < pages * less_than
