"""From the scores of an image's cells to the clusters of its pixels.

The scores are brought to the image's own size before the best cluster is taken, part by part, so that memory does not
follow the size of the image.

Shape suffixes: K clusters, h w cells, H W pixels.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from contextseg.colours import palette

CONFIDENCE_TEMPERATURE = 0.1
"""Divides the scores before the softmax whose largest value is the confidence: ours, as cosines lie close together."""
_PART_WIDTH = 1024  # pixels; wider images are cut
_PART_VALUES = 2**21  # scores that exist at full size at one time: several threads may be here, and more is no faster


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
    computed part by part.

    Args:
        scores_Khw: float32.
        size: (H, W) in pixels.
    """
    clusters, confidence = np.empty(size, _dtype(scores_Khw)), np.empty(size, np.float32)
    for part, at_pixels_Krc in _parts(scores_Khw, size):
        best_rc, clusters[part] = largest(at_pixels_Krc)
        rest_Krc = at_pixels_Krc.sub_(best_rc).div_(CONFIDENCE_TEMPERATURE)
        # the softmax at its largest value, without the others
        confidence[part] = rest_Krc.exp_().sum(0).reciprocal_().numpy()
    return Prediction(clusters, confidence)


def best_ids(scores_Khw: Tensor, size: tuple[int, int]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the clusters of `best_cluster` alone, in a fraction of its time: (H, W)."""
    clusters = np.empty(size, _dtype(scores_Khw))
    possible_k = _possible(scores_Khw)
    ids_k = possible_k.numpy().astype(clusters.dtype)
    for part, at_pixels_krc in _parts(scores_Khw[possible_k], size):
        clusters[part] = ids_k.take(largest(at_pixels_krc)[1])
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


def _parts(scores_Khw: Tensor, size: tuple[int, int]) -> Iterator[tuple[tuple[slice, slice], Tensor]]:
    """Yield parts of an image, rows and columns, each with the scores of its pixels, (K, r, c).

    Interpolation is linear in the scores, and as products of matrices it takes a third of the time.
    """
    n_clusters, height, width = scores_Khw.shape
    for columns in _blocks(size[1], _PART_WIDTH):
        across_w, across_cw = _interpolation(columns, size[1], width)
        for rows in _blocks(size[0], max(1, _PART_VALUES // (n_clusters * len(across_cw)))):
            down_h, down_rh = _interpolation(rows, size[0], height)
            yield (rows, columns), down_rh @ (scores_Khw[:, down_h, across_w] @ across_cw.T)


def _blocks(length: int, longest: int) -> Iterator[slice]:
    return (slice(start, min(start + longest, length)) for start in range(0, length, longest))


def _interpolation(pixels: slice, n_pixels: int, n_cells: int) -> tuple[slice, Tensor]:
    """Return the cells that some pixels of one side lie between, and their weights in them, (pixels, cells).

    Bilinear, half-pixel centres: a weight falls from 1 at a cell's centre to 0 at its neighbours'.
    """
    positions = (torch.arange(pixels.start, pixels.stop, dtype=torch.float64) + 0.5) * (n_cells / n_pixels) - 0.5
    positions = positions.clamp(0, n_cells - 1)
    cells = slice(int(positions[0]), min(int(positions[-1]) + 2, n_cells))
    apart = (positions[:, None] - torch.arange(cells.start, cells.stop)).abs()
    return cells, (1 - apart).clamp(min=0).float()
