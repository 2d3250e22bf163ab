"""Centres of an image's own, against values by hand and what they are for."""

import pytest
import torch
import torch.nn.functional as F

from contextseg.clustering.own_centers import own_centers

EAST, NORTH = [1.0, 0.0], [0.0, 1.0]


def at_degrees(*angles):
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], dim=-1)


def degrees(vectors):
    return torch.atan2(vectors[..., 1], vectors[..., 0]).rad2deg()


def test_by_hand():
    # 49 points at 20 degrees belong to the centre at 0, one at 80 to that at 90. The former's mean is that of the 49
    # and of 0.02 * 50 = 1 centre, three quarters of it and one of the centre itself; the latter lies between 80 and 90.
    points = at_degrees(*[20.0] * 49, 80.0)
    found = own_centers(points[None], torch.tensor([EAST, NORTH], dtype=torch.float64))[0]
    first = F.normalize(49 * at_degrees(20.0)[0] + at_degrees(0.0)[0], dim=0)
    expected = F.normalize(0.75 * first + 0.25 * at_degrees(0.0)[0], dim=0)
    torch.testing.assert_close(found[0], expected)
    assert degrees(found[0]).item() == pytest.approx(14.74, abs=0.01)
    assert degrees(found[1]).item() == pytest.approx(90 - 0.75 * 5, abs=0.05)


def test_a_cluster_that_the_image_does_not_show_stays_where_it_is():
    centers = F.normalize(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    found = own_centers(centers[None, :2].expand(1, 2, 7), centers)[0]
    torch.testing.assert_close(found, centers)  # and the points of the others lie on their centres


def test_each_image_has_its_own():
    generator = torch.Generator().manual_seed(1)
    points = F.normalize(torch.randn(3, 40, 6, generator=generator), dim=-1)
    centers = F.normalize(torch.randn(4, 6, generator=generator), dim=-1)
    together = own_centers(points, centers)
    assert together.shape == (3, 4, 6)
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3, 4))
    for one, points_ND in zip(together, points, strict=True):
        torch.testing.assert_close(one, own_centers(points_ND[None], centers)[0])
    assert (together[0] - together[1]).norm(dim=-1).min() > 0.01


def test_turning_everything_turns_them():
    generator = torch.Generator().manual_seed(2)
    points, centers = (F.normalize(torch.randn(n, 5, generator=generator).double(), dim=-1) for n in (30, 3))
    turn = torch.linalg.qr(torch.randn(5, 5, generator=generator).double())[0]
    torch.testing.assert_close(
        own_centers((points @ turn)[None], centers @ turn), own_centers(points[None], centers) @ turn
    )


def test_pixels_that_the_light_has_moved_are_told_by_what_they_are_here():
    """All of an image is turned by 25 degrees: some points of the first class come nearer to the second's centre."""
    spread = torch.linspace(-30, 30, 61, dtype=torch.float64).tolist()
    points = at_degrees(*[25 + own for own in spread], *[25 + 90 + own for own in spread])
    classes = torch.tensor([0] * 61 + [1] * 61)
    centers = torch.tensor([EAST, NORTH], dtype=torch.float64)
    wrong = (points @ centers.T).argmax(1) != classes
    wrong_after = (points @ own_centers(points[None], centers)[0].T).argmax(1) != classes
    assert int(wrong.sum()) == 10
    assert not wrong_after.any()
