from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console

from contextseg import probes
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError, SettingsError
from contextseg.methods.lab import Lab
from contextseg.pixel_clusters import best_cluster
from contextseg.predictor import Predictor
from contextseg.probes import PROBES, fit_probe, sample_pixels
from contextseg.settings import make_settings

SETTINGS = make_settings({"n_classes": 2, "method": "lab", "data": {"image_px": 32}, "views": {"frame_px": 32}})
QUIET = Console(quiet=True)


def separable(n, seed):
    """Unit vectors around 5 axes that are no class's alone: each class has two of them but the last."""
    rng = np.random.default_rng(seed)
    axis_N = rng.integers(0, 5, n)
    points = np.eye(5)[axis_N] + rng.normal(0, 0.1, (n, 5))
    return F.normalize(torch.tensor(points, dtype=torch.float32), dim=1), torch.tensor(axis_N // 2)


def accuracy(probe, points, labels):
    return float((probe(points).argmax(1) == labels).double().mean())


@pytest.mark.parametrize("name", PROBES)
def test_separable_embeddings_are_told_apart(name):
    probe = PROBES[name](*separable(400, seed=0), 3)
    assert accuracy(probe, *separable(300, seed=1)) == 1.0


@pytest.mark.parametrize("name", PROBES)
def test_noise_is_guessed_by_chance(name):
    generator = torch.Generator().manual_seed(0)
    points, labels = torch.randn(6000, 8, generator=generator), torch.randint(4, (6000,), generator=generator)
    probe = PROBES[name](points[:3000], labels[:3000], 4)
    # 1/4 with a standard deviation of sqrt(1/4 * 3/4 / 3000) = 0.0079: 4 of them
    assert accuracy(probe, points[3000:], labels[3000:]) == pytest.approx(0.25, abs=0.032)


def test_linear_probe_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    generator = torch.Generator().manual_seed(1)
    points = torch.randn(500, 4, generator=generator)
    logits = points @ torch.randn(4, 3, generator=generator) + torch.randn(500, 3, generator=generator)
    labels = logits.argmax(1)
    # sum of losses * C + |W|^2 / 2 is mean of losses + 1e-5 |W|^2, times C * N, for C * N * 1e-5 = 1 / 2
    oracle = LogisticRegression(C=0.5 / 1e-5 / 500, tol=1e-8, max_iter=10_000).fit(points.numpy(), labels.numpy())
    expected = oracle.predict_proba(points.numpy())
    found = PROBES["linear"](points, labels, 3)(points).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_knn_probe_is_that_of_scikit_learn(monkeypatch):
    from sklearn.neighbors import KNeighborsClassifier

    monkeypatch.setattr(probes, "_SIMILARITIES", 5000)  # several chunks
    generator = torch.Generator().manual_seed(2)
    points, labels = torch.randn(200, 6, generator=generator), torch.randint(3, (200,), generator=generator)
    oracle = KNeighborsClassifier(probes.NEIGHBOURS).fit(points.numpy(), labels.numpy())
    asked = torch.randn(90, 6, generator=generator)
    np.testing.assert_allclose(PROBES["knn"](points, labels, 3)(asked), oracle.predict_proba(asked.numpy()), atol=1e-6)


def test_knn_probe_of_fewer_points_than_neighbours_asks_all():
    probe = PROBES["knn"](torch.eye(3), torch.tensor([0, 2, 2]), 3)
    assert probe(torch.eye(3)).tolist() == [pytest.approx([1 / 3, 0, 2 / 3])] * 3


def predictor():
    return Predictor(Lab(SETTINGS), torch.rand(2, 5), SETTINGS)


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """Two splits of images whose left part is red, class 1, and whose right part is blue, class 0; a row is ignored."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 3), ("val", 2)):
        for index in range(n):
            image, label = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), np.uint8)
            width = int(rng.integers(20, 40)) // 4 * 4
            image[:, :width, 0], image[:, width:, 2] = rng.integers(150, 255, 2)
            label[:, :width] = 1
            label[5] = 255
            for kind, array in (("images", image), ("labels", label)):
                path = tmp_path / kind / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(path)
    return tmp_path


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_finds_the_classes_in_other_images(colours: Path, name: str):
    console = Console(file=StringIO(), width=100)
    own = predictor()
    before = [own.centers.clone(), *(value.clone() for value in own.embedding.state_dict().values())]
    scorer = fit_probe(name, own, open_labelled(colours, "train"), console)
    assert f"the {name} probe reads the labels of 3 images" in console.file.getvalue()
    labelled = open_labelled(colours, "val")
    for index in range(len(labelled)):
        image, label = labelled.read(index, shorter_px=32)
        found = best_cluster(scorer(image), label.shape).clusters
        assert (found != label)[label != 255].mean() < 0.05  # the network sees 32 x 64 pixels: edges are soft
    assert all(map(torch.equal, before, [own.centers, *own.embedding.state_dict().values()]))


def test_embeddings_at_pixels_are_those_of_the_resized_map():
    embedded = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(3))
    rows, columns = (places.ravel() for places in np.mgrid[:17, :23])
    found = probes._at_pixels(embedded, rows, columns, (17, 23))
    expected = F.interpolate(embedded[None], size=(17, 23), mode="bilinear", align_corners=False)[0]
    torch.testing.assert_close(found, expected.flatten(1).T, atol=1e-5, rtol=0)


def test_sampled_pixels_have_their_own_labels(colours: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes, "PIXELS", 10**6)
    points, labels = sample_pixels(predictor(), open_labelled(colours, "val"), QUIET)
    assert len(points) == len(labels) == 2 * 39 * 60  # all but the ignored row
    is_red = points[:, 2] > 0  # b of Lab: red is above 0, blue below
    assert (is_red == (labels == 1)).double().mean() > 0.95


def test_few_pixels_are_drawn_from_each_image(colours: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(probes, "PIXELS", 30)
    points, labels = sample_pixels(predictor(), open_labelled(colours, "train"), QUIET)
    again, _ = sample_pixels(predictor(), open_labelled(colours, "train"), QUIET)
    assert points.shape == (30, 5)
    assert torch.equal(points, again)
    assert set(labels.tolist()) == {0, 1}


def test_errors(colours: Path):
    with pytest.raises(SettingsError, match="probe: got 'magic', expected one of linear, knn"):
        fit_probe("magic", predictor(), open_labelled(colours, "train"), QUIET)
    for path in (colours / "labels" / "train").iterdir():
        Image.fromarray(np.full((40, 60), 255, np.uint8)).save(path)
    with pytest.raises(DataError, match="no labelled pixel in the split that the probe reads"):
        fit_probe("linear", predictor(), open_labelled(colours, "train"), QUIET)
