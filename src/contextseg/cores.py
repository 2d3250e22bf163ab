"""Arithmetic on many things at once, where each is too small to keep all cores of a CPU busy."""

import functools
import math
import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch

from contextseg.data.threads import map_ahead

_MAX_THREADS = 8  # each holds the maps of what it looks at

_In = TypeVar("_In")
_Seen = TypeVar("_Seen")
_Out = TypeVar("_Out")

_lock = threading.RLock()  # a generator may be cleared away, and so end, wherever memory is asked for
_n_callers = _n_cores = 0  # of those that share the cores out now; what there was before the first of them


def map_on_cores(function: Callable[[_In], _Out], things: Iterable[_In]) -> Generator[_Out, None, None]:
    """Yield `function` of each thing, in order, as `map_ahead`: the cores that torch may use are shared out.

    That takes less time than all of them at one thing after another, since a core never waits for another one.
    """
    with _all_cores() as n_cores:
        share = math.ceil(n_cores / _MAX_THREADS)
        take_share = functools.partial(torch.set_num_threads, share)
        yield from map_ahead(function, things, n_threads=n_cores // share, initializer=take_share)


def map_looks(
    look: Callable[[_In], _Seen], finish: Callable[[_Seen], _Out], things: Iterable[_In], device_type: str
) -> Generator[_Out, None, None]:
    """Yield `finish` of `look` of each thing, in order; `look` is a network's, on a device of type "cpu", "cuda", ..

    On a CPU each core does both, one after the other. Beside a device whose memory is for one look at a time, it looks
    in the caller's thread, and others finish meanwhile.
    """
    if device_type == "cpu":
        return map_on_cores(lambda thing: finish(look(thing)), things)
    return map_ahead(finish, map(look, things), finish=True)


@contextmanager
def _all_cores() -> Iterator[int]:
    """Give the cores that torch may use; it has them again afterwards, whoever else has shared them out meanwhile.

    A thread that begins takes over the number that was set last in any other.
    """
    global _n_callers, _n_cores
    with _lock:
        _n_cores = _n_cores if _n_callers else torch.get_num_threads()
        _n_callers += 1
    try:
        yield _n_cores
    finally:
        with _lock:
            torch.set_num_threads(_n_cores)
            _n_callers -= 1
