"""Windows of a large image against the whole image at once."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from contextseg import windows
from contextseg.clustering.own_centers import own_centers
from contextseg.data.scenes import render_scene
from contextseg.errors import SettingsError
from contextseg.methods import METHODS
from contextseg.methods.method import Method
from contextseg.predictor import Predictor
from contextseg.settings import make_settings
from contextseg.windows import check_scale, predict_windows


class Patchify(nn.Module):
    """Unit vectors of 4 x 4 patches and of where they lie: nothing of a cell depends on the others."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.register_buffer("weight", torch.randn(6, 3, 4, 4, generator=generator))
        self.register_buffer("place", torch.randn(6, 2, 1, 1, generator=generator))

    def forward(self, image, coordinates):
        return F.normalize(F.conv2d(image - 0.5, self.weight, stride=4) + F.conv2d(coordinates, self.place), dim=1)


def patchify_predictor(shorter_px=32, **tiles):
    settings = make_settings(
        {"n_classes": 4, "method": "lab", "data": {"image_px": shorter_px}, "views": {"frame_px": 32}}
    )
    centers = F.normalize(torch.randn(4, 6, generator=torch.Generator().manual_seed(2)), dim=1)
    return Predictor(Method(Patchify(), settings), centers, settings, **tiles)


def noise(height, width):
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def joined(predictor, image, scale=1.0, is_valid=None):
    """Return the clusters of all windows, which must cover the image once."""
    clusters, times = np.zeros(image.shape[:2], int), np.zeros(image.shape[:2], int)
    found_windows = predict_windows(predictor, lambda y, x: image[y, x], image.shape[:2], scale, is_valid)
    for rows, columns, found in found_windows:
        clusters[rows, columns] = found
        times[rows, columns] += 1
    assert (times == 1).all()
    return clusters


@pytest.mark.parametrize("strip_px", [512, 8192])
@pytest.mark.parametrize(("tile_px", "overlap_px"), [(96, 32), (64, 0), (128, 64), (2048, 128)])
@pytest.mark.parametrize(("height", "width"), [(96, 1152), (704, 64), (160, 544)])
def test_windows_give_what_the_whole_gives(monkeypatch, height, width, tile_px, overlap_px, strip_px):
    monkeypatch.setattr(windows, "_STRIP_PX", strip_px)
    monkeypatch.setattr(windows, "_BAND_VALUES", 50_000)
    image = noise(height, width)
    whole = patchify_predictor(min(height, width), tile_px=4096).predict(image).clusters
    assert (joined(patchify_predictor(tile_px=tile_px, overlap_px=overlap_px), image) == whole).mean() > 0.9999


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [
        *((*size, scale) for size in ((133, 1117), (1, 5), (31, 33)) for scale in (0.3, 0.5, 0.77, 1.0, 1.9)),
        *((*size, 10.0) for size in ((1, 5), (31, 33), (115, 20))),
    ],
)
def test_tiles_and_strips_do_not_show_at_any_scale(monkeypatch, height, width, scale):
    image = noise(height, width)
    whole = joined(patchify_predictor(tile_px=4096), image, scale)
    monkeypatch.setattr(windows, "_STRIP_PX", 300)
    tiled = joined(patchify_predictor(tile_px=64, overlap_px=32), image, scale)
    assert (tiled == whole).mean() > 0.995


def test_half_the_scale_is_the_image_of_half_the_size():
    """The same by hand: PIL to half the size, the whole at once, its scores brought to the image's size."""
    image = noise(128, 192)
    half = np.asarray(Image.fromarray(image).resize((96, 64), Image.Resampling.BICUBIC))
    scores = patchify_predictor(64).score(half)
    expected = F.interpolate(scores[None], size=(128, 192), mode="bilinear", align_corners=False)[0].argmax(0).numpy()
    assert (joined(patchify_predictor(tile_px=32, overlap_px=0), image, 0.5) == expected).mean() > 0.999


@pytest.mark.parametrize("method", ["context", "picie"])
def test_a_network_that_looks_around_has_no_seams(method):
    """Convolutions see other borders in a tile than in the whole; the fade between tiles keeps that out of sight."""
    values = {
        "n_classes": 5,
        "method": method,
        "data": {"image_px": 512},
        "views": {"frame_px": 32},
        "backbone": {"name": "test_resnet"},
    }
    settings = make_settings(values)
    torch.manual_seed(0)
    model = METHODS[method](settings).eval()
    image = np.array(Image.fromarray(render_scene(1, 0, 256, 384).image).resize((768, 512)))
    n_channels = getattr(model.embedding, "n_channels", 128)
    points = Predictor(model, torch.zeros(5, n_channels), settings, tile_px=1024).embed(image).flatten(1).T
    centers = points[torch.linspace(0, len(points) - 1, 5).long()]
    whole = Predictor(model, centers, settings, tile_px=1024).predict(image).clusters
    tiled = joined(Predictor(model, centers, settings, tile_px=256, overlap_px=128), image)
    assert (tiled == whole).mean() >= 0.995
    assert len(np.unique(whole)) >= 3


def test_tiles_are_parts_of_one_image():
    """The global context and the centres are those of all tiles, in each; afterwards an image is a whole again."""
    torch.manual_seed(0)
    values = {"n_classes": 4, "method": "context", "data": {"image_px": 64}, "views": {"frame_px": 64}}
    settings = make_settings({**values, "backbone": {"name": "test_resnet"}, "context": {"embedding": {"dim": 8}}})
    method = METHODS["context"](settings)
    seen = []
    method.embedding.film.register_forward_hook(lambda _layer, inputs, _output: seen.append(inputs[0]))
    predictor = Predictor(method, F.normalize(torch.randn(4, 8 + 64), dim=1), settings, tile_px=64, overlap_px=0)
    image = noise(128, 128)
    centers, centers_within = [], method.centers_within
    method.centers_within = lambda points, own: centers.append(centers_within(points, own)) or centers[-1]
    joined(predictor, image)
    assert len(seen) == 8  # once for the centres, once for the scores
    assert len(centers) == 1
    tiles = [image[y : y + 64, x : x + 64] for y in (0, 64) for x in (0, 64)]
    pixels = torch.from_numpy(np.stack(tiles)).movedim(-1, 1).float() / 255
    with torch.no_grad():
        wholes = F.normalize(method.embedding.backbone(pixels)[-1], dim=1).mean((2, 3))
    for own in seen:
        torch.testing.assert_close(own, wholes.mean(0, keepdim=True), atol=1e-5, rtol=0)
    predictor.score(tiles[0])
    assert len(centers) == 2
    torch.testing.assert_close(seen[-1], wholes[:1], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("scale", "valid_px"), [(1.0, 96), (0.5, 192), (1.0, 256), (1.0, 0)])
def test_what_has_no_data_has_no_say_in_an_images_own_centres(scale, valid_px):
    """By hand: the centres lean towards the cells of the columns with data, and no others."""
    image = noise(int(64 / scale), int(256 / scale))
    image[:, valid_px:] = 200
    valid = np.broadcast_to(np.arange(image.shape[1]) < valid_px, image.shape[:2])
    plain, leaning = (patchify_predictor(int(64 * scale), tile_px=64, overlap_px=0) for _ in range(2))
    leaning.method.own_centers, leaning.method.centers_within = True, own_centers
    half = np.asarray(Image.fromarray(image).resize((256, 64), Image.Resampling.BICUBIC))
    points_DN = patchify_predictor(64, tile_px=512).embed(half)[..., : int(valid_px * scale) // 4].flatten(1)
    before = joined(plain, image, scale)
    plain.centers = own_centers(points_DN.T[None], plain.centers)[0]
    expected = joined(plain, image, scale)
    found = joined(leaning, image, scale, lambda rows, columns: valid[rows, columns])
    assert (found == expected).mean() > 0.999
    assert ((found == before).mean() == 1) == (valid_px == 0)


@pytest.mark.parametrize("scale", [0.0, 0.09, 10.5, -1.0, float("nan")])
def test_a_scale_out_of_range(scale):
    with pytest.raises(SettingsError, match=r"scale: got .*; it must lie in 0\.1\.\.10, such as 1"):
        check_scale(scale)
