"""From the scores of an image's cells to the clusters of its pixels.

The scores are brought to the image's own size before the best cluster is taken, a band of rows at a time, so that
memory does not follow the size of the image.

Shape suffixes: K clusters, h w cells, H W pixels.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from contextseg.colours import palette

CONFIDENCE_TEMPERATURE = 0.1
"""Divides the scores before the softmax whose largest value is the confidence: ours, as cosines lie close together."""
_BAND_VALUES = 2**21  # scores that exist at full size at one time: several threads may be here, and more is no faster


@dataclass(frozen=True)
class Prediction:
    """What is known of each pixel of an image.

    Attributes:
        clusters: (H, W) uint8, or uint16 for more than 256 clusters: the id of the pixel's cluster.
        confidence: (H, W) float32: the softmax of the scores at its largest, between 1 / K and 1. It tells
            pixels of an image apart; it is not calibrated.
    """

    clusters: NDArray[np.unsignedinteger[Any]]
    confidence: NDArray[np.float32]

    def _repr_png_(self) -> bytes:
        """Show the clusters in a notebook, in the colours of `palette`."""
        colours = palette(int(self.clusters.max()) + 1)  # those of more clusters begin with the same
        buffer = io.BytesIO()
        Image.fromarray(colours[self.clusters]).save(buffer, "PNG")
        return buffer.getvalue()


def best_cluster(scores_Khw: Tensor, size: tuple[int, int]) -> Prediction:
    """Bring scores to an image's size and take the best cluster of each pixel.

    Equal to ``F.interpolate(scores, size, mode="bilinear", align_corners=False)`` followed by argmax and softmax, but
    computed in bands of rows.

    Args:
        scores_Khw: float32.
        size: (H, W) in pixels.
    """
    clusters, confidence = np.empty(size, _dtype(scores_Khw)), np.empty(size, np.float32)
    for rows, at_pixels_KrW in _bands(scores_Khw, size):
        best_rW, clusters[rows] = largest(at_pixels_KrW)
        rest_KrW = at_pixels_KrW.sub_(best_rW).div_(CONFIDENCE_TEMPERATURE)
        # the softmax at its largest value, without the others
        confidence[rows] = rest_KrW.exp_().sum(0).reciprocal_().numpy()
    return Prediction(clusters, confidence)


def best_ids(scores_Khw: Tensor, size: tuple[int, int]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the clusters of `best_cluster` alone, in a fraction of its time: (H, W)."""
    clusters = np.empty(size, _dtype(scores_Khw))
    possible_k = _possible(scores_Khw)
    ids_k = possible_k.numpy().astype(clusters.dtype)
    for rows, at_pixels_krW in _bands(scores_Khw[possible_k], size):
        clusters[rows] = ids_k.take(largest(at_pixels_krW)[1])
    return clusters


def largest(scores_KHW: Tensor) -> tuple[Tensor, NDArray[np.unsignedinteger[Any]]]:
    """Return the largest score of each pixel, and the first cluster that has it, uint8 or uint16: (H, W) each.

    Whole planes are compared, one after the other: PyTorch's `max` with its indices takes several times as long.
    """
    best_HW = scores_KHW.amax(0)
    is_best_KHW = (scores_KHW.numpy() == best_HW.numpy()).view(np.uint8)
    from_last_K = np.arange(len(scores_KHW), dtype=_dtype(scores_KHW))[::-1, None, None]
    return best_HW, len(scores_KHW) - 1 - (is_best_KHW * from_last_K).max(0)


def _possible(scores_Khw: Tensor) -> Tensor:
    """Return the ids of the clusters that may be best at a pixel, (k,) int64: a few of all K.

    A pixel lies in a square of four cells, and its scores are a weighed mean of theirs. The largest is no less than
    the average of the scores of the clusters that are best at these four. So a cluster that is below this average at
    all four cells, and so in every square, is best nowhere.
    """
    best_hw = scores_Khw.max(0).indices
    height, width = best_hw.shape
    beyond_HW = best_hw[_with_edges(height)][:, _with_edges(width)]
    around_9hw = torch.stack([beyond_HW[y : y + height, x : x + width] for y in range(3) for x in range(3)])
    of_best_33hw = scores_Khw.gather(0, around_9hw).unflatten(0, (3, 3))
    sides_23hw = of_best_33hw[:2] + of_best_33hw[1:]
    squares_22hw = sides_23hw[:, :2] + sides_23hw[:, 1:]
    below_K = (scores_Khw - squares_22hw.amin((0, 1)) / 4).amax((1, 2)) < 0
    return torch.nonzero(~below_K)[:, 0]  # so that scores that are not numbers leave some


def _with_edges(length: int) -> Tensor:
    """Return the indices along one side with the first and the last twice."""
    return torch.arange(-1, length + 1).clamp(0, length - 1)


def _dtype(scores_Khw: Tensor) -> type[np.unsignedinteger[Any]]:
    return np.uint8 if len(scores_Khw) <= 256 else np.uint16


def _bands(scores_Khw: Tensor, size: tuple[int, int]) -> Iterator[tuple[slice, Tensor]]:
    """Yield bands of rows of an image, each with the scores of its pixels, (K, rows, W).

    Interpolation is linear in the scores, and as products of matrices it takes a third of the time.
    """
    n_clusters, *grid = scores_Khw.shape
    down_Hh, across_Ww = (_interpolation(new, old) for new, old in zip(size, grid, strict=True))
    band = max(1, _BAND_VALUES // (n_clusters * size[1]))
    for top in range(0, size[0], band):
        rows = slice(top, min(top + band, size[0]))
        sources_h = down_Hh[rows].any(0)
        yield rows, down_Hh[rows, sources_h] @ (scores_Khw[:, sources_h] @ across_Ww.T)


def _interpolation(new: int, old: int) -> Tensor:
    """Return the weights of old values in new ones, (new, old): bilinear, half-pixel centres."""
    weights_on: Tensor = F.interpolate(torch.eye(old)[None], new, mode="linear", align_corners=False)[0]
    return weights_on.T.contiguous()
