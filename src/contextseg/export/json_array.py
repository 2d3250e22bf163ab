"""JSON arrays that are too long to hold in memory."""

import json
import shutil
import tempfile
import weakref
from typing import Any, BinaryIO


class JsonArray:
    """A JSON array that grows in a temporary file, which ends with this object."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115, it lives as long as this object
        weakref.finalize(self, self._file.close)
        self.n_items = 0

    def append(self, item: Any) -> None:
        """Add one JSON value."""
        self._file.write(b",\n" if self.n_items else b"[\n")
        self._file.write(json.dumps(item, ensure_ascii=False, separators=(",", ":")).encode())
        self.n_items += 1

    def copy_to(self, file: BinaryIO) -> None:
        """Write the whole array to the end of another file."""
        if not self.n_items:
            file.write(b"[")
        self._file.seek(0)
        shutil.copyfileobj(self._file, file)
        file.write(b"\n]")
