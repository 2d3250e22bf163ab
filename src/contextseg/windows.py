"""Images that are too large to hold: read, embedded and written by windows, with no seams.

Nothing is resized to ``data.image_px`` here: the network sees the image at a scale that the caller names. Tiles lie on
one grid over the whole image and overlap; where they do, their scores fade into each other. Tiles of one row are added
up; cells that no later tile touches are final, and the pixels between them are given out. So memory does not follow
the height of the image, nor, since a wide one is cut into strips, its width. Strips do not show: each adds up all tiles
that touch it, also those of its neighbours.

Shape suffixes: K clusters, h w cells, H W pixels of the image.
"""

import math
from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from contextseg.conventions import SIZE_MULTIPLE_PX, STRIDE_PX
from contextseg.errors import SettingsError
from contextseg.pixel_clusters import largest
from contextseg.predictor import Predictor, SampledTile, Whole
from contextseg.views.geometry import GeometricView

_SCALES = (0.1, 10.0)  # below this the pixels of one tile would fill the memory
_BLOCK_PX = 512  # strips are cut at multiples of this, so that the blocks of a tiled file are written once
_STRIP_PX = 8192  # widest strip, in pixels of the network
_BAND_VALUES = 2**21  # scores that exist at full size at one time
_KERNEL_PX = 2  # reach of the bicubic kernel, in pixels of the coarser of the two grids

Read = Callable[[slice, slice], NDArray[np.uint8]]
"""Rows and columns of an image to its pixels, (H, W, 3) uint8 RGB."""
IsValid = Callable[[slice, slice], NDArray[np.bool_]]
"""Rows and columns of an image to which of its pixels have data, (H, W) bool."""
Window = tuple[slice, slice, NDArray[np.integer]]
"""Rows, columns, and the (H, W) clusters of their pixels."""


def predict_windows(
    predictor: Predictor, read: Read, size: tuple[int, int], scale: float = 1.0, is_valid: IsValid | None = None
) -> Iterator[Window]:
    """Predict an image of any size by windows.

    Args:
        predictor: of a finished run; its tiles are used.
        read: gives the pixels of a part of the image.
        size: (H, W) of the image.
        scale: pixels of the network per pixel of the image, in 0.1..10.
        is_valid: where the image has data; by default everywhere. What lies elsewhere is predicted as well, but has no
            say in the image's own centres.

    Yields:
        Windows that cover the image once, from the top down, strip after strip.
    """
    width = max(1, int(_STRIP_PX / scale) // _BLOCK_PX) * _BLOCK_PX
    whole = predictor.whole(_Strip(predictor, read, size, scale, slice(0, size[1])).some_tiles(is_valid))
    for left in range(0, size[1], width):
        yield from _Strip(predictor, read, size, scale, slice(left, min(left + width, size[1]))).windows(whole)


def check_scale(scale: float) -> None:
    """Refuse a scale that `predict_windows` cannot work at.

    Raises:
        SettingsError: it is out of range.
    """
    if not _SCALES[0] <= scale <= _SCALES[1]:
        raise SettingsError(f"scale: got {scale:g}; it must lie in {_SCALES[0]:g}..{_SCALES[1]:g}, such as 1")


class _Strip:
    """Some columns of the image, from its top to its bottom."""

    def __init__(self, predictor: Predictor, read: Read, size: tuple[int, int], scale: float, columns: slice) -> None:
        self.predictor, self.read, self.size, self.scale, self.columns = predictor, read, size, scale, columns
        self.padded = tuple(math.ceil(side * scale / SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX for side in size)
        self.y_H = self._positions(slice(0, size[0]), axis=0)
        self.x_W = self._positions(columns, axis=1)
        self.cells = slice(int(self.x_W[0]), int(_upper(self.x_W[-1:], self._n_cells(1))) + 1)
        self.tiles = [
            (left, right)
            for left, right in predictor.tiling.spans(self.padded[1])
            if left < self.cells.stop * STRIDE_PX and right > self.cells.start * STRIDE_PX
        ]

    def some_tiles(self, is_valid: IsValid | None) -> list[SampledTile]:
        """Return a few tiles that stand for the strip: of those without data none, unless there are no others."""
        rows = self.predictor.tiling.spans(self.padded[0])
        found = self.predictor.tiling.stand_ins(rows, self.tiles, (self.padded[0], self.padded[1]))
        if is_valid is not None:
            found = [(box, stand_hw & self._with_data(box, is_valid)) for box, stand_hw in found]
            found = [(box, stand_hw) for box, stand_hw in found if stand_hw.any()] or found
        return [(self._tile(box), self._coordinates(box), stand_hw) for box, stand_hw in found]

    def _with_data(self, box: tuple[int, int, int, int], is_valid: IsValid) -> Tensor:
        """Return which cells of a tile have data at their centre, (h, w) bool."""
        centres = [
            (((np.arange(start, stop, STRIDE_PX) + STRIDE_PX / 2) / self.scale).astype(int)).clip(max=side - 1)
            for start, stop, side in zip(box[::2], box[1::2], self.size, strict=True)
        ]
        rows, columns = (slice(int(at[0]), int(at[-1]) + 1) for at in centres)
        valid_HW = is_valid(rows, columns)
        return torch.from_numpy(valid_HW[np.ix_(centres[0] - rows.start, centres[1] - columns.start)])

    def windows(self, whole: Whole) -> Iterator[Window]:
        """Yield windows of whole rows of the strip."""
        n_rows, n_columns = self._n_cells(0), self.cells.stop - self.cells.start
        total_Khw = torch.zeros(len(self.predictor.centers), 0, n_columns)
        weight_hw = torch.zeros(0, n_columns)
        first = done = 0  # the cell that the sums begin with, the pixel that is next
        needed_H = _upper(self.y_H, n_rows)
        tiles = self.predictor.tiling.spans(self.padded[0])
        for (top, bottom), (next_top, _) in pairwise([*tiles, (self.padded[0], 0)]):
            grow = (0, 0, 0, bottom // STRIDE_PX - first - len(weight_hw))
            total_Khw, weight_hw = (F.pad(sums, grow) for sums in (total_Khw, weight_hw))
            rows = slice(top // STRIDE_PX - first, None)
            for left, right in self.tiles:
                self._add_tile(total_Khw[:, rows], weight_hw[rows], (top, bottom, left, right), whole)
            final = min(next_top // STRIDE_PX, n_rows)
            ready = int(torch.searchsorted(needed_H, final))
            yield from self._pixels(total_Khw, weight_hw, first, slice(done, ready))
            if ready < self.size[0]:
                keep = min(int(self.y_H[ready]), final)  # pixels may lie several cells apart
                total_Khw, weight_hw = total_Khw[:, keep - first :], weight_hw[keep - first :]
                first, done = keep, ready

    def _add_tile(self, total_Khw: Tensor, weight_hw: Tensor, box: tuple[int, int, int, int], whole: Whole) -> None:
        """Add the scores of one tile, in the middle the most, to the sums of its rows."""
        top, bottom, left, right = box
        scored_Khw = self.predictor.score_tile(self._tile(box)[None], self._coordinates(box), whole=whole)[0].cpu()
        fading_hw = self.predictor.tiling.weights(bottom - top, right - left)
        first = left // STRIDE_PX
        start, stop = max(first, self.cells.start), min(right // STRIDE_PX, self.cells.stop)
        own, shared = slice(start - first, stop - first), slice(start - self.cells.start, stop - self.cells.start)
        total_Khw[:, :, shared] += (scored_Khw * fading_hw)[:, :, own]
        weight_hw[:, shared] += fading_hw[:, own]

    def _coordinates(self, box: tuple[int, int, int, int]) -> Tensor:
        """Return y and x of the cells of a tile in the whole image, (2, h, w)."""
        top, bottom, left, right = (side // STRIDE_PX for side in box)
        grid = (self.padded[0] // STRIDE_PX, self.padded[1] // STRIDE_PX)
        size = (bottom - top, right - left)
        return GeometricView(grid, (top, left, *size), size).coordinates()

    def _tile(self, box: tuple[int, int, int, int]) -> Tensor:
        """Read a tile at the network's scale, (3, h, w) uint8; what lies beyond the image mirrors it."""
        margin = math.ceil(_KERNEL_PX * max(1, 1 / self.scale))
        begins = [start / self.scale for start in (box[0], box[2])]
        ends = [stop / self.scale for stop in (box[1], box[3])]
        first = [max(0, math.floor(begin) - margin) for begin in begins]
        last = [min(side, math.ceil(end) + margin) for side, end in zip(self.size, ends, strict=True)]
        beyond = [max(0, math.ceil(end) - stop) for end, stop in zip(ends, last, strict=True)]
        pixels = self.read(slice(first[0], last[0]), slice(first[1], last[1]))
        pixels = np.pad(pixels, ((0, beyond[0]), (0, beyond[1]), (0, 0)), mode="symmetric")
        area = (begins[1] - first[1], begins[0] - first[0], ends[1] - first[1], ends[0] - first[0])
        size = (box[3] - box[2], box[1] - box[0])
        resized = Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC, box=area)
        return torch.from_numpy(np.array(resized)).movedim(-1, 0)

    def _pixels(self, total_Khw: Tensor, weight_hw: Tensor, first: int, rows: slice) -> Iterator[Window]:
        """Yield the best clusters of some rows of pixels; the sums begin with row `first` of the cells."""
        n_rows, n_columns = self._n_cells(0), self._n_cells(1)
        band = max(1, _BAND_VALUES // (len(total_Khw) * len(self.x_W)))
        for top in range(rows.start, rows.stop, band):
            some = slice(top, min(top + band, rows.stop))
            y_H = self.y_H[some]
            start, stop = int(y_H[0]), int(_upper(y_H[-1:], n_rows)) + 1
            scores_Khw = total_Khw[:, start - first : stop - first] / weight_hw[start - first : stop - first]
            at_rows = _between(scores_Khw, 1, y_H, n_rows, start)
            at_pixels = _between(at_rows, 2, self.x_W, n_columns, self.cells.start)
            yield some, self.columns, largest(at_pixels)

    def _n_cells(self, axis: int) -> int:
        """Return how many cells hold a part of the image."""
        return math.ceil(self.size[axis] * self.scale / STRIDE_PX)

    def _positions(self, pixels: slice, axis: int) -> Tensor:
        """Return where the centres of pixels lie on the grid of cells: half-pixel centres, cell 0 at 0."""
        centres = torch.arange(pixels.start, pixels.stop, dtype=torch.float64) + 0.5
        return (centres * (self.scale / STRIDE_PX) - 0.5).clamp(0, self._n_cells(axis) - 1)


def _upper(positions: Tensor, n_cells: int) -> Tensor:
    """Return the second of the two cells that each position lies between."""
    return (positions.long() + 1).clamp(max=n_cells - 1)


def _between(cells: Tensor, axis: int, positions: Tensor, n_cells: int, first: int) -> Tensor:
    """Return the values between cells, along one axis: bilinear; the cells begin with `first` of `n_cells`."""
    lower = positions.long()
    weight = (positions - lower).float().view([-1 if dim == axis else 1 for dim in range(cells.ndim)])
    return torch.lerp(
        cells.index_select(axis, lower - first), cells.index_select(axis, _upper(positions, n_cells) - first), weight
    )
