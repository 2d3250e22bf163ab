"""IIC: the mutual information pair by pair, the heads, and what each setting does."""

import math

import pytest
import torch
from torch import Tensor

from contextseg.methods.iic import joint_distributions, mutual_information


def probabilities(n_images: int, n_clusters: int, height: int, width: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (3 * torch.randn(n_images, n_clusters, height, width, generator=generator)).softmax(1)


def slow_joint(first: Tensor, second: Tensor, dy: int, dx: int) -> list[list[float]]:
    """Every pair of a cell and its neighbour that lies inside, every pair of clusters; then both orders."""
    n_images, n_clusters, height, width = first.shape
    joint = [[0.0] * n_clusters for _ in range(n_clusters)]
    for b in range(n_images):
        for y in range(height):
            for x in range(width):
                if 0 <= y + dy < height and 0 <= x + dx < width:
                    for k in range(n_clusters):
                        for m in range(n_clusters):
                            joint[k][m] += float(first[b, k, y, x]) * float(second[b, m, y + dy, x + dx])
    total = sum(map(sum, joint))
    return [[(joint[k][m] + joint[m][k]) / 2 / total for m in range(n_clusters)] for k in range(n_clusters)]


def slow_information(joint: list[list[float]]) -> float:
    n_clusters = len(joint)
    rows = [sum(joint[k]) for k in range(n_clusters)]
    columns = [sum(joint[k][m] for k in range(n_clusters)) for m in range(n_clusters)]
    return sum(
        joint[k][m] * math.log(joint[k][m] / (rows[k] * columns[m]))
        for k in range(n_clusters)
        for m in range(n_clusters)
    )


@pytest.mark.parametrize(("displacement", "size"), [(0, (2, 3)), (1, (3, 4)), (2, (5, 3))])
def test_it_is_the_mean_information_over_the_window(displacement: int, size: tuple[int, int]) -> None:
    first, second = (probabilities(2, 4, *size, seed=seed) for seed in (0, 1))
    window = range(-displacement, displacement + 1)
    joints = [slow_joint(first, second, dy, dx) for dy in window for dx in window]
    torch.testing.assert_close(joint_distributions(first, second, displacement), torch.tensor(joints))
    expected = sum(map(slow_information, joints)) / len(joints)
    assert mutual_information(first, second, displacement).item() == pytest.approx(expected, rel=1e-4)


def test_both_orders_of_the_views_are_the_same_but_for_the_window() -> None:
    # a pair of clusters at (dy, dx) of one order is the pair at (-dy, -dx) of the other, and the joints are symmetric
    first, second = (probabilities(2, 3, 4, 5, seed=seed) for seed in (0, 1))
    forward, backward = joint_distributions(first, second, 1), joint_distributions(second, first, 1)
    torch.testing.assert_close(forward, backward.flip(0))
    torch.testing.assert_close(mutual_information(first, second, 1), mutual_information(second, first, 1))


def test_bounds_by_hand() -> None:
    halves = torch.zeros(1, 2, 2, 4)
    halves[:, 0, :, :2] = halves[:, 1, :, 2:] = 1
    # Two clusters, half the cells each, the same in both views: log 2.
    assert mutual_information(halves, halves, 0).item() == pytest.approx(math.log(2), abs=1e-6)
    # The names of the clusters do not matter between the views.
    assert mutual_information(halves, halves.flip(1), 0).item() == pytest.approx(math.log(2), abs=1e-6)
    # One cluster for all cells, or an even chance of both, tells nothing.
    one = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 2, 4)
    assert mutual_information(one, one, 0).item() == pytest.approx(0, abs=1e-6)
    even = torch.full((1, 2, 2, 4), 0.5)
    assert mutual_information(even, halves, 0).item() == pytest.approx(0, abs=1e-6)
    # One column to the right: of 3 pairs in a row, one lies across the border. Symmetric: P = [1/3, 1/6; 1/6, 1/3]
    # (pairs 00, 01, 11), marginals 1/2; I = 2/3 log(4/3) + 1/3 log(2/3).
    shifted = joint_distributions(halves, halves, 1)[5]
    torch.testing.assert_close(shifted, torch.tensor([[1 / 3, 1 / 6], [1 / 6, 1 / 3]]))
    expected = 2 / 3 * math.log(4 / 3) + 1 / 3 * math.log(2 / 3)
    assert slow_information(shifted.tolist()) == pytest.approx(expected, abs=1e-6)


def test_a_cluster_that_never_occurs_gives_a_finite_gradient() -> None:
    scores = torch.zeros(1, 3, 4, 4)
    scores[:, 2] = -200  # its probability is 0 in float32
    scores.requires_grad_()
    mutual_information(scores.softmax(1), scores.softmax(1), 1).backward()
    assert torch.isfinite(scores.grad).all()


def test_the_loss_is_the_mean_of_both_heads(make, images) -> None:
    method, batch = make("iic", displacement=1), images.views([0, 1])
    method.eval()
    features = batch.maps(method.embedding.features)
    heads = [[head(view) for view in features] for head in (method.embedding.head, method.auxiliary)]
    main, auxiliary = (-mutual_information(*views, 1) for views in heads)
    found = method(batch)
    torch.testing.assert_close(found["main"], main.detach())
    torch.testing.assert_close(found["auxiliary"], auxiliary.detach())
    torch.testing.assert_close(found["loss"], (main + auxiliary) / 2)
    counts = sum(torch.bincount(view.argmax(1).flatten(), minlength=3) for view in heads[0])
    assert torch.equal(method.cluster_use(), counts)
    with torch.no_grad():
        method.begin_epoch(1, images)
    assert method.cluster_use().sum() == 0


def test_settings_change_what_they_say(make, images) -> None:
    batch = images.views([0, 1])
    losses = {d: make("iic", displacement=d)(batch)["main"].item() for d in (0, 1, 3)}
    assert len(set(losses.values())) == 3
    for per_class in (1, 4):
        assert make("iic", overclusters_per_class=per_class).auxiliary[0].out_channels == 3 * per_class
    assert make("iic", dim=5).auxiliary[0].in_channels == 5


def test_the_reported_clusters_are_those_of_the_head(make, images) -> None:
    method = make("iic").eval()
    _, pixels, coordinates = next(images.whole(2))
    embedded = method.embedding(pixels, coordinates)
    assert embedded.shape == (2, 3, 16, 24)
    torch.testing.assert_close(embedded.sum(1), torch.ones(2, 16, 24))
    centers = method.final_centers([])
    squares = (embedded.movedim(1, -1)[..., None, :] - centers).square().sum(-1)
    assert torch.equal(squares.argmin(-1), embedded.argmax(1))


def test_it_learns_one_batch_by_heart(make, losses_of) -> None:
    losses = losses_of(make("iic", displacement=1, rate=3e-3), 20)
    assert losses[-1] < losses[0] - 0.3  # nats
