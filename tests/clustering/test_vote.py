"""Several draws of a consensus, put to the vote."""

import math

import numpy as np
import pytest
import torch

from contextseg.clustering.consensus import Consensus
from contextseg.clustering.kmeans import KMeans
from contextseg.clustering.vote import Vote, clearness, iou_of_classes, matching_classes


def on_circle(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def along(*axes: int) -> torch.Tensor:
    return torch.eye(4)[list(axes)]


def draw(*shares: list[float]) -> Consensus:
    """One partition with a cluster along each of four axes, and the shares of the classes in each."""
    kmeans = KMeans(4)
    kmeans.centers_ = torch.eye(4)
    consensus = Consensus(len(shares[0]), clusters_per_class=1, n_partitions=1)
    consensus.partitions_ = [(kmeans, torch.tensor(shares))]
    return consensus


def test_clear_classes_lie_far_from_the_next_ones() -> None:
    # means at 0 and 90 degrees: the first three points have cosines 1 and 0, the last two cos 30 and cos 60
    points, classes = on_circle(0, 0, 90, 60, 120), torch.tensor([0, 0, 1, 1, 1])
    beside = math.cos(math.pi / 6) - math.cos(math.pi / 3), math.cos(math.pi / 6) + math.cos(math.pi / 3)
    assert clearness(points, classes) == pytest.approx((3 + sum(beside)) / 5, abs=1e-6)
    assert clearness(points, 7 * classes) == clearness(points, classes)  # a class without points is none


def test_one_class_tells_nothing() -> None:
    assert clearness(on_circle(0, 90), torch.tensor([1, 1])) == -math.inf


def test_classes_are_matched_one_to_one_by_what_they_have_in_common() -> None:
    named, other = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([2, 2, 0, 0, 0, 1])
    expected = np.array([[1 / 5, 0, 2 / 3], [2 / 3, 0, 0], [0, 1, 0]])
    np.testing.assert_allclose(iou_of_classes(named.numpy(), other.numpy(), 3), expected)
    assert matching_classes(named, other, 3).tolist() == [2, 0, 1]


CLEAR = draw([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.6, 0.4])
RENAMED = draw([0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.2, 0.8, 0.0])
JOINED = draw([0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0])  # the first two axes are one class


@pytest.mark.parametrize(
    ("draws", "classes", "last"),
    [
        ([JOINED, CLEAR, RENAMED], [0, 1, 2], [1 / 3, 0.8 / 3, 1.2 / 3]),  # as CLEAR names them, JOINED says 0 at last
        ([RENAMED, JOINED, CLEAR], [2, 0, 1], [0.8 / 3, 1.2 / 3, 1 / 3]),  # as clear as CLEAR, and the first of both
    ],
)
def test_the_clearest_draw_names_the_classes_and_all_vote(
    draws: list[Consensus], classes: list[int], last: list[float]
) -> None:
    told = along(*[0] * 20, *[1] * 21, *[2] * 20)
    assert clearness(told, JOINED.predict(told)) < clearness(told, CLEAR.predict(told))
    shares = Vote(draws, told).shares(along(0, 1, 2, 3))
    assert shares[:3].argmax(1).tolist() == classes
    torch.testing.assert_close(shares[3], torch.tensor(last))


def test_the_clearest_draw_is_alone_where_a_class_would_be_outvoted() -> None:
    # the third axis is a class in the clear draw alone, as narrowly as two others are against it
    told = along(*[0] * 20, *[1] * 20, *[2] * 2)
    narrow = draw([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.4, 0.6], [0.0, 0.0, 1.0])
    against = draw([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    torch.testing.assert_close(Vote([against, narrow, against], told).shares(told), narrow.shares(told))
    more = along(*[0] * 20, *[1] * 20, *[2] * 2, 3)  # with a point of the third class that all agree on
    torch.testing.assert_close(Vote([against, narrow, against], more).shares(told)[-1], torch.tensor([0, 2.4, 0.6]) / 3)


def test_each_draw_sees_its_views() -> None:
    # one partition each, so that all are learnt from the first view
    views = along(0, 1, 2), along(1, 2, 0)
    assert Vote([CLEAR] * 3, *views).shares(*views).tolist() == torch.eye(3).tolist()
