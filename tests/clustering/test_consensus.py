"""Final classes by merging and vote."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from contextseg.clustering.consensus import consensus_centers, merge_clusters, vote
from contextseg.errors import TrainingError


def on_circle(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_near_centers_are_merged_by_their_average_distance() -> None:
    # 0 and 10 degrees are nearest, then 90 and 110; 200 stays alone
    classes = merge_clusters(on_circle(0, 90, 10, 200, 110), 3)
    assert classes.tolist() == [0, 1, 0, 2, 1]


def test_as_many_clusters_as_classes_are_left_as_they_are() -> None:
    assert merge_clusters(on_circle(0, 1, 2), 3).tolist() == [0, 1, 2]


def test_fewer_clusters_than_classes() -> None:
    with pytest.raises(ValueError, match="2 clusters cannot be merged into 3"):
        merge_clusters(on_circle(0, 90), 3)


def test_votes_are_counted_after_matching() -> None:
    # the second partition is the first with its classes renamed; the third differs in one point
    first = torch.tensor([0, 0, 0, 1, 1, 2, 2])
    second = torch.tensor([2, 2, 2, 0, 0, 1, 1])
    third = torch.tensor([0, 0, 1, 1, 1, 2, 2])
    assert vote([third, first, second], 3).tolist() == first.tolist()


def test_a_class_without_votes_keeps_its_points() -> None:
    # with the first as the reference, the others outvote class 1 at its only point
    first, other = torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 0, 0])
    labels = vote([first, other, other], 2)
    assert set(labels.tolist()) <= {0, 1}
    assert labels[:3].unique().tolist() == [0]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=40), st.permutations(range(4)))
@settings(deadline=None)
def test_renaming_the_classes_of_a_partition_changes_nothing(labels: list[int], names: list[int]) -> None:
    partition = torch.tensor(labels)
    renamed = torch.tensor(names)[partition]
    assert torch.equal(vote([partition, renamed, renamed], 4) == partition, torch.ones(len(labels), dtype=torch.bool))


def test_unequal_groups_are_found_and_no_seed_changes_them() -> None:
    # one wide group of 900 points beside three narrow ones of 30: plain k-means cuts the wide one up
    generator = torch.Generator().manual_seed(0)

    def group(center: torch.Tensor, spread: float, n: int) -> torch.Tensor:
        return F.normalize(center + spread * torch.randn(n, 8, generator=generator), dim=1)

    axes = torch.eye(8)
    points = torch.cat([group(axes[0], 0.22, 900), *(group(axes[i], 0.05, 30) for i in (1, 2, 3))])
    truth = torch.tensor([0] * 900 + [1] * 30 + [2] * 30 + [3] * 30)
    for seed in range(3):
        centers = consensus_centers(points, 4, clusters_per_class=3, n_partitions=5, seed=seed, max_iter=30)
        assert centers.shape == (4, 8)
        torch.testing.assert_close(centers.norm(dim=1), torch.ones(4))
        found = (points @ centers.T).argmax(1)
        pairs = torch.bincount(found * 4 + truth, minlength=16).view(4, 4)
        assert (pairs > 0).sum() == 4  # each cluster holds one group, each group lies in one cluster


def test_too_few_points() -> None:
    with pytest.raises(TrainingError, match="5 points cannot make 6 clusters"):
        consensus_centers(torch.eye(5), 3, clusters_per_class=2, n_partitions=2, seed=0, max_iter=5)
