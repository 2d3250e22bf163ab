"""Files that appear whole or not at all: a reader, or a run that is killed, never meets half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from contextseg.errors import WriteError


@contextmanager
def atomic(path: Path, *, durable: bool = True) -> Iterator[BinaryIO]:
    """Open a binary file that takes the place of `path` when the body ends; if it raises, nothing has changed.

    Args:
        path: the file; its folder is made if need be.
        durable: the content is on the disk before the name is. Without, nobody waits for the disk, and a power cut may
            leave an empty file: for what can be made again.

    Raises:
        WriteError: the file cannot be written.
    """
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        yield file
        if durable:
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Name a file for the body to write, which takes the place of `path` when the body ends; see `atomic`.

    Raises:
        WriteError: the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.part")
    try:
        with write_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            os.replace(temporary, path)
    finally:
        with suppress(OSError):  # whatever keeps it from being removed has been told above
            temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Tell what the system refuses while the body writes `path` as a `WriteError`."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of a library, about what it reads
            raise
        raise WriteError(path, error) from error


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file by `atomic`."""
    with atomic(path) as file:
        file.write(content)
