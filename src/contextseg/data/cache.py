"""The images of a run, decoded once at training size into one file.

The cache is a folder with two files: `images.raw`, the (h, w, 3) uint8 arrays one after the other, and
`index.json`, which says what they are. The index is written last, so that a cache with an index is complete.

The file may have a limit. It then holds the first images of the list, and the others are decoded whenever they are
used. Nothing is evicted: an epoch takes each image once, in an order drawn at random, so that whatever a cache of that
size holds, as large a share of the images is found in it.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from contextseg.conventions import MAX_PIXELS, SIZE_MULTIPLE_PX
from contextseg.data.image_files import relative_name
from contextseg.data.images import read_for_training
from contextseg.data.tars import place, tar_around
from contextseg.data.threads import read_ahead
from contextseg.errors import DataError, ImageError
from contextseg.files import atomic, write_atomically, write_errors

_FORMAT_VERSION = 2
_RAW, _INDEX = "images.raw", "index.json"
_N_SHOWN = 3

Decoded = NDArray[np.uint8] | ImageError


class ImageCache:
    """The usable images of a list, at training size, in the order of the list.

    Memory holds the index alone; pixels are read from disk when they are used, from the image files where they are not
    in the cache. The file is not mapped: pages of it would count as memory of the process, more and more of them as
    images go by. A cache can be sent to another process: it is opened again there.

    Args:
        folder: a complete cache, as `build` leaves it.

    Attributes:
        folder: where the cache lies.
        names: of the images, relative to the root of the data set, with forward slashes.
        shapes: (h, w) of the images.
        left_out: (name, reason) of the files that could not be used.
        n_stored: how many images, from the first, the file holds.
        fingerprint: hex digest of the files (names, sizes, times of change) and of how they were read.

    Raises:
        DataError: the folder holds no complete cache.
    """

    def __init__(self, folder: Path) -> None:
        index = _read_index(folder)
        if index is None:
            raise DataError(f"{folder}: no complete image cache; build it with ImageCache.build")
        self.folder = folder
        self.names: list[str] = index["names"]
        self.shapes: list[tuple[int, int]] = [(h, w) for h, w in index["shapes"]]
        self.left_out: list[tuple[str, str]] = [(name, reason) for name, reason in index["left_out"]]
        self.fingerprint: str = index["fingerprint"]
        self.n_stored: int = index["n_stored"]
        self._root, self._size = Path(index["how"]["root"]), index["how"]["size"]
        self._starts = [0, *accumulate(3 * h * w for h, w in self.shapes)]

    @classmethod
    def build(
        cls,
        paths: Sequence[Path],
        root: Path,
        folder: Path,
        *,
        shorter_px: int,
        multiple: int = SIZE_MULTIPLE_PX,
        max_pixels: int = MAX_PIXELS,
        max_bytes: int | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> Self:
        """Decode images into a cache, or take the one in the folder if it is complete and of the same files.

        One process at a time may build in a folder.

        Args:
            paths: the image files.
            root: the folder that their names are relative to; or the file itself where it is the only one.
            folder: where the cache lies; made if need be.
            shorter_px: shorter side of the images, in pixels; see `contextseg.data.images.training_size`.
            multiple: both sides are multiples of this.
            max_pixels: files with more pixels are left out.
            max_bytes: size of the file of pixels, at most; None for no limit.
            on_progress: called with (files done, files in all) after each file; not when a cache is reused.

        Raises:
            DataError: no image can be used.
            WriteError: the cache cannot be written.
            SettingsError: `shorter_px` is not a multiple of `multiple`.
        """
        names = [relative_name(path, root) for path in paths]
        fingerprint = _fingerprint(paths, names, shorter_px, multiple, max_pixels)
        read = partial(read_for_training, shorter_px=shorter_px, multiple=multiple, max_pixels=max_pixels)
        base = root.parent if list(paths) == [root] else root
        how = {"root": str(base.absolute()), "size": read.keywords, "max_bytes": max_bytes}
        index = _read_index(folder)
        if index is not None and (index["fingerprint"], index["how"]) == (fingerprint, how):
            return cls(folder)
        with write_errors(folder):
            # Without this, a build killed below would leave the old index beside new pixels.
            (folder / _INDEX).unlink(missing_ok=True)
        index = _write_raw(folder / _RAW, names, read_ahead(read, paths), max_bytes, on_progress)
        write_atomically(folder / _INDEX, json.dumps({"fingerprint": fingerprint, "how": how} | index).encode())
        return cls(folder)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, i: int) -> NDArray[np.uint8]:
        """Return image i, (h, w, 3) uint8.

        Raises:
            ImageError: the image is not stored, and its own file is no longer what it was.
            DataError: the file of the cache is no longer what it was.
        """
        i = range(len(self))[i]
        if i >= self.n_stored:
            image = read_for_training(path := self._root / self.names[i], **self._size)
            if image.shape[:2] != self.shapes[i]:
                raise ImageError(path, "has changed since the images were read; start again with it as it is")
            return image
        raw, start, size = self.folder / _RAW, self._starts[i], self._starts[i + 1] - self._starts[i]
        try:
            pixels = np.fromfile(raw, np.uint8, size, offset=start)
        except OSError as error:
            raise DataError(f"{raw}: cannot be read: {error.strerror}; with --resume it is made again") from error
        if len(pixels) < size:
            raise DataError(f"{raw}: ends before image {i}; with --resume it is made again")
        return pixels.reshape(*self.shapes[i], 3)

    def __reduce__(self) -> tuple[type[Self], tuple[Path]]:
        return type(self), (self.folder,)

    def by_shape(self) -> dict[tuple[int, int], list[int]]:
        """Return (h, w) -> the indices of the images of that size, ascending."""
        indices: dict[tuple[int, int], list[int]] = {}
        for i, shape in enumerate(self.shapes):
            indices.setdefault(shape, []).append(i)
        return indices

    def delete(self) -> None:
        """Remove the cache from disk."""
        for name in (_INDEX, _RAW):
            (self.folder / name).unlink(missing_ok=True)
        # The folder may hold other things.
        with suppress(OSError):
            self.folder.rmdir()


def _fingerprint(paths: Sequence[Path], names: list[str], *settings: int) -> str:
    """Hash everything that the content of a cache follows from, without reading the files."""
    files = [(name, *_size_and_time(path)) for name, path in zip(names, paths, strict=True)]
    return hashlib.sha256(json.dumps([_FORMAT_VERSION, settings, files]).encode()).hexdigest()


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        if (tar := tar_around(path)) is not None:
            return place(tar, path)[1], tar.stat().st_mtime_ns
        status = path.stat()
    except OSError:
        return (-1, -1)
    return status.st_size, status.st_mtime_ns


def _read_index(folder: Path) -> dict[str, Any] | None:
    """Return the index of a complete cache, or None."""
    try:
        index = json.loads((folder / _INDEX).read_bytes())
        expected = sum(3 * h * w for h, w in index["shapes"][: index["n_stored"]])
        complete = (folder / _RAW).stat().st_size == expected and len(index["shapes"]) == len(index["names"]) > 0
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return index if complete and {"left_out", "fingerprint", "how"} <= index.keys() else None


def _write_raw(
    path: Path,
    names: list[str],
    images: Iterator[Decoded],
    max_bytes: int | None,
    on_progress: Callable[[int, int], None] | None,
) -> dict[str, Any]:
    """Write the pixels file and return what the index says of it."""
    kept: list[str] = []
    shapes: list[tuple[int, ...]] = []
    left_out: list[tuple[str, str]] = []
    n_stored = 0
    with atomic(path) as file:
        for done, (name, image) in enumerate(zip(names, images, strict=True), start=1):
            if isinstance(image, ImageError):
                left_out.append((name, image.reason))
            else:
                if n_stored == len(kept) and (max_bytes is None or file.tell() + image.nbytes <= max_bytes):
                    file.write(image.data)
                    n_stored += 1
                kept.append(name)
                shapes.append(image.shape[:2])
            if on_progress is not None:
                on_progress(done, len(names))
        if not kept:
            reasons = "; ".join(f"{name} {reason}" for name, reason in left_out[:_N_SHOWN])
            raise DataError(f"none of {len(names)} image files can be used: {reasons or 'the list is empty'}")
    return {"names": kept, "shapes": shapes, "left_out": left_out, "n_stored": n_stored}
