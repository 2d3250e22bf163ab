"""Work on many files in threads: decoders let other threads run meanwhile."""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

from contextseg.errors import ImageError

_MAX_THREADS = 4

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_ahead(
    function: Callable[[_In], _Out],
    things: Iterable[_In],
    *,
    n_threads: int | None = None,
    initializer: Callable[[], None] | None = None,
    finish: bool = False,
) -> Generator[_Out, None, None]:
    """Yield `function` of each thing, in order; a few are worked on ahead, so memory is bounded.

    Args:
        function: of one thing.
        things: asked for in the caller's thread.
        n_threads: by default one for each processor, up to a few.
        initializer: called in each thread as it begins.
        finish: work on all things that were asked for, even if the caller stops early or one fails; by default those
            that no thread has begun are dropped.

    Raises:
        Exception: whatever `function` raises, when its turn comes.

    >>> list(map_ahead(abs, [-1, 2, -3]))
    [1, 2, 3]
    """
    n_threads = n_threads or min(_MAX_THREADS, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(n_threads, initializer=initializer)
    try:
        rest = iter(things)
        ahead = deque(pool.submit(function, thing) for thing in islice(rest, 2 * n_threads))
        while ahead:
            yield ahead.popleft().result()
            ahead.extend(pool.submit(function, thing) for thing in islice(rest, 1))
    finally:
        pool.shutdown(cancel_futures=not finish)


def read_ahead(read: Callable[[Path], _Out], paths: Iterable[Path]) -> Iterator[_Out | ImageError]:
    """Yield what `read` makes of each image file, in order, or why the file cannot be used; see `map_ahead`."""

    def read_or_error(path: Path) -> _Out | ImageError:
        try:
            return read(path)
        except ImageError as error:
            return error

    return map_ahead(read_or_error, paths)
