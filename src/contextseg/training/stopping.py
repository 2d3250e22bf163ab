"""Ctrl-C and SIGTERM while a run trains: it stops where its state is saved."""

import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

from contextseg.collectives import any_of_all
from contextseg.errors import TrainingError
from contextseg.progress import Advance
from contextseg.training.images import SiameseSource
from contextseg.views.siamese import SiameseBatch

Batch = TypeVar("Batch")


class InterruptedRunError(TrainingError):
    """Training was stopped by the user and has been saved."""


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C or SIGTERM into an event that the loop looks at between steps; the second acts at once."""
    stopped = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stopped
        return
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def stop(number: int, _frame: object) -> None:
        stopped.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, stop)
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_if(stopped: bool) -> None:
    """End a run whose state is saved.

    Raises:
        InterruptedRunError: the user has stopped it.
    """
    if stopped:
        raise InterruptedRunError("stopped; the state is saved, and the same command with --resume goes on from here")


class Watched:
    """The images of a run as an epoch begins, before its first step: shown is progress, and the user may stop the run.

    Of the batches that all processes look at together, all stop at the same one as soon as any has had the signal.
    """

    def __init__(self, source: SiameseSource, stopped: threading.Event, advance: Advance) -> None:
        self.source = source
        self.stopped = stopped
        self.advance = advance
        self.n_images = source.n_images

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[SiameseBatch]:
        """Pass on the batches of an epoch, from a step."""

        def stopped() -> bool:
            return any_of_all(self.stopped.is_set())

        return _until(stopped, self.source.batches(epoch, first_step), lambda: self.advance(self.source.batch_size))

    def whole(self, first: int | None = None, *, after: int = 0) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Pass on whole images."""
        return _until(self.stopped.is_set, self.source.whole(first, after=after), lambda: None)


def _until(stopped: Callable[[], bool], batches: Iterable[Batch], done: Callable[[], None]) -> Iterator[Batch]:
    """Pass batches on and count them, until the user stops the run between two of them."""
    for batch in batches:
        stop_if(stopped())
        yield batch
        done()
    stop_if(stopped())
