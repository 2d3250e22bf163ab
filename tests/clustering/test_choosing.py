"""The number of classes: found where the points have one."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from contextseg.clustering.choosing import choose_n_classes
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
