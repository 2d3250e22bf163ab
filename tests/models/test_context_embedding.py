"""The Context-Aware Embedding: its start, its parts, and what each looks at."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from contextseg.models.backbone import Backbone
from contextseg.models.context import BilateralContext, ContextEmbedding, Looks, appearance, deep_features
from contextseg.settings import BackboneSettings, EmbeddingSettings
from contextseg.views.geometry import whole_coordinates

PARTS = ("global_context", "geometry", "appearance", "bilateral")
LEARNT = ("global_context", "geometry", "bilateral")


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    torch.manual_seed(0)
    return Backbone(BackboneSettings(name="test_resnet")).eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


def embedding_with(backbone: Backbone, *parts: str) -> ContextEmbedding:
    torch.manual_seed(2)
    settings = EmbeddingSettings(dim=24, **{part: part in parts for part in PARTS})
    return ContextEmbedding(backbone, settings).eval()


def coordinates(image: torch.Tensor) -> torch.Tensor:
    return whole_coordinates(image.shape[-2] // 4, image.shape[-1] // 4).expand(len(image), -1, -1, -1)


@pytest.mark.parametrize("parts", [parts for n in range(4) for parts in itertools.combinations(LEARNT, n)])
@torch.no_grad()
def test_every_part_that_is_learnt_starts_without_effect(
    backbone: Backbone, image: torch.Tensor, parts: tuple[str, ...]
) -> None:
    plain, own = embedding_with(backbone), embedding_with(backbone, *parts)
    own.load_state_dict(plain.state_dict(), strict=False)
    found = own(image, coordinates(image))
    assert found.shape == (2, 24, 16, 24)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 16, 24))
    torch.testing.assert_close(found, plain(image, coordinates(image)))


@pytest.mark.parametrize("part", LEARNT)
def test_every_part_is_learnt_and_changes_the_embedding(backbone: Backbone, image: torch.Tensor, part: str) -> None:
    own = embedding_with(backbone, part)
    optimizer = torch.optim.SGD([p for n, p in own.named_parameters() if not n.startswith(("backbone", "dec"))], 1.0)
    before = own(image, coordinates(image))
    target = F.normalize(torch.randn(before.shape, generator=torch.Generator().manual_seed(0)), dim=1)
    losses = []
    for _ in range(2):  # where the last layer starts at zero, the first step reaches that layer alone
        loss = -(own(image, coordinates(image)) * target).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().item())
    after = own(image, coordinates(image))
    assert not torch.allclose(before, after, atol=1e-4)
    assert losses[1] < losses[0]


@torch.no_grad()
def test_only_geometry_looks_at_the_coordinates(backbone: Backbone, image: torch.Tensor) -> None:
    for parts, differs in (({"geometry"}, True), (set(PARTS) - {"geometry"}, False)):
        own = embedding_with(backbone, *parts)
        for name, parameter in own.named_parameters():
            if not name.startswith("backbone"):  # what is drawn and not learnt is a buffer
                parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)) / 5)
        at_home, elsewhere = (own(image, where) for where in (coordinates(image), coordinates(image).flip(-1)))
        assert torch.allclose(at_home, elsewhere, atol=1e-5) != differs


@torch.no_grad()
def test_what_was_a_center_is_one_when_looks_have_their_say(backbone: Backbone, image: torch.Tensor) -> None:
    own = embedding_with(backbone, "appearance")
    dim = own.settings.dim
    before = own(image, coordinates(image))[0].flatten(1).T
    after = own.finish(before)
    torch.testing.assert_close(own(image, coordinates(image))[0].flatten(1).T, after)
    for embedded, length in ((before, 0.05), (after, 0.8)):
        ratio = embedded[:, dim:].norm(dim=1) / embedded[:, :dim].norm(dim=1)
        torch.testing.assert_close(ratio, torch.full_like(ratio, length))
    torch.testing.assert_close(own.finish(after), after)  # once is enough
    plain = embedding_with(backbone, "geometry")
    assert torch.equal(plain.finish(before[:, :dim]), before[:, :dim])


@torch.no_grad()
def test_the_products_of_looks_are_a_gaussian_of_their_whitened_difference() -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(4, 4, generator=generator) / 10
    points = torch.randn(500, 4, generator=generator) @ mixed + torch.tensor([0.5, 0.1, 0.0, 0.2])
    looks = Looks()
    looks.start_from(points.double().T.cov(correction=0))
    found = looks(points.T[None, :, None])[0, :, 0].T
    torch.testing.assert_close(found.norm(dim=1), torch.ones(500))
    covariance = points.T.cov(correction=0)  # by another way: the Mahalanobis distance, over 5 / 3 standard deviations
    apart = points[:, None] - points
    squares = torch.einsum("nmc,cd,nmd->nm", apart, torch.linalg.inv(covariance), apart)
    gaussian = (-squares / (2 * (5 / 3) ** 2)).exp()
    products = found @ found.T
    torch.testing.assert_close(products.diagonal(), torch.ones(500))
    assert (products - gaussian).abs().mean() < 0.12  # 32 draws; their mean is off by about 1 / sqrt(64)
    assert torch.corrcoef(torch.stack([products.flatten(), gaussian.flatten()]))[0, 1] > 0.85


@torch.no_grad()
def test_noise_in_what_hardly_varies_is_not_drawn_out() -> None:
    looks, generator = Looks(), torch.Generator().manual_seed(0)
    grey = torch.randn(400, 4, generator=generator) * torch.tensor([0.2, 1e-4, 1e-4, 0.05])
    looks.start_from(grey.double().T.cov(correction=0))
    one, tinted = torch.tensor([[0.5, 0.0, 0.0, 0.1], [0.5, 3e-4, -3e-4, 0.1]])
    first, second = looks(torch.stack([one, tinted]).T[None, :, None])[0, :, 0].T
    assert first @ second > 0.999


@torch.no_grad()
def test_two_places_of_the_same_kind_are_told_apart_by_their_looks(backbone: Backbone) -> None:
    image = torch.full((1, 3, 64, 96), 0.5)
    image[..., 48:] = torch.tensor([0.9, 0.2, 0.1])[:, None, None]
    plain, own = embedding_with(backbone), embedding_with(backbone, "appearance")
    own.load_state_dict(plain.state_dict(), strict=False)
    points = appearance(image).flatten(2)[0].T.double()
    own.looks.start_from(points.T.cov(correction=0))
    before = plain(image, coordinates(image))[0]
    learning = own(image, coordinates(image))[0]
    own.finish(torch.zeros(1, own.n_channels))
    learnt = own(image, coordinates(image))[0]
    looks = own.looks(appearance(image))[0]
    left, right = (8, 4), (8, 20)
    semantic = before[:, *left] @ before[:, *right]
    like = looks[:, *left] @ looks[:, *right]
    for found, share in ((learning, 0.0025), (learnt, 0.64)):
        torch.testing.assert_close(found.norm(dim=0), torch.ones(16, 24))
        expected = (semantic + share * like) / (1 + share)
        torch.testing.assert_close(found[:, *left] @ found[:, *right], expected)
    assert like < 0.9


@torch.no_grad()
def test_the_decoder_starts_as_the_leading_axes_whitened_in_part(backbone: Backbone, image: torch.Tensor) -> None:
    own = embedding_with(backbone)
    points = deep_features(backbone, image).movedim(1, -1).flatten(0, -2).double()
    own.start_from(points.mean(0), points.T.cov(correction=0), whitening=0.7)
    fine, middle, *deep = own.decoder.laterals
    assert not fine.weight.any()
    assert not middle.weight.any()
    projection = torch.cat([lateral.weight[:, :, 0, 0] for lateral in deep], dim=1).double()
    bias = sum(lateral.bias for lateral in own.decoder.laterals).double()
    projected = points @ projection.T + bias
    torch.testing.assert_close(projected.mean(0), torch.zeros(24, dtype=torch.float64), atol=1e-5, rtol=0)
    variances = torch.linalg.svdvals((points - points.mean(0)) / len(points) ** 0.5)[:24] ** 2  # by another way
    floored = variances.clamp(min=float(variances[0]) * 1e-4)
    expected = variances * floored**-0.7 / (floored**0.3).sum()
    torch.testing.assert_close(projected.T.cov(correction=0), expected.diag(), atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_context_is_the_weighed_mean_of_the_neighbours() -> None:
    torch.manual_seed(0)
    context = BilateralContext(6, inner=3)
    features, looks = torch.randn(1, 6, 12, 20), torch.rand(1, 4, 12, 20)
    reduced, small = context.reduce(F.avg_pool2d(features, 2))[0], F.avg_pool2d(looks, 2)[0]
    space, appearance = context.log_inverse_variance.exp().tolist()
    sharpness = float(context.log_inverse_temperature.exp())
    expected = torch.zeros(3, 6, 10)
    for y in range(6):
        for x in range(10):
            scores, values = [], []
            for dilation in (1, 2, 4):
                for dy, dx in itertools.product((-dilation, 0, dilation), repeat=2):
                    if dy == dx == 0:
                        continue
                    at = (slice(None), min(max(y + dy, 0), 5), min(max(x + dx, 0), 9))
                    unlike = (small[at] - small[:, y, x]).square().sum()
                    like = reduced[at] @ reduced[:, y, x]
                    scores.append(sharpness * like - (space * (dy * dy + dx * dx) + appearance * unlike) / 2)
                    values.append(reduced[at])
            expected[:, y, x] = torch.stack(scores).softmax(0) @ torch.stack(values)
    resized = F.interpolate(expected[None], (12, 20), mode="bilinear", align_corners=False)
    torch.testing.assert_close(context(features, looks), resized, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_shuffled_coordinates_are_those_of_other_cells(backbone: Backbone, image: torch.Tensor) -> None:
    settings = EmbeddingSettings(dim=24, geometry=True, shuffled=True, global_context=False, bilateral=False)
    own = ContextEmbedding(backbone, settings).eval()
    seen = []
    own.fuse.register_forward_hook(lambda _layer, inputs, _output: seen.append(inputs[0][:, :2]))  # y and x
    own(image, coordinates(image))
    centred = 2 * coordinates(image) - 1
    assert not torch.equal(seen[0], centred)
    pairs = [sorted(map(tuple, cells.flatten(2)[0].T.tolist())) for cells in (seen[0], centred)]
    assert pairs[0] == pairs[1]


@torch.no_grad()
def test_some_images_are_not_told_where_their_cells_lie_while_learning(backbone: Backbone) -> None:
    own = embedding_with(backbone, "geometry")
    own.settings = own.settings.model_copy(update={"geometry_dropout": 0.25})
    seen: list[torch.Tensor] = []
    own.fuse.register_forward_hook(lambda _layer, inputs, _output: seen.append(inputs[0]))
    images = torch.rand(200, 3, 32, 32)
    where = coordinates(images)
    own(images, where)
    own.training = True  # not its backbone, which others share
    torch.manual_seed(0)
    own(images, where)
    at_rest, learning = (cells.flatten(1) for cells in seen)
    told = (learning == at_rest).all(1)
    assert told.logical_xor((learning == 0).all(1)).all()  # all of it, or nothing
    assert 0.65 < told.float().mean() < 0.85
