"""The number of classes: found where the points have one, by an index that scikit-learn computes too."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import adjusted_rand_score
from torch import Tensor

from contextseg.clustering.choosing import TOLERANCE, adjusted_rand, choose_n_classes
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
    choice = choose_n_classes(groups(n_groups, 0.08), at_most=12, n_pairs=2, seed=0)
    assert choice.chosen == n_groups
    assert choice.n_classes == list(range(2, 13))
    stability = dict(zip(choice.n_classes, choice.stability, strict=True))
    assert stability[n_groups] > 0.99
    assert max(stability[number] for number in range(n_groups + 1, 13)) < stability[n_groups] - TOLERANCE


def test_the_seed_decides_all() -> None:
    points = groups(4, 0.3)
    one, same, other = (choose_n_classes(points, at_most=6, n_pairs=1, seed=seed) for seed in (1, 1, 2))
    assert one == same
    assert one.stability != other.stability


def test_too_few_points() -> None:
    with pytest.raises(TrainingError, match="100 points are too few to choose among up to 12 classes, which takes 144"):
        choose_n_classes(groups(4, 0.1)[:100], at_most=12, n_pairs=1, seed=0)


def test_adjusted_rand_by_hand() -> None:
    # {0, 1, 2} {3} against {0, 1} {2, 3}: 1 pair in both, 3 and 2 pairs in each, 6 pairs in all
    assert adjusted_rand(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1])) == pytest.approx((1 - 3 * 2 / 6) / (2.5 - 1))
    assert adjusted_rand(np.array([0, 1, 1]), np.array([1, 0, 0])) == 1
    assert adjusted_rand(np.array([0, 0]), np.array([0, 0])) == 1


def test_adjusted_rand_is_scikit_learns(rng: np.random.Generator) -> None:
    for n_first, n_second in ((2, 5), (7, 3)):
        first, second = rng.integers(n_first, size=200), rng.integers(n_second, size=200)
        mixed = np.where(rng.random(200) < 0.6, first % n_second, second)
        assert adjusted_rand(first, mixed) == pytest.approx(adjusted_rand_score(first, mixed))
