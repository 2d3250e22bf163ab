"""Holistic labels: what the places of an image are, seen in pyramid views and grouped across all images.

Published (abstract): "holistic semantics on pyramid views". **Our reconstruction**: a level of the pyramid shows the
image at another size, so that the window that a deep feature sees is a larger or a smaller region of the scene. The
holistic vector of a place joins what a teacher says of it on all levels; k-means over the places of all images gives
each its holistic label.

Shape legend: B images, D dimensions, h w cells, g places per side, n images of the run.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from contextseg.conventions import SIZE_MULTIPLE_PX

Teacher = Callable[[Tensor], Tensor]


def holistic_vectors(teacher: Teacher, image_B3HW: Tensor, scales: Sequence[float], grid: int) -> Tensor:
    """Return the holistic vector of each of grid x grid places that are spread over the whole image.

    Args:
        teacher: image, RGB in 0-1, to (B, D, h, w) features.
        image_B3HW: RGB in 0-1.
        scales: size of the image on each level of the pyramid, as a factor; sides are whole multiples of 32 pixels.
        grid: g.

    Returns:
        (B, levels * D, g, g) float32 of unit length.
    """
    levels = []
    for scale in scales:
        features_BDhw = F.normalize(teacher(_resized(image_B3HW, scale)).float(), dim=1)
        levels.append(at_places(features_BDhw, grid))
    return F.normalize(torch.cat(levels, dim=1), dim=1)


def at_places(map_BChw: Tensor, grid: int) -> Tensor:
    """Return the mean of a map around each of grid x grid places that are spread over it, (B, C, g, g)."""
    return F.interpolate(map_BChw, (grid, grid), mode="bilinear", antialias=True)


def at_cells(places_ngg: Tensor, indices: Sequence[int], coordinates_B2hw: Tensor) -> Tensor:
    """Return what is kept of the place that each cell lies in, (B, h, w).

    Args:
        places_ngg: of all images, such as their holistic labels.
        indices: which images the cells are of.
        coordinates_B2hw: y and x of the cells in the uncropped image, in 0-1.
    """
    grid = places_ngg.shape[-1]
    y, x = (coordinates_B2hw * grid).long().clamp(0, grid - 1).unbind(1)
    image = torch.as_tensor(indices, device=places_ngg.device)[:, None, None]
    return places_ngg[image, y, x]


def _resized(image_B3HW: Tensor, scale: float) -> Tensor:
    size = [max(1, round(side * scale / SIZE_MULTIPLE_PX)) * SIZE_MULTIPLE_PX for side in image_B3HW.shape[-2:]]
    if size == list(image_B3HW.shape[-2:]):
        return image_B3HW
    return F.interpolate(image_B3HW, size, mode="bicubic", antialias=True).clamp(0, 1)
