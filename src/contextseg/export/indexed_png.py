"""Masks as PNG files whose pixel value *is* the cluster id.

Shape suffixes: H, W image height and width in pixels; K clusters.

A mask of K <= 255 clusters is an 8-bit indexed PNG (mode "P"): ids 0..254, and 255, in black, for an ignored
pixel. More clusters need a 16-bit PNG (mode "I;16"), which has no palette: it opens as dark grey in most viewers, and
its values are the ids all the same, and 65535 for an ignored pixel.
"""

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from contextseg.classes import Classes, looked_up
from contextseg.conventions import IGNORE, IGNORE_16, ignore_value
from contextseg.errors import DataError
from contextseg.files import atomic


class PngWriter:
    """Writes indexed PNGs and classes.json; see `MaskWriter`. Hidden classes are ignored pixels."""

    def __init__(self, out: Path, classes: Classes) -> None:
        self.out = out
        self.colours = classes.colours_K3
        self.values_K = classes.values(background=ignore_value(len(classes.entries)))
        classes.write(out / "classes.json")

    def add(self, image: Path, name: Path, clusters_HW: npt.NDArray[np.unsignedinteger[Any]]) -> None:
        """Write the mask of one image."""
        write_mask(self.out / name, looked_up(self.values_K, clusters_HW), self.colours)

    def finish(self) -> None:
        """There is nothing left to write."""


def write_mask(path: Path, clusters_HW: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8]) -> None:
    """Write a cluster map as a PNG whose pixel values are the cluster ids, in one step.

    Args:
        path: the file to write; its folder is made if need be.
        clusters_HW: (H, W) integers in 0..K-1; also `ignore_value(K)` for an ignored pixel.
        palette: (K, 3) uint8 RGB; its length says how many clusters there are. With K > 255 the file is a
            16-bit PNG without a palette.

    Raises:
        DataError: the map is not a non-empty (H, W) integer map or holds an id outside the palette, or
            K > 65535.
        OSError: the file cannot be written.
    """
    _check_mask(clusters_HW, palette)
    if len(palette) > IGNORE_16:
        raise DataError(f"a PNG mask holds at most {IGNORE_16} clusters; got {len(palette)}")
    if len(palette) > IGNORE:
        save_png(path, Image.fromarray(clusters_HW.astype(np.uint16)))
        return
    image = Image.fromarray(clusters_HW.astype(np.uint8))
    # All 256 entries, or Pillow would pack the pixels into fewer bits and the value 255 would not survive.
    image.putpalette(_with_ignore(palette).tobytes())
    save_png(path, image, compress_type=zlib.Z_RLE)  # a mask is made of runs: half of the time, hardly larger


def write_confidence(path: Path, confidence_HW: npt.NDArray[np.floating]) -> None:
    """Write a confidence map as an 8-bit grey PNG: 0 for none, 255 for certain.

    Args:
        path: the file to write; its folder is made if need be.
        confidence_HW: (H, W) floats in 0..1; rounding errors of up to 0.001 beyond are clipped.

    Raises:
        DataError: the map is not a non-empty (H, W) float map, or a value is NaN or outside 0..1.
        OSError: the file cannot be written.
    """
    if confidence_HW.ndim != 2 or confidence_HW.size == 0 or not np.issubdtype(confidence_HW.dtype, np.floating):
        raise DataError(
            f"a confidence map has the shape (H, W) and holds floats; got {confidence_HW.shape} {confidence_HW.dtype}"
        )
    low, high = float(confidence_HW.min()), float(confidence_HW.max())
    if not (low >= -1e-3 and high <= 1 + 1e-3):  # said this way round, NaN fails too
        raise DataError(f"confidence must lie in 0..1; the map holds {low:g}..{high:g}")
    save_png(path, Image.fromarray(np.rint(np.clip(confidence_HW, 0, 1) * 255).astype(np.uint8)))


def colourise(mask_HW: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the mask in colours.

    Args:
        mask_HW: (H, W) integers in 0..K-1; also `ignore_value(K)`, which is black.
        palette: (K, 3) uint8 RGB.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: the mask is not a non-empty (H, W) integer map, or holds an id outside the palette.
    """
    _check_mask(mask_HW, palette)
    return np.asarray(_with_ignore(palette)[mask_HW])


def overlay(
    image_HW3: npt.NDArray[np.uint8],
    mask_HW: npt.NDArray[np.integer],
    palette: npt.NDArray[np.uint8],
    alpha: float = 0.5,
) -> npt.NDArray[np.uint8]:
    """Return the image with the coloured mask laid over it; ignored pixels stay as they are.

    Args:
        image_HW3: (H, W, 3) uint8 RGB.
        mask_HW: (H, W) integers as for `colourise`.
        palette: (K, 3) uint8 RGB.
        alpha: weight of the mask, 0 (image alone) to 1 (mask alone).

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        DataError: image and mask differ in size, alpha is out of range, or the mask is unusable.
    """
    if image_HW3.shape != (*mask_HW.shape, 3) or image_HW3.dtype != np.uint8:
        raise DataError(
            f"expected an (H, W, 3) uint8 image of the size of its mask {mask_HW.shape}; "
            f"got {image_HW3.shape} {image_HW3.dtype}"
        )
    if not 0 <= alpha <= 1:
        raise DataError(f"alpha must lie in 0..1, such as 0.5; got {alpha}")
    blend = np.rint((1 - alpha) * image_HW3 + alpha * colourise(mask_HW, palette)).astype(np.uint8)
    return np.where((mask_HW == ignore_value(len(palette)))[..., None], image_HW3, blend)


def save_png(path: Path, image: Image.Image, **options: Any) -> None:
    """Write an image as PNG, whole or not at all, but for a power cut: see `is_written`. Its folder is made if need be.

    Args:
        path: the file to write.
        image: in a mode that PNG has.
        options: of Pillow's writer.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic(path, durable=False) as file:
        image.save(file, format="PNG", **options)


def is_written(path: Path) -> bool:
    """Return whether a PNG is there; one that a power cut has left empty is not."""
    return path.is_file() and path.stat().st_size > 0


def _check_mask(mask_HW: npt.NDArray[np.integer], palette: npt.NDArray[np.uint8]) -> None:
    if palette.ndim != 2 or palette.shape[1] != 3 or len(palette) == 0 or palette.dtype != np.uint8:
        raise DataError(f"a palette has the shape (K, 3) and dtype uint8; got {palette.shape} {palette.dtype}")
    if mask_HW.ndim != 2 or mask_HW.size == 0 or not np.issubdtype(mask_HW.dtype, np.integer):
        raise DataError(f"a mask has the shape (H, W) and integers; got {mask_HW.shape} {mask_HW.dtype}")
    n_clusters, ignore = len(palette), ignore_value(len(palette))
    if mask_HW.min() >= 0 and mask_HW.max() < n_clusters:
        return
    bad = ((mask_HW < 0) | (mask_HW >= n_clusters)) & (mask_HW != ignore)
    if bad.any():
        raise DataError(
            f"cluster id {mask_HW[bad][0]} is outside the palette: expected 0..{n_clusters - 1}, "
            f"or {ignore} for an ignored pixel"
        )


def _with_ignore(palette: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    full = np.zeros((ignore_value(len(palette)) + 1, 3), dtype=np.uint8)
    full[: len(palette)] = palette
    return full
