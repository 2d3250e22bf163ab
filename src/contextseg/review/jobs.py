"""Work that runs while the page stays usable: the export of the masks, and the splitting of a class."""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contextseg.errors import ContextsegError
from contextseg.review.session import Review

Work = Callable[[Callable[[int], None]], Path]
"""Does it, calls with the number of pieces just done, and returns what it has written."""


class Job:
    """Runs something in a thread of its own; one at a time."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._done = self._total = 0
        self._out: Path | None = None
        self._error: str | None = None

    def begin(self, work: Work, total: int) -> None:
        """Begin, unless something is running.

        Args:
            work: what is done.
            total: how many pieces it has; 0 where that is not known.
        """
        if self._running():
            return
        self._done, self._total, self._out, self._error = 0, total, None, None
        self._thread = threading.Thread(target=self._run, args=(work,), name="job", daemon=True)
        self._thread.start()

    def progress(self) -> dict[str, Any]:
        """Return how far it is, and, when it is done, what was written."""
        return {
            "running": self._running(),
            "done": self._done,
            "total": self._total,
            "error": self._error,
            "out": None if self._out is None else str(self._out),
        }

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self, work: Work) -> None:
        try:
            self._out = work(self._advance)
        except (ContextsegError, OSError) as error:
            self._error = str(error)

    def _advance(self, n: int) -> None:
        self._done += n


class ExportJob(Job):
    """Writes the masks of a review.

    Args:
        review: whose masks.
        out: the folder that gets them.
    """

    def __init__(self, review: Review, out: Path) -> None:
        super().__init__()
        self.out = out
        self._review = review

    def start(self) -> None:
        """Begin, unless it is running."""
        self.begin(self._export, len(self._review.collection.names))

    def _export(self, advance: Callable[[int], None]) -> Path:
        self._review.export(self.out, advance)
        return self.out


class SplitJob(Job):
    """Divides a class in a run of its own, ``RUN-split``, ``RUN-split-2`` and so on, beside the reviewed one.

    Args:
        run: the reviewed run.
        images: what is looked at.
        device: where the network runs.
    """

    def __init__(self, run: Path, images: Path, device: str = "cpu") -> None:
        super().__init__()
        self._run_folder, self._images, self._device = run, images, device

    def start(self, cluster: int, into: int) -> None:
        """Begin, unless it is running.

        Args:
            cluster: id of the class; merged ones stay where they are.
            into: how many parts.
        """
        self.begin(lambda _advance: self._split(cluster, into), 0)

    def _split(self, cluster: int, into: int) -> Path:
        from contextseg.splitting import split  # imports torch, which the page does without

        own = self._run_folder.resolve()
        names = (f"{own.name}-split{'' if number == 1 else f'-{number}'}" for number in itertools.count(1))
        out = next(path for name in names if not (path := own.with_name(name)).exists())
        return split(own, self._images, cluster, out, into=into, device=self._device).path
