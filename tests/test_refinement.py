import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from contextseg import refinement
from contextseg.methods.lab import Lab
from contextseg.methods.method import Method
from contextseg.pixel_clusters import best_cluster
from contextseg.predictor import Predictor
from contextseg.refinement import flip_averaged, refined
from contextseg.settings import make_settings

SETTINGS = make_settings({"n_classes": 3, "method": "lab", "data": {"image_px": 64}, "views": {"frame_px": 64}})


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


class Patches(nn.Module):
    """A linear function of 4 x 4 patches; a symmetric one is equivariant under the flip, since the grid is."""

    def __init__(self, *, symmetric):
        super().__init__()
        weight = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        self.register_buffer("weight", weight + weight.flip(-1) if symmetric else weight)

    def forward(self, image, _coordinates):
        return F.conv2d(image, self.weight, stride=4)


def predictor(*, symmetric):
    centers = torch.randn(3, 5, generator=torch.Generator().manual_seed(2))
    return Predictor(Method(Patches(symmetric=symmetric), SETTINGS), centers, SETTINGS)


@pytest.mark.parametrize(("height", "width"), [(64, 96), (50, 111)])
def test_flip_averaging_changes_nothing_where_the_embedding_is_equivariant(height, width):
    image, scorer = noise(height, width), predictor(symmetric=True).score
    plain, averaged = scorer(image), flip_averaged(scorer)(image)
    torch.testing.assert_close(averaged, plain, atol=1e-4, rtol=1e-4)
    assert np.array_equal(
        best_cluster(averaged, (height, width)).clusters, best_cluster(plain, (height, width)).clusters
    )


def test_flip_averaging_is_the_mean_of_both_looks_and_treats_left_and_right_alike():
    image, scorer = noise(64, 96), predictor(symmetric=False).score
    averaged = flip_averaged(scorer)
    mirrored = np.ascontiguousarray(image[:, ::-1])
    assert not torch.allclose(averaged(image), scorer(image), atol=1e-2)
    torch.testing.assert_close(averaged(image), (scorer(image) + scorer(mirrored).flip(2)) / 2)
    torch.testing.assert_close(averaged(mirrored), averaged(image).flip(2))


def slow_guided_filter(guide_HW3, scores_HW, reach, eps):
    """He et al. for colour guides: at each pixel the mean slopes and offset of the windows that hold it."""
    height, width, _ = guide_HW3.shape

    def window(values, y, x):
        rows, columns = (
            np.clip(np.arange(at - reach, at + reach + 1), 0, side - 1) for at, side in ((y, height), (x, width))
        )
        return values[np.ix_(rows, columns)].reshape((2 * reach + 1) ** 2, -1)

    line_HW4 = np.zeros((height, width, 4))
    for y, x in np.ndindex(height, width):
        guide, scores = window(guide_HW3, y, x), window(scores_HW, y, x)[:, 0]
        covariance = np.cov(guide.T, bias=True) + eps * np.eye(3)
        slopes = np.linalg.solve(covariance, ((guide - guide.mean(0)) * (scores - scores.mean())[:, None]).mean(0))
        line_HW4[y, x] = *slopes, scores.mean() - slopes @ guide.mean(0)
    return np.array([[window(line_HW4, y, x).mean(0) for x in range(width)] for y in range(height)])


def test_the_filter_is_that_of_the_paper(monkeypatch):
    monkeypatch.setattr(refinement, "KERNEL_PX", 9)  # every fourth pixel: 3 x 3 of them
    monkeypatch.setattr(refinement, "EPS", 0.05)  # large enough for float32
    image = noise(24, 36)
    scores_Khw = torch.randn(2, 6, 9, generator=torch.Generator().manual_seed(3))
    found = refined(lambda _: scores_Khw)(image)
    at_pixels = F.interpolate(scores_Khw[None], size=(24, 36), mode="bilinear", align_corners=False)[0]
    for one, scores in zip(found.numpy(), at_pixels.double().numpy(), strict=True):
        coarse = torch.from_numpy(slow_guided_filter(image[::4, ::4] / 255, scores[::4, ::4], 1, 0.05))
        lines_4HW = F.interpolate(coarse.movedim(-1, 0)[None], size=(24, 36), mode="bilinear", align_corners=False)[0]
        expected = np.einsum("cHW,HWc->HW", lines_4HW[:3].numpy(), image / 255) + lines_4HW[3].numpy()
        np.testing.assert_allclose(one, expected, atol=1e-4)


def test_refinement_keeps_the_scores_of_an_image_of_one_colour():
    image = np.full((50, 70, 3), (200, 30, 90), np.uint8)
    centers = torch.tensor([[0.2, 0.1, 0.4, 0, 0], [0.9, 0, 0, 0, 0], [0.5, 0.5, 0, 0, 0]])
    lab = Lab(SETTINGS)
    lab.embedding.position_weight = 0.0
    scorer = Predictor(lab, centers, SETTINGS).score
    plain, filtered = scorer(image), refined(scorer)(image)
    assert filtered.shape == (3, 4 * plain.shape[1], 4 * plain.shape[2])
    torch.testing.assert_close(filtered, plain[:, :1, :1].expand_as(filtered), atol=1e-5, rtol=1e-5)


def test_refinement_keeps_scores_that_are_the_same_everywhere():
    scores_Khw = torch.tensor([0.3, -0.7]).view(2, 1, 1).expand(2, 16, 24)
    filtered = refined(lambda _: scores_Khw)(noise(64, 96))
    torch.testing.assert_close(filtered, scores_Khw[:, :1, :1].expand(2, 64, 96), atol=1e-5, rtol=1e-5)


def test_a_border_between_clusters_moves_to_the_edge_of_the_image():
    # The image changes at column 50, the cells say at column 48, and between cells the scores change gradually.
    image = np.zeros((64, 96, 3), np.uint8)
    image[:, 50:] = 255
    right_HW = np.zeros((64, 96), np.uint8)
    right_HW[:, 50:] = 1
    scores_Khw = torch.zeros(2, 16, 24)
    scores_Khw[0, :, :12], scores_Khw[1, :, 12:] = 1, 1
    wrong = [
        int((best_cluster(scorer(image), (64, 96)).clusters != right_HW).sum())
        for scorer in (lambda _: scores_Khw, refined(lambda _: scores_Khw))
    ]
    assert wrong == [2 * 64, 0]


def test_the_guide_is_the_image_at_the_size_of_the_network():
    small = noise(64, 96)
    large = np.asarray(Image.fromarray(small).resize((192, 128), Image.Resampling.NEAREST))
    scores_Khw = torch.randn(2, 16, 24, generator=torch.Generator().manual_seed(4))
    assert refined(lambda _: scores_Khw)(large).shape == refined(lambda _: scores_Khw)(small).shape == (2, 64, 96)
