"""From the scores of an image's cells to the clusters of its pixels.

The scores are brought to the image's own size before the best cluster is taken, part by part, so that memory does not
follow the size of the image.

Shape suffixes: K clusters, h w cells, H W pixels.
"""

import functools
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product
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
_BLOCK_PX = 512  # side of what is looked at together where not all clusters are
_PART_VALUES = 2**21  # scores that exist at full size at one time: several threads may be here, and more is no faster

_Block = tuple[slice, slice]
"""Rows and columns."""


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
    return Prediction(best_ids(scores_Khw, size), _confidence(scores_Khw, size))


def best_ids(scores_Khw: Tensor, size: tuple[int, int]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the clusters of `best_cluster` alone, in a fraction of its time: (H, W).

    Block by block: in one that few cells are stretched over hardly more than one cluster is possible.
    """
    clusters = np.empty(size, _dtype(scores_Khw))
    for block in product(_blocks(slice(0, size[0]), _BLOCK_PX), _blocks(slice(0, size[1]), _BLOCK_PX)):
        possible_k = _possible(scores_Khw[:, *_cells_around(block, size, scores_Khw.shape[1:])])
        if len(possible_k) == 1:
            clusters[block] = possible_k.item()
            continue
        for part, at_pixels_krc in _parts(scores_Khw[possible_k], size, block):
            clusters[part] = largest(at_pixels_krc, possible_k.numpy())
    return clusters


def _confidence(scores_Khw: Tensor, size: tuple[int, int]) -> NDArray[np.float32]:
    confidence = np.empty(size, np.float32)
    for part, at_pixels_Krc in _parts(
        scores_Khw / CONFIDENCE_TEMPERATURE, size, (slice(0, size[0]), slice(0, size[1]))
    ):
        # the softmax at its largest value, without the others
        below_Krc = at_pixels_Krc.sub_(at_pixels_Krc.amax(0))
        confidence[part] = below_Krc.exp_().sum(0).reciprocal_().numpy()
    return confidence


def largest(scores_KHW: Tensor, ids_K: NDArray[np.integer[Any]] | None = None) -> NDArray[np.unsignedinteger[Any]]:
    """Return the first cluster with the largest score of each pixel: (H, W), uint8 or uint16.

    Whole planes are compared, one after the other: PyTorch's `max` with its indices takes several times as long.

    Args:
        scores_KHW: float32.
        ids_K: of the clusters, ascending; by default from 0.
    """
    ids_K = np.arange(len(scores_KHW)) if ids_K is None else ids_K
    is_best_KHW = (scores_KHW.numpy() == scores_KHW.amax(0).numpy()).view(np.uint8)
    from_last_K = (ids_K[-1] - ids_K).astype(np.uint8 if ids_K[-1] < 256 else np.uint16)
    return np.asarray(from_last_K.dtype.type(ids_K[-1]) - (is_best_KHW * from_last_K[:, None, None]).max(0))


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


def _parts(scores_Khw: Tensor, size: tuple[int, int], block: _Block) -> Iterator[tuple[_Block, Tensor]]:
    """Yield parts of a block of an image, rows and columns, each with the scores of its pixels, (K, r, c).

    Interpolation is linear in the scores, and as products of matrices it takes a third of the time.
    """
    n_clusters, height, width = scores_Khw.shape
    for columns in _blocks(block[1], _PART_WIDTH):
        across_w, across_cw = _interpolation(columns.start, columns.stop, size[1], width)
        for rows in _blocks(block[0], max(1, _PART_VALUES // (n_clusters * len(across_cw)))):
            down_h, down_rh = _interpolation(rows.start, rows.stop, size[0], height)
            yield (rows, columns), down_rh @ (scores_Khw[:, down_h, across_w] @ across_cw.T)


def _cells_around(block: _Block, size: tuple[int, int], grid: Sequence[int]) -> _Block:
    """Return the rows and columns of the cells that the pixels of a block lie between."""
    rows, columns = (
        _interpolation(pixels.start, pixels.stop, n_pixels, n_cells)[0]
        for pixels, n_pixels, n_cells in zip(block, size, grid, strict=True)
    )
    return rows, columns


def _blocks(pixels: slice, longest: int) -> Iterator[slice]:
    starts = range(pixels.start, pixels.stop, longest)
    return (slice(start, min(start + longest, pixels.stop)) for start in starts)


@functools.lru_cache(maxsize=256)  # the images of a folder are of few sizes
def _interpolation(start: int, stop: int, n_pixels: int, n_cells: int) -> tuple[slice, Tensor]:
    """Return the cells that some pixels of one side lie between, and their weights in them, (pixels, cells).

    Bilinear, half-pixel centres: a weight falls from 1 at a cell's centre to 0 at its neighbours'.
    """
    positions = (torch.arange(start, stop, dtype=torch.float64) + 0.5) * (n_cells / n_pixels) - 0.5
    positions = positions.clamp(0, n_cells - 1)
    cells = slice(int(positions[0]), min(int(positions[-1]) + 2, n_cells))
    apart = (positions[:, None] - torch.arange(cells.start, cells.stop)).abs()
    return cells, (1 - apart).clamp(min=0).float()
