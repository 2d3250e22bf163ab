"""The export that runs while the page stays usable."""

import threading
from pathlib import Path
from typing import Any

from contextseg.errors import ContextsegError
from contextseg.review.session import Review


class ExportJob:
    """Writes the masks of a review in a thread of its own; one at a time.

    Args:
        review: whose masks.
        out: the folder that gets them.
    """

    def __init__(self, review: Review, out: Path) -> None:
        self.out = out
        self._review = review
        self._thread: threading.Thread | None = None
        self._done = 0
        self._error: str | None = None

    def start(self) -> None:
        """Begin, unless it is running."""
        if self._running():
            return
        self._done, self._error = 0, None
        self._thread = threading.Thread(target=self._run, name="export", daemon=True)
        self._thread.start()

    def progress(self) -> dict[str, Any]:
        """Return how far it is."""
        return {
            "running": self._running(),
            "done": self._done,
            "total": len(self._review.collection.names),
            "error": self._error,
            "out": str(self.out),
        }

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._review.export(self.out, self._advance)
        except (ContextsegError, OSError) as error:
            self._error = str(error)

    def _advance(self, n: int) -> None:
        self._done += n
