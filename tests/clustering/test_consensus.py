"""Final classes by merging and vote."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import cut_tree, linkage

from contextseg.clustering.consensus import Consensus, _by_company, _by_links, _first_cut, _groups, merge_clusters
from contextseg.clustering.kmeans import KMeans
from contextseg.errors import TrainingError


def on_circle(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_near_centers_are_merged_by_their_average_distance() -> None:
    # 0 and 10 degrees are nearest, then 90 and 110; 200 stays alone
    three, two = merge_clusters(on_circle(0, 90, 10, 200, 110), 3, 2).T.tolist()
    assert three == [0, 1, 0, 2, 1]
    assert two == [0, 0, 0, 1, 0]  # 200 is 1.17 from 90 and 110 in the mean, these are 1.09 from 0 and 10


def test_as_many_clusters_as_classes_are_left_as_they_are() -> None:
    assert merge_clusters(on_circle(0, 1, 2), 3)[:, 0].tolist() == [0, 1, 2]


def test_fewer_clusters_than_classes() -> None:
    with pytest.raises(ValueError, match="2 clusters cannot be merged into 3"):
        merge_clusters(on_circle(0, 90), 3)


def partition(*shares: list[float]) -> tuple[KMeans, torch.Tensor]:
    """Four clusters at 0, 90, 180 and 270 degrees, and the shares of the classes in each."""
    kmeans = KMeans(4)
    kmeans.centers_ = on_circle(0, 90, 180, 270)
    return kmeans, torch.tensor(shares)


def test_each_point_takes_the_class_with_the_largest_share_of_its_clusters() -> None:
    consensus = Consensus(2, clusters_per_class=2, n_partitions=3)
    consensus.partitions_ = [
        partition([1.0, 0.0], [0.6, 0.4], [0.4, 0.6], [0.0, 1.0]),
        partition([1.0, 0.0], [0.6, 0.4], [0.4, 0.6], [0.9, 0.1]),
        partition([0.0, 1.0], [0.0, 1.0], [0.6, 0.4], [0.2, 0.8]),
    ]
    # sums: 2 and 1 at 0 degrees, 1.2 and 1.8 at 90, 1.4 and 1.6 at 180, 1.1 and 1.9 at 270
    assert consensus.predict(on_circle(10, 80, 190, 260)).tolist() == [0, 1, 1, 1]


def test_points_that_most_partitions_keep_together_are_a_class() -> None:
    # Three narrow groups, two of them near each other: cut into two, whatever else single partitions say.
    points = on_circle(*torch.linspace(0, 8, 40).tolist(), *torch.linspace(40, 48, 40), *torch.linspace(170, 178, 40))
    classes = Consensus(2, clusters_per_class=3, n_partitions=9).fit(points).predict(points)
    assert classes[:80].unique().numel() == 1
    assert classes[80:].unique().numel() == 1
    assert classes[0] != classes[80]


def test_unequal_groups_are_found_and_no_seed_changes_them() -> None:
    # one wide group of 900 points beside three narrow ones of 30: plain k-means cuts the wide one up
    generator = torch.Generator().manual_seed(0)

    def group(center: torch.Tensor, spread: float, n: int) -> torch.Tensor:
        return F.normalize(center + spread * torch.randn(n, 8, generator=generator), dim=1)

    axes = torch.eye(8)
    points = torch.cat([group(axes[0], 0.22, 900), *(group(axes[i], 0.05, 30) for i in (1, 2, 3))])
    truth = torch.tensor([0] * 900 + [1] * 30 + [2] * 30 + [3] * 30)
    for seed in range(3):
        consensus = Consensus(4, clusters_per_class=3, n_partitions=5, seed=seed).fit(points)
        pairs = torch.bincount(consensus.predict(points) * 4 + truth, minlength=16).view(4, 4)
        assert (pairs > 0).sum() == 4  # each class holds one group, each group lies in one class


def as_seen(labels_N: np.ndarray) -> list[int]:
    """Labels numbered in the order in which they first occur."""
    numbers: dict[int, int] = {}
    return [numbers.setdefault(label, len(numbers)) for label in labels_N.tolist()]


def test_every_class_keeps_points() -> None:
    # noise: partitions agree on nothing, and a vote of all of them may leave a class without a point
    for seed in range(20):
        points = F.normalize(torch.randn(40, 3, generator=torch.Generator().manual_seed(seed)), dim=1)
        consensus = Consensus(8, clusters_per_class=2, n_partitions=6, seed=seed).fit(points)
        assert consensus.predict(points).unique().tolist() == list(range(8))


@pytest.mark.parametrize(("n_odd", "classes"), [(3, [0] * 60 + [1] * 60 + [1] * 3), (10, [0] * 120 + [1] * 10)])
def test_a_few_odd_points_are_no_class(n_odd: int, classes: list[int]) -> None:
    # two groups are apart in 4 of 10 partitions; odd points are apart from both, but join the second in one
    parted = [[0] * 60 + [1] * 60 + [2] * n_odd] * 3 + [[0] * 60 + [1] * 60 + [1] * n_odd]
    together = [[0] * 120 + [2] * n_odd] * 6
    assert as_seen(_by_links(np.array([*parted, *together]).T, 2)) == classes


def test_where_the_tree_has_no_such_classes_it_is_cut_as_it_is() -> None:
    # a chain: two points are apart by the later one's number, so that one point after the other joins the first
    points, partitions = np.arange(24)[:, None], np.arange(24)
    labels_SL = np.where(points > partitions, points, 0)
    assert as_seen(_by_links(labels_SL, 2)) == [0] * 23 + [1]  # a class would need two points


@pytest.mark.parametrize("n_classes", [2, 5, 10])
@pytest.mark.parametrize("least", [0.5, 2, 4, 9])
def test_the_tree_is_cut_where_it_first_has_so_many_large_groups(n_classes: int, least: float) -> None:
    points_SD = np.random.default_rng(0).normal(size=(60, 3)) * np.repeat([1, 3], 30)[:, None]  # no two distances tie
    tree = linkage(points_SD, method="average")
    cuts = [cut_tree(tree, n_clusters=[number])[:, 0] for number in range(1, 61)]
    n_large = [(np.bincount(groups_S) >= least).sum() for groups_S in cuts]
    first = next((number for number in range(n_classes, 61) if n_large[number - 1] == n_classes), None)
    assert _first_cut(tree, n_classes, least) == first
    for number in (1, n_classes, 60):
        assert as_seen(_groups(tree, number)) == cuts[number - 1].tolist()


def halves(n_first: int, n_second: int, n_together: int, label: int) -> list[list[int]]:
    """Ten partitions of two groups, which are one in some of them."""
    apart, one = [label] * n_first + [label + 1] * n_second, [label] * (n_first + n_second)
    return [apart] * (10 - n_together) + [one] * n_together


@pytest.mark.parametrize("n_large", [20, 100, 300])
def test_classes_count_alike_whatever_their_sizes(n_large: int) -> None:
    # two large groups that are one in 5 of 10 partitions, and two small ones that are one in 3: three classes are those
    # two and the large ones as one, though it would save more of the squares to cut the largest
    labels_SL = np.hstack([halves(n_large, n_large, 5, 0), halves(10, 10, 3, 2)]).T
    classes = torch.from_numpy(_by_company(labels_SL, 3, seed=0)).split([2 * n_large, 10, 10])
    assert [part.unique().numel() for part in classes] == [1, 1, 1]
    assert torch.cat(classes).unique().numel() == 3


def test_points_of_one_company_are_a_class_though_they_are_seldom_together() -> None:
    # 40 points meet 80 others in most partitions, and each other in few: all 120 keep one company, 60 keep another
    drawn = np.random.default_rng(0)
    with_others = np.zeros((20, 80), np.int64)
    seldom = np.where(drawn.random((20, 40)) < 0.6, 0, 2 + drawn.integers(30, size=(20, 40)))
    apart = np.ones((20, 60), np.int64)
    classes = torch.from_numpy(_by_company(np.hstack([with_others, seldom, apart]).T, 2, seed=0))
    assert classes[:120].unique().numel() == 1
    assert classes[120:].unique().numel() == 1
    assert classes[0] != classes[120]


def test_shares_are_those_of_the_compared_points() -> None:
    points = F.normalize(torch.randn(400, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    consensus = Consensus(3, clusters_per_class=2, n_partitions=4).fit(points)
    assert len(consensus.partitions_) == 4
    for kmeans, shares in consensus.partitions_:
        assert shares.shape == (6, 3)
        torch.testing.assert_close(shares.sum(1), torch.ones(6))  # all points are compared, so no cluster has none
        held = torch.bincount(kmeans.predict(points), minlength=6)[:, None]
        torch.testing.assert_close(shares * held, (shares * held).round(), atol=1e-3, rtol=0)
    torch.testing.assert_close(consensus.shares(points).sum(1), torch.ones(400))


def test_as_many_points_as_clusters() -> None:
    points = on_circle(0, 10, 180, 190)
    classes = Consensus(2, clusters_per_class=2, n_partitions=3).fit(points).predict(points)
    assert classes[0] == classes[1] != classes[2] == classes[3]


def test_too_few_points() -> None:
    with pytest.raises(TrainingError, match="5 points cannot make 6 clusters"):
        Consensus(3, clusters_per_class=2, n_partitions=2).fit(torch.eye(5))


def test_partitions_take_turns_with_the_views() -> None:
    consensus = Consensus(2, clusters_per_class=2, n_partitions=3)
    consensus.partitions_ = [
        partition([1.0, 0.0], [0.0, 1.0], [0.5, 0.5], [0.5, 0.5]),
        partition([0.2, 0.8], [0.5, 0.5], [0.9, 0.1], [0.5, 0.5]),
        partition([0.7, 0.3], [0.4, 0.6], [0.5, 0.5], [0.5, 0.5]),
    ]
    # the first and the third see the points at 0 and 90 degrees, the second at 180 and 0
    shares = consensus.shares(on_circle(0, 90), on_circle(180, 0))
    torch.testing.assert_close(shares, torch.tensor([[2.6, 0.4], [0.6, 2.4]]) / 3)


def test_each_partition_is_learnt_from_its_view() -> None:
    groups = torch.arange(4).repeat(50)
    both = (on_circle(0, 90, 180, 270)[groups], on_circle(45, 135, 225, 315)[groups])
    consensus = Consensus(4, clusters_per_class=1, n_partitions=5).fit(*both)
    for index, (kmeans, _) in enumerate(consensus.partitions_):
        angles = torch.atan2(*kmeans.centers_.T.flip(0)).rad2deg() % 90
        assert angles.sub(45 * (index % 2)).add(45).remainder(90).sub(45).abs().max() < 1e-3
    assert torch.unique(torch.stack([consensus.predict(*both), groups]), dim=1).shape[1] == 4
