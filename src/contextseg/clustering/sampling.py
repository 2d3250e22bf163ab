"""Which cells of the embeddings enter the clustering: as many of each image as memory allows."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from contextseg.randomness import keyed_rng


def points_per_image(max_points: int, n_images: int) -> int:
    """Return how many cells of each image fill `max_points`, at least 1."""
    return max(1, max_points // n_images)


def sample_cells(embedded_BDhw: Tensor, indices: Sequence[int], key: tuple[int, str, int], n: int) -> Tensor:
    """Draw `n` cells of each image, without repetition, or all where there are not more.

    Args:
        embedded_BDhw: embeddings of B images.
        indices: which images these are; with `key`, the key of the draws.
        key: seed, stream and epoch.
        n: cells per image.

    Returns:
        (B * min(n, h * w), D) float32.
    """
    seed, stream, epoch = key
    points_BND = embedded_BDhw.detach().flatten(2).movedim(1, 2)
    n_cells = points_BND.shape[1]
    if n >= n_cells:
        return points_BND.flatten(0, 1).float()
    drawn = [
        keyed_rng(seed, stream, epoch, index).choice(n_cells, n, replace=False, shuffle=False) for index in indices
    ]
    cells_Bn = torch.from_numpy(np.array(drawn, np.int64).reshape(-1, n)).to(points_BND.device)
    images_B1 = torch.arange(len(points_BND), device=points_BND.device)[:, None]
    return points_BND[images_B1, cells_Bn].flatten(0, 1).float()


def sample_points(points_ND: Tensor, n: int, seed: int) -> Tensor:
    """Return n of the points, drawn at random, or all where there are no more."""
    drawn = keyed_rng(seed, "sample").choice(len(points_ND), min(n, len(points_ND)), replace=False, shuffle=False)
    return points_ND[torch.from_numpy(drawn).to(points_ND.device)]
