"""STEGO: the correspondences pair by pair, the sampling, the neighbours, the probe, and what each setting does."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.methods.stego import (
    Stego,
    at_places,
    correspondence_loss,
    cosines,
    nearest,
    others,
    random_places,
    unit_features,
)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_loss(features: Tensor, codes: Tensor, shift: float, pointwise: bool, zero_clamp: bool) -> float:
    """Every pair of points in turn."""
    n_images, n_points, n_others = features.shape
    everything, total = float(features.mean()), 0.0
    for b in range(n_images):
        for p in range(n_points):
            mean_of_point = sum(float(features[b, p, q]) for q in range(n_others)) / n_others
            for q in range(n_others):
                feature, code = float(features[b, p, q]), float(codes[b, p, q])
                if pointwise:
                    feature = feature - mean_of_point + everything
                if zero_clamp:
                    code = max(code, 0.0)
                total -= (feature - shift) * code
    return total / (n_images * n_points * n_others)


@pytest.mark.parametrize("pointwise", [False, True])
@pytest.mark.parametrize("zero_clamp", [False, True])
def test_the_loss_is_minus_the_mean_product_over_all_pairs(pointwise: bool, zero_clamp: bool) -> None:
    features, codes = randn(2, 3, 5), randn(2, 3, 5, seed=1)
    found = correspondence_loss(features, codes, 0.3, pointwise=pointwise, zero_clamp=zero_clamp)
    assert found.item() == pytest.approx(slow_loss(features, codes, 0.3, pointwise, zero_clamp), abs=1e-6)


def test_codes_are_drawn_together_above_the_shift_and_apart_below() -> None:
    features = torch.tensor([[[0.5, 0.1, 0.1]]])
    codes = torch.tensor([[[0.2, 0.2, -0.2]]], requires_grad=True)
    correspondence_loss(features, codes, 0.3, pointwise=False, zero_clamp=True).backward()
    # -(0.5 - 0.3) / 3, -(0.1 - 0.3) / 3, and 0 where the codes are unlike already
    torch.testing.assert_close(codes.grad, torch.tensor([[[-0.2 / 3, 0.2 / 3, 0.0]]]))


def test_cosines_of_each_point_with_each() -> None:
    first, second = randn(2, 4, 3), randn(2, 4, 5, seed=1)
    found = cosines(first, second)
    assert found.shape == (2, 3, 5)
    for b, p, q in ((0, 0, 0), (1, 2, 4), (0, 1, 3)):
        one, other = first[b, :, p].tolist(), second[b, :, q].tolist()
        product = sum(i * j for i, j in zip(one, other, strict=True))
        assert found[b, p, q].item() == pytest.approx(product / math.hypot(*one) / math.hypot(*other), abs=1e-6)


def test_places_are_x_and_y_with_half_pixel_centres() -> None:
    row = torch.arange(12.0).view(1, 1, 3, 4)  # 3 rows, 4 columns: the centre of cell (y, x) holds 4 y + x
    # Centres in -1 to 1: columns at -0.75, -0.25, 0.25, 0.75; rows at -2/3, 0, 2/3.
    places = torch.tensor([[[-0.75, -2 / 3], [0.25, 2 / 3], [0.0, 0.0], [-1.0, -1.0]]])
    # (0, 0) -> 0; (2, 2) -> 10; between columns 1 and 2 of row 1 -> 5.5; beyond the last centre -> the border, 0
    torch.testing.assert_close(at_places(row, places), torch.tensor([[[0.0, 10.0, 5.5, 0.0]]]))
    drawn = random_places(3, 500, torch.device("cpu"))
    assert drawn.shape == (3, 500, 2)
    assert drawn.min() < -0.95
    assert drawn.max() > 0.95


@pytest.mark.parametrize("n_images", [2, 3, 7])
def test_others_are_never_the_image_itself(n_images: int) -> None:
    for _ in range(20):
        drawn = others(n_images, torch.device("cpu"))
        assert not (drawn == torch.arange(n_images)).any()
        assert drawn.sort().values.tolist() == list(range(n_images))


def test_nearest_by_cosine_without_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    degrees = torch.deg2rad(torch.tensor([0.0, 10, 25, 90, 100]))
    length = torch.tensor([1.0, 5, 2, 3, 0.1])  # which does not matter
    vectors = torch.stack([degrees.cos(), degrees.sin()], dim=1) * length[:, None]
    expected = [[1, 2], [0, 2], [1, 0], [4, 2], [3, 2]]
    for rows in (1, 2, 1024):
        monkeypatch.setattr("contextseg.methods.stego._ROWS", rows)
        assert nearest(vectors, 2).tolist() == expected


def test_features_are_unit_vectors_in_which_each_map_has_the_same_say() -> None:
    maps = [3 * randn(2, 4, 3, 5), 0.1 * randn(2, 6, 3, 5, seed=1)]
    found = unit_features(maps)
    torch.testing.assert_close(found[:, :4].norm(dim=1), torch.full((2, 3, 5), math.sqrt(0.5)))
    torch.testing.assert_close(found[:, 4:].norm(dim=1), torch.full((2, 3, 5), math.sqrt(0.5)))


def begun(make, images, **own) -> Stego:
    method = make("stego", **({"points": 3} | own))
    method.allocate(images.n_images)
    with torch.no_grad():
        method.begin_epoch(0, images)
    return method


def shown(method: Stego, images, indices=(0, 1, 2, 3)):
    batch = images.views(list(indices))
    batch.partners = images.views(method.partners(batch.indices, 0))
    torch.manual_seed(0)
    return method(batch)


def test_the_backbone_is_frozen_in_every_mode(make, images) -> None:
    method = begun(make, images).train()
    assert method.training
    assert method.embedding.perceptron.training
    assert not any(module.training for module in method.embedding.backbone.modules())
    before = {name: value.clone() for name, value in method.embedding.backbone.state_dict().items()}
    optimizer = method.optimizer()
    shown(method, images)["loss"].backward()
    optimizer.step()
    after = method.embedding.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(parameter.grad is None for parameter in method.embedding.backbone.parameters())
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.embedding.perceptron.parameters())


def test_each_learning_rate_is_of_its_own_part(make) -> None:
    method = make("stego", rate=2e-3, probe_learning_rate=0.04)
    head, probe = method.optimizer().param_groups
    assert (head["lr"], probe["lr"]) == (2e-3, 0.04)
    assert probe["params"] == [method.probe_KD]
    trained = [*method.embedding.linear.parameters(), *method.embedding.perceptron.parameters()]
    assert {id(parameter) for parameter in head["params"]} == {id(parameter) for parameter in trained}


def test_neighbours_are_the_nearest_by_pooled_features(make, images) -> None:
    method = begun(make, images, neighbours=4)
    _, pixels, _ = next(images.whole())
    vectors = unit_features(method.embedding.frozen_maps(pixels)).mean((2, 3))
    for index in range(12):
        similar = F.cosine_similarity(vectors[index], vectors, dim=1)
        expected = [other for other in similar.argsort(descending=True).tolist() if other != index][:4]
        assert method.nearest_nk[index].tolist() == expected
        drawn = {method.partners([index], epoch)[0] for epoch in range(60)}
        assert drawn == set(expected)
    assert method.partners([5, 2], 3) == [method.partners([index], 3)[0] for index in (5, 2)]
    few = make("stego", neighbours=7)
    few.allocate(3)  # each has but two others
    assert few.nearest_nk.shape == (3, 2)


@torch.no_grad()
def test_the_loss_part_by_part(make, images) -> None:
    own = {"dropout": 0, "negatives": 2, "self_weight": 0.3, "neighbour_weight": 0.7, "random_weight": 1.1}
    own |= {"self_shift": 0.11, "neighbour_shift": 0.05, "random_shift": 0.5}
    method = begun(make, images, **own)
    found = shown(method, images)
    batch = images.views([0, 1, 2, 3])
    near = images.views(method.partners([0, 1, 2, 3], 0))
    maps, near_maps = (method.embedding.frozen_maps(views.first_B3hw) for views in (batch, near))
    features, near_features = unit_features(maps), unit_features(near_maps)
    codes, near_codes = method.embedding.head(maps), method.embedding.head(near_maps)
    torch.manual_seed(0)
    here, there = (random_places(4, 9, torch.device("cpu")) for _ in range(2))
    orders = [others(4, torch.device("cpu")) for _ in range(2)]

    def loss(second_features, second_codes, places, shift):
        pairs = ((features, second_features), (codes, second_codes))
        alike = [cosines(at_places(one, here), at_places(other, places)) for one, other in pairs]
        return slow_loss(*alike, shift, True, True)

    expected = {
        "itself": loss(features, codes, here, 0.11),
        "nearest": loss(near_features, near_codes, there, 0.05),
        "random": sum(loss(features[order], codes[order], there, 0.5) for order in orders) / 2,
        "probe": -(F.normalize(codes, dim=1).movedim(1, -1) @ F.normalize(method.probe_KD, dim=1).T).amax(-1).mean(),
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(float(value), abs=1e-5), name
    total = 0.3 * expected["itself"] + 0.7 * expected["nearest"] + 1.1 * expected["random"] + expected["probe"]
    assert found["loss"].item() == pytest.approx(float(total), abs=1e-5)


def test_the_probe_gives_the_codes_no_gradient(make, images) -> None:
    method = begun(make, images, self_weight=0, neighbour_weight=0, random_weight=0)
    shown(method, images)["loss"].backward()
    assert method.probe_KD.grad.abs().sum() > 0
    assert not method.embedding.linear.weight.grad.any()


def test_the_reported_clusters_are_those_of_the_probe(make, images) -> None:
    method = begun(make, images).eval()
    _, pixels, coordinates = next(images.whole(2))
    embedded = method.embedding(pixels, coordinates)
    assert embedded.shape == (2, 8, 16, 24)
    torch.testing.assert_close(embedded.norm(dim=1), torch.ones(2, 16, 24))
    centers = method.final_centers([])
    torch.testing.assert_close(centers.norm(dim=1), torch.ones(3))
    by_probe = F.cosine_similarity(embedded.movedim(1, -1)[..., None, :], method.probe_KD, dim=-1).argmax(-1)
    assert torch.equal((embedded.movedim(1, -1) @ centers.T).argmax(-1), by_probe)
    found = shown(method, images)
    assert method.cluster_use().sum() == 4 * 4 * 4  # images, cells at stride 16
    assert -1 <= found["probe"].item() <= 1


def test_settings_change_what_they_say(make, images) -> None:
    plain = shown(begun(make, images), images)
    for own in ({"pointwise": False}, {"zero_clamp": False}, {"points": 4}, {"negatives": 1}, {"dropout": 0.5}):
        assert shown(begun(make, images, **own), images)["loss"].item() != plain["loss"].item(), own
    _, pixels, coordinates = next(images.whole(1))
    # strides 8 and 32 of test_resnet have 48 and 96 channels
    codes = make("stego", strides=(32, 8), dim=5).embedding
    assert [tuple(level.shape) for level in codes.frozen_maps(pixels)] == [(1, 96, 8, 12), (1, 48, 8, 12)]
    assert codes(pixels, coordinates).shape == (1, 5, 16, 24)
    assert isinstance(codes.perceptron[1], nn.ReLU)


def test_it_learns_one_batch_by_heart(make, losses_of) -> None:
    losses = losses_of(make("stego", dropout=0, rate=5e-3), 20)
    assert losses[-1] < losses[0] - 0.1
