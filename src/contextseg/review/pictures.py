"""What the page shows of an image: small pictures, cut-outs, and the planes of a mask as plain bytes.

Shape suffixes: H, W height and width of a mask or a picture in pixels; h, w of a picture that is sent; P planes.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from contextseg.review.corrections import Clusters

JPEG_QUALITY = 85
_DIMMED = 0.35  # brightness of what is not of the class, in a cut-out
_MARGIN = 0.15  # of a cut-out's side, around the region


def fitted(height: int, width: int, longest_px: int) -> tuple[int, int]:
    """Return (height, width) with the ratio kept and no side above `longest_px`.

    >>> fitted(300, 600, 200), fitted(30, 60, 200), fitted(1, 1000, 100)
    ((100, 200), (30, 60), (1, 100))
    """
    scale = min(1.0, longest_px / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def reduced(picture_HW3: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    """Return a picture with no side longer than `longest_px`."""
    height, width = fitted(picture_HW3.shape[0], picture_HW3.shape[1], longest_px)
    return np.asarray(Image.fromarray(picture_HW3).resize((width, height), Image.Resampling.BICUBIC))


def jpeg(picture_HW3: NDArray[np.uint8]) -> bytes:
    """Return a picture as JPEG."""
    file = io.BytesIO()
    Image.fromarray(picture_HW3).save(file, format="JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def planes(clusters_HW: Clusters, confidence_HW: NDArray[np.uint8] | None, longest_px: int) -> Clusters:
    """Return clusters and confidence as they are sent, (P, h, w) of the type of the clusters; P is 1 or 2.

    Each pixel has the value of the nearest pixel of the mask, so that no cluster appears that is not there.
    """
    height, width = fitted(clusters_HW.shape[0], clusters_HW.shape[1], longest_px)
    rows = _nearest(clusters_HW.shape[0], height)
    columns = _nearest(clusters_HW.shape[1], width)
    maps = [clusters_HW] if confidence_HW is None else [clusters_HW, confidence_HW.astype(clusters_HW.dtype)]
    return np.stack([values_HW[rows[:, None], columns] for values_HW in maps])


def cut_out(picture_HW3: NDArray[np.uint8], clusters_HW: Clusters, cluster: int) -> NDArray[np.uint8]:
    """Return a square around the largest region of a cluster, with all other pixels dimmed.

    Args:
        picture_HW3: (H, W, 3) uint8 RGB.
        clusters_HW: (h, w), of any size; brought to the picture's by nearest values.
        cluster: one that occurs in the map.

    Returns:
        (side, side, 3) uint8, or less where the picture is smaller.
    """
    height, width = picture_HW3.shape[:2]
    rows, columns = _nearest(clusters_HW.shape[0], height), _nearest(clusters_HW.shape[1], width)
    of_cluster = clusters_HW[rows[:, None], columns] == cluster
    parts_HW, n_parts = ndimage.label(of_cluster)
    if n_parts == 0:  # so small that the reduced picture does not show it
        return picture_HW3
    largest = 1 + int(np.bincount(parts_HW.ravel())[1:].argmax())
    box = ndimage.find_objects(parts_HW)[largest - 1]
    side = round(max(part.stop - part.start for part in box) * (1 + 2 * _MARGIN))
    square = tuple(_around(part, side, size) for part, size in zip(box, (height, width), strict=True))
    shown = picture_HW3[square].copy()
    shown[~of_cluster[square]] = shown[~of_cluster[square]] * _DIMMED
    return shown


def _around(part: slice, side: int, size: int) -> slice:
    """Widen a range to `side`, inside of 0..size."""
    start = max(0, min((part.start + part.stop - side) // 2, size - side))
    return slice(start, min(size, start + side))


def _nearest(old: int, new: int) -> NDArray[np.int64]:
    """Return the old position under the centre of each new one."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
