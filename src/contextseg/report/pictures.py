"""Pictures inside a page: arrays to data URIs, and a region outlined on its image.

Shape suffixes: H, W height and width in pixels; K clusters.
"""

import base64
import io
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

_JPEG_QUALITY = 80
_MARGIN = 0.2  # of a region's longer side, left around it
_DIMMED = 0.45  # brightness of what is not the region


def data_uri(picture_HW3: NDArray[np.uint8], format: str = "JPEG") -> str:
    """Return a picture as a URI that holds it.

    Args:
        picture_HW3: (H, W, 3) uint8 RGB.
        format: "JPEG" for photographs, "PNG" for areas of one colour.
    """
    buffer = io.BytesIO()
    image = Image.fromarray(picture_HW3)
    if format == "PNG":
        image = image.quantize(256, dither=Image.Dither.NONE)
    image.save(buffer, format, quality=_JPEG_QUALITY, optimize=True)
    return f"data:image/{format.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def fit(picture: NDArray[Any], longer_px: int) -> NDArray[Any]:
    """Return an (H, W) map or an (H, W, 3) uint8 picture with its longer side at most `longer_px`; maps keep values."""
    height, width = picture.shape[:2]
    scale = min(1.0, longer_px / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    kernel = Image.Resampling.BOX if picture.ndim == 3 else Image.Resampling.NEAREST
    return np.asarray(Image.fromarray(picture).resize(size, kernel))


def confidence_colours(confidence_HW: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return confidences in 0-1 from dark blue to yellow, a scale that is read without telling red from green."""
    return np.asarray(colormaps["cividis"](confidence_HW, bytes=True))[..., :3].copy()


def cut_out(
    image_HW3: NDArray[np.uint8], region_HW: NDArray[np.bool_], box: tuple[slice, slice], side_px: int
) -> NDArray[np.uint8]:
    """Cut a square around a region, with a margin: the region bright in a white line, the rest dimmed.

    Args:
        image_HW3: (H, W, 3) uint8 RGB.
        region_HW: whether a pixel belongs to the region.
        box: the rows and columns that hold it.
        side_px: longer side of the result; the image's edge may cut the other one short.
    """
    rows, columns = box
    half = max(rows.stop - rows.start, columns.stop - columns.start) * (0.5 + _MARGIN)
    window = tuple(
        slice(max(0, round(middle - half)), min(length, round(middle + half) + 1))
        for middle, length in zip(
            ((rows.start + rows.stop) / 2, (columns.start + columns.stop) / 2), region_HW.shape, strict=True
        )
    )
    cut = image_HW3[window]
    scale = side_px / max(cut.shape[:2])
    size = (max(1, round(cut.shape[1] * scale)), max(1, round(cut.shape[0] * scale)))
    picture = np.array(Image.fromarray(cut).resize(size, Image.Resampling.BILINEAR))
    inside = np.asarray(Image.fromarray(region_HW[window]).resize(size, Image.Resampling.NEAREST))
    picture[~inside] = (picture[~inside] * _DIMMED).astype(np.uint8)
    picture[ndimage.binary_dilation(inside) & ~inside] = 255
    return picture
