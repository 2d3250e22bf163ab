"""Tiles of what is too large to embed at once: where they lie, how they fade, and which stand for all.

Shape suffixes: h w cells of a tile.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from contextseg.conventions import SIZE_MULTIPLE_PX, STRIDE_PX

_SOME_TILES = 16  # that stand for the whole image
_SOME_CELLS = 2**16  # of theirs, at most about so many

Span = tuple[int, int]
"""Start and end of a tile along one side, in pixels."""
StandIn = tuple[tuple[int, int, int, int], Tensor]
"""Top, bottom, left and right of a tile, in pixels; (h, w) bool, which of its cells stand for all."""


@dataclass(frozen=True)
class Tiling:
    """Tiles of one size that overlap.

    Args:
        tile_px: longest side of a tile; a multiple of 32.
        overlap_px: pixels that neighbouring tiles share. A multiple of 32, at most half of `tile_px`.

    Raises:
        ValueError: they are not such multiples.
    """

    tile_px: int
    overlap_px: int

    def __post_init__(self) -> None:
        tile_px, overlap_px = self.tile_px, self.overlap_px
        if tile_px % SIZE_MULTIPLE_PX or overlap_px % SIZE_MULTIPLE_PX or not 0 <= 2 * overlap_px <= tile_px:
            raise ValueError(
                f"tile_px={tile_px} and overlap_px={overlap_px} must be multiples of {SIZE_MULTIPLE_PX}, "
                "the overlap at most half of the tile, such as 1024 and 128"
            )

    def is_needed(self, size: Sequence[int]) -> bool:
        """Return whether an image of this size, (H, W), is longer than a tile."""
        return max(size) > self.tile_px

    def spans(self, length_px: int) -> list[Span]:
        """Return the (start, end) of tiles along one side; the last one ends with the side."""
        starts = range(0, length_px - self.tile_px, self.tile_px - self.overlap_px)
        return [*((start, start + self.tile_px) for start in starts), (max(0, length_px - self.tile_px), length_px)]

    def weights(self, height_px: int, width_px: int) -> Tensor:
        """Return the weights of a tile's cells, (h, w): they rise over the overlap at each side, and are never 0.

        With the third power, since the border that the network was padded at is felt far into a tile.
        """
        return self._ramp(height_px)[:, None] * self._ramp(width_px)

    def stand_ins(self, rows: Sequence[Span], columns: Sequence[Span], size: tuple[int, int]) -> list[StandIn]:
        """Return a few tiles that are spread over an image, and which of their cells stand for all.

        Args:
            rows: (start, end) of the tiles from the top down, in pixels.
            columns: likewise from left to right.
            size: (H, W) of the image.
        """
        rows = _spread(rows, max(math.isqrt(_SOME_TILES), _SOME_TILES // len(columns)))
        columns = _spread(columns, _SOME_TILES // len(rows))
        n_cells = sum((bottom - top) * (right - left) for top, bottom in rows for left, right in columns) / STRIDE_PX**2
        step = math.ceil(math.sqrt(n_cells / _SOME_CELLS))
        return [
            ((*row, *column), self._core(*row, size[0], step)[:, None] & self._core(*column, size[1], step))
            for row in rows
            for column in columns
        ]

    def _ramp(self, length_px: int) -> Tensor:
        cells, fade = length_px // STRIDE_PX, max(1, self.overlap_px // STRIDE_PX)
        rise = ((torch.arange(cells) + 1).clamp(max=fade) / fade) ** 3
        return torch.minimum(rise, rise.flip(0))

    def _core(self, start_px: int, end_px: int, length_px: int, step: int) -> Tensor:
        """Pick every so many of a tile's cells along one side, without half of the overlap with each neighbour."""
        shared = self.overlap_px // 2
        first = shared if start_px else 0
        last = end_px - start_px - (shared if end_px < length_px else 0)
        picked = torch.zeros((end_px - start_px) // STRIDE_PX, dtype=torch.bool)
        picked[first // STRIDE_PX : last // STRIDE_PX : step] = True
        return picked


def _spread(tiles: Sequence[Span], at_most: int) -> list[Span]:
    """Return a few of the tiles, evenly spread."""
    n = min(len(tiles), at_most)
    return [tiles[(2 * i + 1) * len(tiles) // (2 * n)] for i in range(n)]
