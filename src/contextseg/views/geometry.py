"""Geometric views as data: a box of whole cells of the feature grid, a size in cells, and flips.

Convention
    * Arrays are (..., H, W): rows first, row 0 at the top. Boxes and sizes are (height, width) in cells.
    * A *cell* is one position of the feature grid: `stride` x `stride` pixels of the image. The box on the image is
      exactly stride times the box on the features, so that no half cell can creep in between the two.
    * A view crops its box, resizes it to its size, then flips. Resizing is bilinear with half-pixel centres
      (``align_corners=False``), antialiased where it shrinks; labels take the nearest value. When the size equals the
      box nothing is resampled, and the view is exact.

The view geometry is PiCIE's (CVPR 2021): a square crop and a flip, on the image for one view and on the features for
the other. That it moves on whole cells is ours.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class GeometricView:
    """A crop with resize and flips, on a grid of cells.

    Attributes:
        grid: (height, width) of the whole, in cells.
        box: (top, left, height, width) of the crop, in cells of `grid`.
        size: (height, width) of the result, in cells.
        flip_x: mirror left and right, after the resize.
        flip_y: mirror top and bottom, after the resize.
    """

    grid: tuple[int, int]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    flip_x: bool = False
    flip_y: bool = False

    def __post_init__(self) -> None:
        """Check that the box lies in the grid.

        Raises:
            ValueError: the box leaves the grid, or a side is not positive.
        """
        top, left, height, width = self.box
        if top < 0 or left < 0 or min(height, width, *self.size) < 1:
            raise ValueError(f"box {self.box} and size {self.size} must have sides >= 1 and corners >= 0")
        if top + height > self.grid[0] or left + width > self.grid[1]:
            raise ValueError(f"box {self.box} leaves the grid of {self.grid[0]} x {self.grid[1]} cells")

    def apply(self, whole: Tensor, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
        """Return the view of an image, of features or of labels.

        Args:
            whole: (..., H, W), with H and W the same whole multiple m of `grid`: m = 1 for features, m = stride for
                images and labels. Floating point for "bilinear".
            mode: how values between positions are made; labels need "nearest".

        Returns:
            (..., m * size[0], m * size[1]), of the dtype of `whole`.

        Raises:
            ValueError: H and W are not the same multiple of `grid`.
        """
        scale = self._scale(whole, self.grid, "grid's")
        top, left, height, width = (scale * side for side in self.box)
        crop = whole[..., top : top + height, left : left + width]
        return self._flip(_resize(crop, (scale * self.size[0], scale * self.size[1]), mode))

    def inverse(self, view: Tensor, fill: float = 0.0, mode: Literal["bilinear", "nearest"] = "bilinear") -> Tensor:
        """Put a view back where it was cut from.

        Args:
            view: (..., m * size[0], m * size[1]), as `apply` returns it.
            fill: the value of all positions outside the box.
            mode: as for `apply`.

        Returns:
            (..., m * grid[0], m * grid[1]); equal to what was cut where nothing was resampled.

        Raises:
            ValueError: its sides are not the same multiple of `size`.
        """
        scale = self._scale(view, self.size, "view's")
        top, left, height, width = (scale * side for side in self.box)
        whole = view.new_full((*view.shape[:-2], scale * self.grid[0], scale * self.grid[1]), fill)
        whole[..., top : top + height, left : left + width] = _resize(self._flip(view), (height, width), mode)
        return whole

    def then(self, inner: "GeometricView") -> "GeometricView":
        """Return the single view that equals this one followed by `inner`.

        Raises:
            ValueError: `inner` is not a view of this one's result, or this one resizes (the joint box would not be
                whole cells in general).
        """
        if inner.grid != self.size or self.box[2:] != self.size:
            raise ValueError(f"cannot join a view of size {self.size} (box {self.box}) with one on a grid {inner.grid}")
        top, left, height, width = inner.box
        if self.flip_y:
            top = self.size[0] - top - height
        if self.flip_x:
            left = self.size[1] - left - width
        return GeometricView(
            grid=self.grid,
            box=(self.box[0] + top, self.box[1] + left, height, width),
            size=inner.size,
            flip_x=self.flip_x != inner.flip_x,
            flip_y=self.flip_y != inner.flip_y,
        )

    def coordinates(self) -> Tensor:
        """Return where each cell of the view lies in the whole.

        Returns:
            (2, size[0], size[1]) float32: y and x of the cell's centre, in 0-1 over the whole grid.
        """
        axes = []
        for start, length, count, whole, flip in zip(
            self.box[:2], self.box[2:], self.size, self.grid, (self.flip_y, self.flip_x), strict=True
        ):
            axis = (start + (torch.arange(count) + 0.5) * length / count) / whole
            axes.append(axis.flip(0) if flip else axis)
        return torch.stack(torch.meshgrid(*axes, indexing="ij"))

    def _scale(self, array: Tensor, cells: tuple[int, int], whose: str) -> int:
        height, width = array.shape[-2:]
        scale = height // cells[0]
        if scale < 1 or (height, width) != (scale * cells[0], scale * cells[1]):
            raise ValueError(
                f"got {height} x {width}, expected one whole multiple of the {whose} {cells[0]} x {cells[1]} cells"
            )
        return scale

    def _flip(self, view: Tensor) -> Tensor:
        axes = [axis for axis, flip in ((-2, self.flip_y), (-1, self.flip_x)) if flip]
        return view.flip(axes) if axes else view


def whole_coordinates(height: int, width: int) -> Tensor:
    """Return where the cells of an uncropped grid lie, (2, height, width) float32: y and x in 0-1."""
    return GeometricView((height, width), (0, 0, height, width), (height, width)).coordinates()


def apply_views(views: Sequence[GeometricView], whole_BCHW: Tensor) -> Tensor:
    """Apply one view to each element of a batch, in the batch's memory format; all views have the same size."""
    return torch.cat([view.apply(whole_1CHW) for view, whole_1CHW in zip(views, whole_BCHW.split(1), strict=True)])


def draw_frame(
    rng: np.random.Generator, grid: tuple[int, int], side: int, where: Literal["random", "centre"]
) -> GeometricView:
    """Draw the square of `side` cells that stands for the image in one epoch, not resized."""
    rooms = (grid[0] - side, grid[1] - side)
    corner = [room // 2 if where == "centre" else int(rng.integers(room + 1)) for room in rooms]
    return GeometricView(grid, (corner[0], corner[1], side, side), (side, side))


def draw_crop(rng: np.random.Generator, side: int, min_scale: float, flip_p: float) -> GeometricView:
    """Draw PiCIE's geometric view of a square: a square crop with side U(min_scale, 1), resized back, and a flip.

    Args:
        rng: the generator of this draw.
        side: of the square, in cells.
        min_scale: smallest side of the crop, as a fraction of the square's.
        flip_p: probability of a horizontal flip.
    """
    length = max(1, round(side * rng.uniform(min_scale, 1.0)))
    top, left = (int(rng.integers(side - length + 1)) for _ in range(2))
    return GeometricView((side, side), (top, left, length, length), (side, side), flip_x=bool(rng.random() < flip_p))


def _resize(view: Tensor, size: tuple[int, int], mode: Literal["bilinear", "nearest"]) -> Tensor:
    if tuple(view.shape[-2:]) == size:
        return view
    if mode == "nearest":
        rows, columns = (_nearest(old, new, view.device) for old, new in zip(view.shape[-2:], size, strict=True))
        return view[..., rows, :][..., columns]
    if view.ndim != 4:  # a batch keeps its memory format, which a reshape would lose
        return _resize(view.reshape(1, -1, *view.shape[-2:]), size, mode).reshape(*view.shape[:-2], *size)
    if size[1] == 1 < size[0]:  # PyTorch (2.14 at least) shrinks to one column with the weights of its first row
        return _resize(view.mT, (1, size[0]), mode).mT
    shrinks = size[0] < view.shape[-2] or size[1] < view.shape[-1]
    return F.interpolate(view, size=size, mode="bilinear", align_corners=False, antialias=shrinks)


def _nearest(old: int, new: int, device: torch.device) -> Tensor:
    """Index of the old position whose centre is nearest to each new centre; F.interpolate refuses integer labels."""
    return ((torch.arange(new, device=device) * 2 + 1) * old).div(2 * new, rounding_mode="floor")
