"""Images in tar files: a tar counts as a folder, and ``shards/000.tar/cat.jpg`` is the path of its member cat.jpg.

Nothing is unpacked. A tar is listed once, which reads the headers of its members and jumps over their contents; then a
member is read by its place in the file, in any order. So tars must not be compressed.
"""

import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath, PureWindowsPath

from contextseg.errors import ImageError

_MAX_BYTES = 2**32  # of a member, which is read whole
_N_SHOWN = 3


@dataclass(frozen=True)
class Listing:
    """What a tar file holds.

    Attributes:
        places: name of each file in it, with forward slashes -> (offset, size) in bytes; the last one of a name counts.
        fault: why something of it is not listed; None for a good tar.
    """

    places: Mapping[str, tuple[int, int]]
    fault: str | None


def is_tar(path: Path) -> bool:
    """Return whether a path names a tar file; a folder of that name is none."""
    return path.suffix.lower() == ".tar" and path.is_file()


def tar_around(path: Path) -> Path | None:
    """Return the tar file that a path leads into, if it does."""
    return next((parent for parent in path.parents if is_tar(parent)), None)


def list_tar(tar: Path) -> Listing:
    """List a tar file; it is read again where it has changed. A damaged one is listed as far as it can be read."""
    try:
        status = tar.stat()
    except OSError as error:
        return Listing({}, f"cannot be reached: {error.strerror}")
    return _listing(tar, status.st_size, status.st_mtime_ns)


def place(tar: Path, path: Path) -> tuple[int, int]:
    """Return the (offset, size) in bytes of the member of a tar that a path leads to.

    Raises:
        ImageError: there is no such member.
    """
    listing = list_tar(tar)
    name = path.relative_to(tar).as_posix()
    if name not in listing.places:
        raise ImageError(path, f"is no file in {tar.name}; {listing.fault or 'the tar is whole'}")
    return listing.places[name]


def read_member(tar: Path, path: Path) -> bytes:
    """Return the content of the member of a tar that a path leads to.

    Raises:
        ImageError: it cannot be read whole, or has more than 4 GiB.
    """
    offset, size = place(tar, path)
    if size > _MAX_BYTES:
        raise ImageError(path, f"has {size:,} bytes, more than {_MAX_BYTES:,} for a file in a tar")
    with tar.open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise ImageError(path, f"is truncated: {len(content):,} of {size:,} bytes are in {tar.name}")
    return content


@cache
def _listing(tar: Path, _size: int, _time_ns: int) -> Listing:
    places: dict[str, tuple[int, int]] = {}
    outside: list[str] = []
    fault = None
    try:
        with tarfile.open(tar, "r:") as file:
            for member in file:
                if member.size < 0:
                    raise tarfile.ReadError(f"{member.name} has a negative size")
                if _leads_out(member.name):
                    outside.append(member.name)
                elif member.isreg() and not member.issparse():
                    places[PurePosixPath(member.name).as_posix()] = (member.offset_data, member.size)
            _check_end(tar, file.offset)
    except Exception as error:  # damaged headers raise whatever they lead tarfile to
        fault = f"cannot be read to its end as an uncompressed tar file; {len(places)} files are before that: {error}"
    if outside and fault is None:
        first = ", ".join(repr(name) for name in outside[:_N_SHOWN])
        fault = f"holds {len(outside)} members whose names lead out of it, which are left out: {first}"
    return Listing(places, fault)


def _leads_out(name: str) -> bool:
    """Return whether a name is no path below a folder, on any system."""
    path = PureWindowsPath(name)  # it reads both kinds of slashes
    return bool(path.anchor) or ".." in path.parts or "\0" in name


def _check_end(tar: Path, offset: int) -> None:
    """Refuse what tarfile takes for an end: it stops without a word at a header that is damaged."""
    with tar.open("rb") as file:
        file.seek(offset)
        if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
            raise tarfile.ReadError(f"the header at byte {offset:,} is damaged")
