"""Arithmetic on many things at once, where each is too small to keep all cores of a CPU busy."""

import functools
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch

from contextseg.data.threads import map_ahead

_MAX_THREADS = 8  # each holds the maps of what it looks at

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_on_cores(function: Callable[[_In], _Out], things: Iterable[_In]) -> Iterator[_Out]:
    """Yield `function` of each thing, in order, as `map_ahead`: the cores that torch may use are shared out.

    That takes less time than all of them at one thing after another, since a core never waits for another one.
    """
    n_cores = torch.get_num_threads()
    n_threads = min(_MAX_THREADS, n_cores)
    take_share = functools.partial(torch.set_num_threads, n_cores // n_threads)
    try:
        yield from map_ahead(function, things, n_threads=n_threads, initializer=take_share)
    finally:
        torch.set_num_threads(n_cores)  # of threads that are still to be made
