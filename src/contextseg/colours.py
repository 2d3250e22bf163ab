"""Colours for classes, which stay apart for every eye.

Shape suffixes: N colours; V ways of seeing.
"""

import numpy as np
import numpy.typing as npt

from contextseg.conventions import IGNORE
from contextseg.errors import DataError

_MAX_COLOURS = 4096

# Sources of the constants: B. Ottosson, "A perceptual color space for image processing" (2020), for OKLab
# from linear sRGB; Machado, Oliveira and Fernandes (IEEE TVCG 2009), severity 1.0, for the two common kinds
# of colour blindness, which act on linear sRGB.
_LMS_FROM_RGB = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_LAB_FROM_LMS = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
_WAYS_OF_SEEING = np.array(
    [
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    ]
)


def palette(n: int) -> npt.NDArray[np.uint8]:
    """Return n colours that stay apart, also for colour-blind eyes; the same ones on every call.

    Each colour is the one farthest from all before it (and from black and white), where the distance of two
    colours is the smallest of their OKLab distances in normal, protan and deutan vision. So the first colours
    differ most, and a palette of m < n colours is the start of the one of n. Near-greys and very dark or
    light colours are left out, because they vanish in an overlay.

    Args:
        n: number of colours, 1..4096.

    Returns:
        (n, 3) uint8 RGB. Row 255, if there is one, is black: 255 means "ignored" in an 8-bit mask.

    Raises:
        DataError: n is out of range.

    >>> palette(3).tolist()
    [[105, 0, 225], [135, 150, 0], [165, 165, 255]]
    """
    if not 1 <= n <= _MAX_COLOURS:
        raise DataError(f"a palette has 1..{_MAX_COLOURS} colours, such as 27; got {n}")
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    rgb_N3 = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab_VN3 = _oklab(rgb_N3)
    chroma_N = np.hypot(lab_VN3[0, :, 1], lab_VN3[0, :, 2])
    usable_N = (lab_VN3[0, :, 0] >= 0.4) & (lab_VN3[0, :, 0] <= 0.9) & (chroma_N >= 0.08)
    rgb_N3, lab_VN3 = rgb_N3[usable_N], lab_VN3[:, usable_N]

    black, white = _oklab(np.array([[0, 0, 0], [255, 255, 255]], dtype=np.uint8)).transpose(1, 0, 2)
    nearest_N = np.minimum(_distance(lab_VN3, black), _distance(lab_VN3, white))
    chosen = []
    for _ in range(n):
        farthest = int(nearest_N.argmax())
        chosen.append(farthest)
        nearest_N = np.minimum(nearest_N, _distance(lab_VN3, lab_VN3[:, farthest]))
    colours = rgb_N3[chosen]
    colours[IGNORE : IGNORE + 1] = 0
    return colours


def _oklab(rgb_N3: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """Return (V, N, 3) OKLab coordinates of sRGB colours in normal, protan and deutan vision."""
    srgb = rgb_N3 / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen_VN3 = np.clip(np.einsum("vij,nj->vni", _WAYS_OF_SEEING, linear), 0, 1)
    return np.asarray(np.cbrt(seen_VN3 @ _LMS_FROM_RGB.T) @ _LAB_FROM_LMS.T)


def _distance(lab_VN3: npt.NDArray[np.float64], one_V3: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return (N,) OKLab distances to one colour, the smallest over the ways of seeing."""
    # Rounded, so that the last bits of another platform's cube root cannot choose another colour.
    return np.asarray(np.linalg.norm(lab_VN3 - one_V3[:, None], axis=-1).min(axis=0).round(9))
