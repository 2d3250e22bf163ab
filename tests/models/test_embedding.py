import numpy as np
import pytest
import torch

from contextseg.models.backbone import Backbone
from contextseg.models.embedding import (
    BackboneFeatures,
    ClusterScores,
    LabPosition,
    PixelEmbedding,
    PixelFeatures,
    TopDownDecoder,
)
from contextseg.settings import BackboneSettings
from contextseg.views.geometry import whole_coordinates


def upsampled_slowly(level, height, width):
    """Bilinear with half-pixel centres, one value at a time: (C, h, w) to (C, height, width)."""
    old_h, old_w = level.shape[1:]
    result = np.empty((len(level), height, width))
    for i in range(height):
        for j in range(width):
            y = min(max((i + 0.5) * old_h / height - 0.5, 0), old_h - 1)
            x = min(max((j + 0.5) * old_w / width - 0.5, 0), old_w - 1)
            y0, x0 = int(y), int(x)
            y1, x1 = min(y0 + 1, old_h - 1), min(x0 + 1, old_w - 1)
            fy, fx = y - y0, x - x0
            above = (1 - fx) * level[:, y0, x0] + fx * level[:, y0, x1]
            below = (1 - fx) * level[:, y1, x0] + fx * level[:, y1, x1]
            result[:, i, j] = (1 - fy) * above + fy * below
    return result


def coordinates_of(image):
    return whole_coordinates(image.shape[-2] // 4, image.shape[-1] // 4).expand(len(image), -1, -1, -1)


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(0)
    return Backbone(BackboneSettings(name="test_resnet")).eval()


@pytest.fixture
def image():
    return torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def test_the_decoder_against_a_slow_reference():
    torch.manual_seed(1)
    decoder = TopDownDecoder((2, 3, 4, 5), 6)
    maps = [torch.randn(1, c, 2**s, 3 * 2**s) for c, s in zip((2, 3, 4, 5), (3, 2, 1, 0), strict=True)]
    result = None
    for lateral, level in reversed(list(zip(decoder.laterals, maps, strict=True))):
        weight, bias = (value.detach().numpy() for value in (lateral.weight[:, :, 0, 0], lateral.bias))
        own = np.einsum("dc,chw->dhw", weight, level[0].numpy()) + bias[:, None, None]
        result = own if result is None else own + upsampled_slowly(result, *own.shape[1:])
    found = decoder(maps)
    assert found.shape == (1, 6, 8, 24)
    np.testing.assert_allclose(found[0].detach().numpy(), result, atol=1e-5)


def test_the_decoder_by_hand():
    # Two maps of one channel; laterals 2x + 1 and 3x. Coarse [[4, 8]] becomes [12, 24], widened to 12 15 21 24.
    # Fine [1, 0, 0, 2] becomes [3, 1, 1, 5]; the sum is 15 16 22 29.
    decoder = TopDownDecoder((1, 1), 1)
    for lateral, weight, bias in zip(decoder.laterals, (2.0, 3.0), (1.0, 0.0), strict=True):
        torch.nn.init.constant_(lateral.weight, weight)
        torch.nn.init.constant_(lateral.bias, bias)
    found = decoder([torch.tensor([[[[1.0, 0.0, 0.0, 2.0]]]]), torch.tensor([[[[4.0, 8.0]]]])])
    assert found.tolist() == [[[[15.0, 16.0, 22.0, 29.0]]]]


def test_the_decoder_has_projections_and_nothing_else():
    """PiCIE's has no 3x3 convolution, no norm and no non-linearity; R18 with D = 128: 960 * 128 + 4 * 128."""
    decoder = TopDownDecoder((64, 128, 256, 512), 128)
    assert sum(value.numel() for value in decoder.parameters()) == 960 * 128 + 4 * 128
    maps = [torch.randn(1, c, 2, 2) for c in (64, 128, 256, 512)]
    with torch.no_grad():
        offset = decoder([torch.zeros_like(level) for level in maps])
        torch.testing.assert_close(
            decoder([-2 * level for level in maps]) - offset, -2 * (decoder(maps) - offset), atol=1e-4, rtol=1e-4
        )


def test_pixel_embeddings_are_unit_vectors_at_stride_4(backbone, image):
    torch.manual_seed(2)
    embedding = PixelEmbedding(backbone, 10).eval()
    with torch.no_grad():
        found = embedding(image, coordinates_of(image))
        decoded = embedding.decoder(backbone(image))
    assert found.shape == (2, 10, 16, 24)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 16, 24))
    torch.testing.assert_close(found * decoded.norm(dim=1, keepdim=True), decoded, atol=1e-5, rtol=1e-4)


def test_pixel_embeddings_are_float32_in_lower_precision(backbone, image):
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = PixelEmbedding(backbone, 10).eval()(image, coordinates_of(image))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, 16, 24))


@pytest.mark.parametrize("strides", [(16, 32), (32, 8), (4,)])
def test_backbone_features_are_unit_maps_that_are_joined(backbone, image, strides):
    with torch.no_grad():
        found = BackboneFeatures(backbone, strides)(image, coordinates_of(image))
        maps = dict(zip(backbone.strides, backbone(image), strict=True))
    joined = []
    for stride in strides:
        level = maps[stride][1].numpy().astype(float)
        joined.append(upsampled_slowly(level / np.linalg.norm(level, axis=0), 16, 24))
    expected = np.concatenate(joined)
    expected /= np.linalg.norm(expected, axis=0)
    assert found.shape == (2, sum(maps[stride].shape[1] for stride in strides), 16, 24)
    np.testing.assert_allclose(found[1].numpy(), expected, atol=1e-5)


def lab_by_formula(red, green, blue):
    """CIE 1976 L*a*b* of an sRGB colour in 0-1, white D65, written out."""
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in (red, green, blue)]
    x = 0.412453 * linear[0] + 0.357580 * linear[1] + 0.180423 * linear[2]
    y = 0.212671 * linear[0] + 0.715160 * linear[1] + 0.072169 * linear[2]
    z = 0.019334 * linear[0] + 0.119193 * linear[1] + 0.950227 * linear[2]

    def f(t):
        return t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29

    fx, fy, fz = f(x / 0.95047), f(y), f(z / 1.08883)
    return 116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz)


@pytest.mark.parametrize("colour", [(1, 1, 1), (0, 0, 0), (1, 0, 0), (0.2, 0.6, 0.3), (0.02, 0.01, 0.5)])
def test_lab_of_a_colour(colour):
    image = torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 8, 12)
    found = LabPosition(0.5)(image, coordinates_of(image))
    assert found.shape == (1, 5, 2, 3)
    expected = torch.tensor(lab_by_formula(*colour)).view(3, 1, 1).expand(3, 2, 3) / 100
    torch.testing.assert_close(found[0, :3], expected, atol=2e-4, rtol=0, check_dtype=False)


def test_lab_is_averaged_over_each_cell():
    image = torch.zeros(1, 3, 4, 8)
    image[:, :, :, 4:7] = 1  # the right cell has three columns of white, L = 100, and one of black: L = 75
    found = LabPosition(0.0)(image, coordinates_of(image))
    torch.testing.assert_close(found[0, 0], torch.tensor([[0.0, 0.75]]), atol=1e-5, rtol=0)


def test_position_by_hand():
    # Two rows of cells: y = 1/4, 3/4; three columns: x = 1/6, 3/6, 5/6; times the weight 0.6.
    found = LabPosition(0.6)(torch.zeros(2, 3, 8, 12), coordinates_of(torch.zeros(2, 3, 8, 12)))
    expected_y = 0.6 * torch.tensor([[0.25] * 3, [0.75] * 3])
    expected_x = 0.6 * torch.tensor([[1 / 6, 0.5, 5 / 6]] * 2)
    for own in found:
        torch.testing.assert_close(own[3], expected_y)
        torch.testing.assert_close(own[4], expected_x)
    assert not LabPosition(0.0)(torch.zeros(1, 3, 8, 12), coordinates_of(torch.zeros(1, 3, 8, 12)))[:, 3:].any()


@torch.no_grad()
def test_an_embedding_is_the_features_at_unit_length(backbone, image):
    features, embedding = PixelFeatures(backbone, 5), PixelEmbedding(backbone, 5)
    embedding.load_state_dict(features.state_dict())
    long, unit = (network(image, coordinates_of(image)) for network in (features, embedding))
    torch.testing.assert_close(long, features.decoder(backbone(image)))
    torch.testing.assert_close(unit, long / long.square().sum(1, keepdim=True).sqrt())


@torch.no_grad()
def test_scores_are_those_of_the_head_and_the_nearest_axis_is_the_largest(backbone, image):
    features, head = PixelFeatures(backbone, 5), torch.nn.Conv2d(5, 3, 1)
    found = ClusterScores(features, head)(image, coordinates_of(image))
    assert found.shape == (2, 3, 16, 24)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, head(features(image, coordinates_of(image))))
    distances = torch.stack([(found - axis[:, None, None]).square().sum(1) for axis in torch.eye(3)])
    assert torch.equal(distances.argmin(0), found.argmax(1))
