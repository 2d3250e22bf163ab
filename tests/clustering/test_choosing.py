"""The number of classes: found where the points have one, by an agreement that brute force computes too."""

from itertools import permutations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from contextseg.clustering.choosing import agreement, choose_n_classes
from contextseg.errors import TrainingError


def groups(n_groups: int, spread: float, *, n_points: int = 1200, dim: int = 16, seed: int = 0) -> Tensor:
    """Unit vectors around directions at random; group i is i + 1 times as large as group 0."""
    generator = torch.Generator().manual_seed(seed)
    centers = F.normalize(torch.randn(n_groups, dim, generator=generator), dim=1)
    sizes = torch.arange(1, n_groups + 1) * n_points // (n_groups * (n_groups + 1) // 2)
    own = centers.repeat_interleave(sizes, dim=0)
    return F.normalize(own + spread * torch.randn(own.shape, generator=generator), dim=1)


@pytest.mark.parametrize("n_groups", [3, 5, 8])
def test_the_number_of_groups_is_found(n_groups: int) -> None:
    choice = choose_n_classes(groups(n_groups, 0.08), at_most=12, seed=0)
    assert choice.chosen == n_groups
    assert choice.n_classes == [2, 3, 4, 5, 6, 7, 8, 9, 10, 12]
    stability = dict(zip(choice.n_classes, choice.stability, strict=True))
    assert stability[n_groups] > 0.99
    assert stability[12] < 0.8


def test_the_seed_decides_all() -> None:
    points = groups(4, 0.3)
    one, same, other = (choose_n_classes(points, at_most=6, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.stability != other.stability


def test_too_few_points() -> None:
    with pytest.raises(TrainingError, match="100 points are too few to choose among up to 12 classes, which takes 144"):
        choose_n_classes(groups(4, 0.1)[:100], at_most=12, seed=0)


def test_just_enough_points_and_how_far_it_is() -> None:
    told: list[tuple[int, int]] = []
    points = groups(2, 0.1)[:36]
    choice = choose_n_classes(points, at_most=3, seed=0, on_progress=lambda *done: told.append(done))
    assert choice.n_classes == [2, 3]
    assert told == [(1, 2), (2, 2)]
    with pytest.raises(TrainingError, match="35 points are too few"):
        choose_n_classes(points[:35], at_most=3, seed=0)


def test_agreement_by_hand() -> None:
    # {0, 1, 2} {3, 4} against {3} {0, 1, 2, 4}: 3 of 4 points and 1 of 2
    assert agreement(np.array([0, 0, 0, 1, 1]), np.array([1, 1, 1, 0, 1]), 2) == (3 / 4 + 1 / 2) / 2
    assert agreement(np.array([0, 0, 1]), np.array([1, 1, 0]), 2) == 1
    assert agreement(np.array([0, 0, 1]), np.array([1, 1, 0]), 3) == pytest.approx(2 / 3)  # a class without a point


def test_agreement_is_the_best_of_all_matchings(rng: np.random.Generator) -> None:
    first, second = rng.integers(4, size=60), rng.integers(4, size=60)
    iou = [[(a & b).sum() / (a | b).sum() for b in one_hot(second, 4)] for a in one_hot(first, 4)]
    best = max(np.mean([iou[a][b] for a, b in enumerate(order)]) for order in permutations(range(4)))
    assert agreement(first, second, 4) == pytest.approx(best)


def one_hot(labels: NDArray[np.int64], n_classes: int) -> list[NDArray[np.bool_]]:
    return [labels == c for c in range(n_classes)]
