import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from contextseg import predictor as predictor_module
from contextseg.clustering.own_centers import own_centers
from contextseg.errors import DataError
from contextseg.methods import METHODS
from contextseg.methods.lab import Lab
from contextseg.methods.method import Method
from contextseg.methods.picie import Picie
from contextseg.predictor import Predictor
from contextseg.settings import make_settings

SETTINGS = make_settings({"n_classes": 4, "method": "lab", "data": {"image_px": 32}, "views": {"frame_px": 32}})


class Patchify(nn.Module):
    """Unit vectors of 4 x 4 patches: nothing of a cell depends on the others."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1)))

    def forward(self, image, _coordinates):
        return F.normalize(F.conv2d(image - 0.5, self.weight, stride=4), dim=1)


def centers(n_clusters, dim=6):
    return F.normalize(torch.randn(n_clusters, dim, generator=torch.Generator().manual_seed(2)), dim=1)


def patchify_predictor(n_clusters=4, **options):
    return Predictor(Method(Patchify(), SETTINGS), centers(n_clusters), SETTINGS, **options)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def score_in_turn(predictor, images):
    """Return the scores of each image, those of one size in a row looked at together."""
    together = predictor.alike(map(predictor.resized, images), lambda resized: resized)
    return [scores for some in together for scores in predictor.score_together(some)]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 7), (9, 1), (17, 301), (33, 47), (64, 32), (400, 40)])
def test_any_size_gives_a_map_of_that_size(height, width):
    predictor = patchify_predictor(tile_px=64, overlap_px=32)
    prediction = predictor.predict(noise(height, width))
    assert prediction.clusters.shape == prediction.confidence.shape == (height, width)
    assert prediction.clusters.dtype == np.uint8
    assert prediction.confidence.dtype == np.float32
    assert prediction.clusters.max() < 4
    assert prediction.confidence.min() >= 1 / 4
    assert prediction.confidence.max() <= 1


def test_arrays_that_run_backwards_or_may_not_be_written_are_images_too():
    """At the very size that they are looked at in, so that nothing is resized: BGR turned round, a mirror image."""
    predictor = patchify_predictor(tile_px=64, overlap_px=32)
    size = predictor.resized(noise(32, 64)).shape[1:]
    image = noise(*size)
    fixed = image.copy()
    fixed.flags.writeable = False
    for given in (image[..., ::-1], image[:, ::-1], fixed):
        assert given.shape[:2] == tuple(size)
        assert torch.equal(predictor.score(given), predictor.score(given.copy()))


@pytest.mark.parametrize(("tile_px", "overlap_px"), [(64, 32), (96, 32), (64, 0), (128, 64), (32, 0)])
@pytest.mark.parametrize(("height", "width"), [(17, 301), (290, 33), (32, 416)])
def test_tiles_give_what_the_whole_gives(height, width, tile_px, overlap_px):
    image = noise(height, width)
    whole = patchify_predictor(tile_px=4096).score(image)
    tiled = patchify_predictor(tile_px=tile_px, overlap_px=overlap_px).score(image)
    torch.testing.assert_close(tiled, whole, atol=1e-6, rtol=0)


def test_scores_are_those_of_the_resized_image():
    """The same by hand: PIL to 32 x 64, patches, distance to each centre."""
    image = noise(50, 104)  # 104 * 32 / 50 = 66.6, and the nearest multiple of 32 is 64
    small = Image.fromarray(image).resize((64, 32), Image.Resampling.BICUBIC)
    pixels = torch.from_numpy(np.array(small)).permute(2, 0, 1)[None].float() / 255
    points = Patchify()(pixels, None)[0]
    found = patchify_predictor().score(image)
    assert found.shape == (4, 8, 16)
    squares = torch.stack([(points - c[:, None, None]).square().sum(0) for c in centers(4)])
    torch.testing.assert_close(1 - 2 * found, squares, atol=1e-5, rtol=0)


@pytest.mark.parametrize("at_once", [1, 2 * 32 * 64, 2**20])
def test_many_images_get_the_scores_of_each(monkeypatch, at_once):
    """Sizes that change and come back; (50, 104) and (25, 52) are looked at in one size, (300, 50) in tiles."""
    sizes = [(50, 104), (25, 52), (50, 104), (300, 50), (300, 50), (32, 32), (50, 104)]
    images = [noise(*size, seed=seed) for seed, size in enumerate(sizes)]
    monkeypatch.setattr(predictor_module, "pixels_at_once", lambda _: at_once)
    predictor, together = patchify_predictor(tile_px=64, overlap_px=32), []
    embed_tile = predictor.embed_tile
    monkeypatch.setattr(
        predictor, "embed_tile", lambda *tile, **whole: together.append(len(tile[0])) or embed_tile(*tile, **whole)
    )
    found = score_in_turn(predictor, images)
    assert max(together) == {1: 1, 2**12: 2, 2**20: 3}[at_once]
    for image, scores in zip(images, found, strict=True):
        torch.testing.assert_close(scores, patchify_predictor(tile_px=64, overlap_px=32).score(image))


@pytest.mark.parametrize("tile_px", [64, 4096])
def test_scores_follow_from_the_embeddings(tile_px):
    image = noise(50, 300)
    found = patchify_predictor(tile_px=tile_px, overlap_px=32)
    embedded = found.embed(image)
    assert embedded.shape == (6, 8, 48)
    squares = torch.stack([(embedded - c[:, None, None]).square().sum(0) for c in centers(4)])
    torch.testing.assert_close(1 - 2 * found.score(image), squares, atol=1e-5, rtol=0)


def test_half_precision_rounds_the_embeddings_and_nothing_after_them(monkeypatch):
    monkeypatch.setattr("contextseg.precision.cpu_computes_bf16", lambda: True)  # others emulate it
    full, half = patchify_predictor(), patchify_predictor(half=True)
    image = noise(32, 64)
    exact, rounded = full.embed(image), half.embed(image)
    assert rounded.dtype == torch.float32
    assert 1e-4 < (exact - rounded).abs().max() < 0.02  # bfloat16 has 8 binary digits
    squares = torch.stack([(rounded - c[:, None, None]).square().sum(0) for c in centers(4)])
    lengths = rounded.square().sum(0)  # not quite 1
    torch.testing.assert_close(lengths - 2 * half.score(image), squares, atol=1e-5, rtol=0)


def context_predictor(*, own_centers, **options):
    settings = make_settings(
        {
            "n_classes": 3,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": {"name": "test_resnet"},
            "context": {"embedding": {"dim": 8, "own_centers": own_centers}},
        }
    )
    torch.manual_seed(0)
    return Predictor(METHODS["context"](settings), centers(3, 8 + 64), settings, **options)


@pytest.mark.parametrize("size", [(64, 96), (64, 640), (640, 64)])
def test_a_context_run_tells_what_it_embeds(size):
    """Long images, too: each tile's features are scaled by the whole image's, and sums over tiles are linear."""
    predictor = context_predictor(own_centers=False, tile_px=128, overlap_px=32)
    torch.nn.init.normal_(predictor.embedding.film.weight)
    image = noise(*size)
    image[: size[0] // 2, : size[1] // 2] //= 4
    expected = torch.einsum("kd,dhw->khw", centers(3, 8 + 64), predictor.embed(image)) - 0.5
    torch.testing.assert_close(predictor.score(image), expected, atol=1e-5, rtol=0)


def test_a_patch_of_one_colour_is_predicted_where_it_lies():
    image = np.zeros((32, 64, 3), np.uint8)
    image[8:16, 40:60] = (255, 0, 0)
    colours = torch.tensor([[0.0, 0, 0, 0, 0], [0.5324, 0.8009, 0.6720, 0, 0]])  # Lab / 100 of black and of red
    lab = Lab(SETTINGS)
    lab.embedding.position_weight = 0.0
    clusters = Predictor(lab, colours, SETTINGS).predict(image).clusters
    expected = np.zeros((32, 64), np.uint8)
    expected[8:16, 40:60] = 1
    # Between four cells the scores of three outvote the corner: 3 pixels of each of the 4 corners at most.
    wrong = np.argwhere(clusters != expected)
    assert len(wrong) <= 12
    corners = np.array([(y, x) for y in (8, 15) for x in (40, 59)])
    assert all(np.abs(corners - pixel).max(1).min() <= 1 for pixel in wrong)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((4, 5), np.uint8),
        np.zeros((4, 5, 4), np.uint8),
        np.zeros((3, 4, 5), np.uint8),
        np.zeros((4, 5, 3), np.float32),
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((1, 4, 5, 3), np.uint8),
    ],
    ids=lambda image: f"{image.shape}-{image.dtype}",
)
def test_an_array_that_is_no_image(image):
    with pytest.raises(DataError, match=r"got an array of shape \(.*\) and dtype .*, expected \(H, W, 3\) uint8 RGB"):
        patchify_predictor().predict(image)


def test_an_array_that_is_not_contiguous():
    image = noise(40, 56)
    found = patchify_predictor().predict(image[::2, ::-1])
    expected = patchify_predictor().predict(np.ascontiguousarray(image[::2, ::-1]))
    assert np.array_equal(found.clusters, expected.clusters)


def test_prediction_is_in_evaluation_mode_and_repeats():
    settings = make_settings(
        {
            "n_classes": 3,
            "method": "picie",
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": {"name": "test_resnet"},
            "picie": {"dim": 6},
        }
    )
    method = Picie(settings).train()
    predictor = Predictor(method, centers(3), settings)
    first = predictor.predict(noise(70, 90))
    predictor.predict(noise(70, 90, seed=1))
    again = predictor.predict(noise(70, 90))
    assert not method.embedding.training
    assert np.array_equal(first.clusters, again.clusters)
    assert np.array_equal(first.confidence, again.confidence)


@pytest.mark.parametrize("own", [True, False])
def test_context_tells_by_the_centres_of_each_image(own):
    predictor = context_predictor(own_centers=own)
    images = [noise(64, 96, seed=1), noise(64, 96, seed=2)]
    for image, found in zip(images, score_in_turn(predictor, images), strict=True):
        points_ND = predictor.embed(image).flatten(1).T
        of_image_KD = own_centers(points_ND[None], centers(3, 8 + 64))[0] if own else centers(3, 8 + 64)
        torch.testing.assert_close(found.flatten(1).T, points_ND @ of_image_KD.T - 0.5, atol=1e-5, rtol=0)


def test_a_long_image_is_told_by_the_centres_of_all_its_tiles():
    """In tiles that see nothing beyond themselves, the centres are those of the whole, but for the order of sums."""
    method = Method(Patchify(), SETTINGS)
    method.own_centers, method.centers_within = True, own_centers
    image = noise(32, 32 * 12)
    image[:, :96] //= 3
    whole, tiled = (
        Predictor(method, centers(4), SETTINGS, tile_px=px, overlap_px=32 if px == 64 else 0).score(image)
        for px in (4096, 64)
    )
    torch.testing.assert_close(tiled, whole, atol=1e-5, rtol=0)
    predictor = Predictor(method, centers(4), SETTINGS, tile_px=64, overlap_px=32)
    among_others = score_in_turn(predictor, [noise(32, 64), image, noise(32, 640)])[1]
    torch.testing.assert_close(among_others, whole, atol=1e-5, rtol=0)
    alone = Predictor(method, centers(4), SETTINGS).score(image[:, :96])
    torch.testing.assert_close(
        predictor.score(image[:, :64]), Predictor(method, centers(4), SETTINGS).score(image[:, :64])
    )
    assert (alone - whole[..., :24]).abs().max() > 0.01


def test_a_tile_that_cannot_be_embedded_leaves_no_centres_behind(monkeypatch):
    method = Method(Patchify(), SETTINGS)
    method.own_centers, method.centers_within = True, own_centers
    predictor = Predictor(method, centers(4), SETTINGS, tile_px=64, overlap_px=0)
    before = predictor.score(noise(32, 64))
    with monkeypatch.context() as patch:
        patch.setattr(predictor, "score_tile", lambda *_, **_whole: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predictor.score(noise(32, 640, seed=1))
    assert torch.equal(predictor.score(noise(32, 64)), before)
