"""The images under review and their masks, by index; what is counted once is kept.

Shape suffixes: N images, K clusters, H, W mask height and width in pixels.
"""

from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rich.console import Console

from contextseg.data.image_files import list_images
from contextseg.data.images import read_image, without_pillow_limit
from contextseg.data.threads import map_ahead
from contextseg.errors import ImageError, RunError
from contextseg.export.indexed_png import is_written
from contextseg.export.names import mask_names
from contextseg.export.writer import file_name
from contextseg.files import atomic
from contextseg.progress import progress
from contextseg.review.corrections import Clusters


@dataclass(frozen=True)
class Collection:
    """Images that have a mask.

    Attributes:
        images: N files.
        names: N names of their masks, relative to `masks`.
        masks: the folder; its sub-folder ``confidence`` may hold confidence maps.
        counts_NK: pixels of each cluster in each mask, int64.
        confidence_N: mean confidence of each mask in 0..1, float32; NaN where there is no map.
        max_pixels: larger files are refused.
    """

    images: tuple[Path, ...]
    names: tuple[str, ...]
    masks: Path
    counts_NK: NDArray[np.int64]
    confidence_N: NDArray[np.float32]
    max_pixels: int

    @property
    def n_clusters(self) -> int:
        """K."""
        return int(self.counts_NK.shape[1])

    @cached_property
    def files(self) -> tuple[str, ...]:
        """N names of the images as people know them: their paths below the folder."""
        return tuple(file_name(image, Path(name)) for image, name in zip(self.images, self.names, strict=True))

    def image(self, index: int, *, draft_px: int | None = None) -> NDArray[np.uint8]:
        """Read an image, (H, W, 3) uint8; see `read_image`."""
        return read_image(self.images[index], max_pixels=self.max_pixels, draft_px=draft_px)

    def clusters(self, index: int) -> Clusters:
        """Read a mask, (H, W).

        Raises:
            ImageError: it cannot be read, or is not of this run.
        """
        return _read_clusters(self.masks / self.names[index], self.n_clusters)

    def confidence(self, index: int) -> NDArray[np.uint8] | None:
        """Read the confidence of each pixel, (H, W) uint8, 255 is certain; None where there is no map."""
        path = self.masks / "confidence" / self.names[index]
        return _read_png(path).astype(np.uint8) if path.exists() else None


def missing(images: Path, masks: Path) -> list[Path]:
    """Return the images below a folder that have no mask yet."""
    return [path for path, name in mask_names(list_images(images), images).items() if not is_written(masks / name)]


def open_collection(
    images: Path, masks: Path, n_clusters: int, kept: Path, *, max_pixels: int, console: Console
) -> Collection:
    """Look at every mask once; what was counted the last time and has not changed is read from `kept`.

    Args:
        images: a folder that is searched with its subfolders, or one image. Images without a mask are left out.
        masks: folder of raw masks, as by `contextseg predict --raw --confidence`.
        n_clusters: K of the run.
        kept: the .npz file of the counts.
        max_pixels: larger files are refused.
        console: where progress is shown.

    Raises:
        DataError: there are no images, or a mask cannot be used.
        RunError: no image has a mask.
    """
    found = {path: name for path, name in mask_names(list_images(images), images).items() if is_written(masks / name)}
    if not found:
        raise RunError(f"{masks}: holds no mask of the images in {images}; expected such as {masks / 'NAME.png'}")
    known = _read_kept(kept, n_clusters)
    names = tuple(name.as_posix() for name in found.values())

    def look(name: str) -> _Row:
        row, stamp = known.get(name), (masks / name).stat().st_mtime_ns
        return row if row is not None and row[0] == stamp else _count(masks, name, n_clusters, stamp)

    rows = []
    with progress(console, "looking at masks", len(names)) as advance, closing(map_ahead(look, names)) as looked_at:
        for row in looked_at:
            rows.append(row)
            advance(1)
    stamps_N, counts_NK, confidence_N = zip(*rows, strict=True)
    counts, confidence = np.stack(counts_NK), np.array(confidence_N, np.float32)
    with atomic(kept) as file:
        np.savez(file, names=np.array(names), stamps=np.array(stamps_N), counts=counts, confidence=confidence)
    return Collection(tuple(found), names, masks, counts, confidence, max_pixels)


def count_pixels(clusters_HW: Clusters, n_clusters: int) -> NDArray[np.int64]:
    """Return the pixels of each cluster, (K,)."""
    if clusters_HW.dtype == np.uint8:  # Pillow counts bytes in a third of the time that numpy takes
        return np.array(Image.fromarray(clusters_HW).histogram()[:n_clusters])
    return np.bincount(clusters_HW.ravel(), minlength=n_clusters)


_Row = tuple[int, NDArray[np.int64], float]


def _read_kept(path: Path, n_clusters: int) -> dict[str, _Row]:
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as table:
        if table["counts"].shape[1] != n_clusters:
            return {}
        columns = zip(table["stamps"].tolist(), table["counts"], table["confidence"].tolist(), strict=True)
        return dict(zip(table["names"].tolist(), columns, strict=True))


def _count(masks: Path, name: str, n_clusters: int, stamp: int) -> _Row:
    counts_K = count_pixels(_read_clusters(masks / name, n_clusters), n_clusters)
    certain = masks / "confidence" / name
    return stamp, counts_K, float(_read_png(certain).mean() / 255) if certain.exists() else float("nan")


def _read_clusters(path: Path, n_clusters: int) -> Clusters:
    values_HW = _read_png(path)
    if (largest := int(values_HW.max())) >= n_clusters:
        raise ImageError(
            path,
            f"holds the value {largest}, the run has clusters 0..{n_clusters - 1}; "
            "`contextseg predict RUN IMAGES -o MASKS --raw --confidence` writes masks that can be reviewed",
        )
    return values_HW.astype(np.uint8 if n_clusters <= 256 else np.uint16)


def _read_png(path: Path) -> NDArray[np.integer[Any]]:
    try:
        with without_pillow_limit():
            image = Image.open(path, formats=["PNG"])
        with image:
            values_HW = np.asarray(image)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise ImageError(path, f"is not a PNG that can be read: {error}") from error
    if values_HW.ndim != 2:
        raise ImageError(path, f"is in colour ({image.mode}); expected an indexed or a grey PNG")
    return values_HW
