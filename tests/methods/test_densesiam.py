"""DenseSiam: each loss pixel by pixel and region by region, the networks, and what each setting does."""

import math

import pytest
import torch
from torch import Tensor, nn

from contextseg.methods.densesiam import (
    both_ways,
    hard_label_loss,
    pixel_similarity,
    predictor,
    projector,
    region_similarity,
    region_vectors,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value) for value in values]
    return [power / sum(powers) for power in powers]


def at(maps: Tensor, b: int, y: int, x: int) -> list[float]:
    return maps[b, :, y, x].tolist()


def cells(maps: Tensor) -> list[tuple[int, int, int]]:
    n_images, _, height, width = maps.shape
    return [(b, y, x) for b in range(n_images) for y in range(height) for x in range(width)]


def test_pixel_similarity_is_the_cross_entropy_of_softmaxes() -> None:
    predicted, target = randn(2, 3, 4, 5), randn(2, 3, 4, 5, seed=1)
    terms = [
        -sum(t * math.log(p) for t, p in zip(softmax(at(target, *c)), softmax(at(predicted, *c)), strict=True))
        for c in cells(predicted)
    ]
    assert pixel_similarity(predicted, target).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_the_target_has_no_gradient() -> None:
    predicted, target = randn(1, 3, 2, 4).requires_grad_(), randn(1, 3, 2, 4, seed=1).requires_grad_()
    pixel_similarity(predicted, target).backward()
    assert predicted.grad.abs().sum() > 0
    assert target.grad is None


def test_both_ways_by_hand() -> None:
    # The predictor doubles; the loss is predicted - 3 * target: ((2 a - 3 b) + (2 b - 3 a)) / 2 = -(a + b) / 2
    def loss(predicted: Tensor, target: Tensor) -> Tensor:
        return predicted - 3 * target

    class Double(nn.Module):
        def forward(self, value: Tensor) -> Tensor:
            return 2 * value

    assert both_ways(loss, Double(), [torch.tensor(5.0), torch.tensor(2.0)]).item() == -3.5


def test_hard_labels_weigh_their_share() -> None:
    scores = randn(2, 4, 3, 5)
    labels = {c: max(range(4), key=at(scores, *c).__getitem__) for c in cells(scores)}
    terms = [
        list(labels.values()).count(label) / len(labels) * -math.log(softmax(at(scores, *c))[label])
        for c, label in labels.items()
    ]
    assert hard_label_loss(scores).item() == pytest.approx(sum(terms) / len(terms), rel=1e-5)


def test_a_region_is_the_sum_of_features_under_its_soft_mask() -> None:
    features, scores = randn(2, 5, 3, 4), randn(2, 3, 3, 4, seed=1)  # D = 5 features, K = 3 clusters
    found = region_vectors(features, scores)
    assert found.shape == (2, 5, 3, 1)
    expected = torch.zeros(2, 5, 3)
    for b, y, x in cells(features):
        mask = softmax(at(scores, b, y, x))
        for d in range(5):
            for k in range(3):
                expected[b, d, k] += mask[k] * float(features[b, d, y, x])
    torch.testing.assert_close(found[..., 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_regions_are_told_from_the_others_of_their_image(temperature: float) -> None:
    predicted, target = randn(2, 5, 3, 1), randn(2, 5, 3, 1, seed=1)
    terms = []
    for b in range(2):
        for k in range(3):
            cosines = []
            for other in range(3):
                p, z = predicted[b, :, k, 0].tolist(), target[b, :, other, 0].tolist()
                product = sum(i * j for i, j in zip(p, z, strict=True))
                cosines.append(product / math.hypot(*p) / math.hypot(*z) / temperature)
            terms.append(-math.log(softmax(cosines)[k]))
    assert region_similarity(predicted, target, temperature).item() == pytest.approx(sum(terms) / 6, rel=1e-4)


def test_the_networks_are_the_published_ones() -> None:
    kinds = [type(layer).__name__ for layer in projector(6, 4)]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU"] * 2 + ["Conv2d", "BatchNorm2d"]
    assert [type(layer).__name__ for layer in predictor(4, 6)] == ["Conv2d", "BatchNorm2d", "ReLU", "Conv2d"]
    scores = projector(6, 4)(randn(2, 6, 5, 7))  # in training mode the last batch-norm sets mean and variance
    torch.testing.assert_close(scores.mean((0, 2, 3)), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores.var((0, 2, 3), correction=0), torch.ones(4), atol=1e-3, rtol=0)
    assert predictor(4, 6)(scores).shape == scores.shape


def test_the_loss_is_the_weighted_sum_of_its_parts(make, images) -> None:
    own = {"auxiliary_clusters": 7, "segmentation_weight": 0.5, "region_weight": 0.25, "region_from_epoch": 2}
    method = make("densesiam", **own)
    for epoch, region_weight in ((1, 0), (2, 0.25)):
        with torch.no_grad():
            method.begin_epoch(epoch, images)
        found = method(images.views([0, 1]))
        # log 7 / (log 3 + log 7) for the 3 clusters, log 3 / (log 3 + log 7) for the 7 auxiliary ones
        pixels = found["pixels"] * math.log(7) + found["auxiliary"] * math.log(3)
        expected = pixels / math.log(21) + 0.5 * found["segmentation"] + region_weight * found["regions"]
        torch.testing.assert_close(found["loss"].detach(), expected)
        assert method.cluster_use().sum() == 2 * 2 * 16 * 16  # views, images, cells of this epoch


def test_settings_change_what_they_say(make, images) -> None:
    batch = images.views([0, 1])
    regions = [make("densesiam", region_temperature=t)(batch)["regions"].item() for t in (0.1, 1.0)]
    assert regions[0] != regions[1]
    method = make("densesiam", dim=6, auxiliary_clusters=9, momentum=0.5, weight_decay=0.01)
    assert method.embedding.head[0].in_channels == method.predictor[0].out_channels == 6
    assert method.auxiliary_projector[6].out_channels == 9
    (group,) = method.optimizer().param_groups
    assert (group["momentum"], group["weight_decay"]) == (0.5, 0.01)
    assert isinstance(method.optimizer(), torch.optim.SGD)


def test_the_reported_clusters_are_those_of_the_projector(make, images) -> None:
    method = make("densesiam").eval()
    _, pixels, coordinates = next(images.whole(2))
    embedded = method.embedding(pixels, coordinates)
    expected = method.embedding.head(method.embedding.features(pixels, coordinates)).argmax(1)
    squares = (embedded.movedim(1, -1)[..., None, :] - method.final_centers([])).square().sum(-1)
    assert torch.equal(squares.argmin(-1), expected)


def test_it_learns_one_batch_by_heart(make, losses_of) -> None:
    losses = losses_of(make("densesiam", region_from_epoch=0, rate=0.05), 20)
    assert losses[-1] < losses[0] - 0.2  # the entropy of the targets remains
