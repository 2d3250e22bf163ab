"""A cluster that becomes several: its own pixels move, names stay, the run that it is of is left alone."""

from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from contextseg import name
from contextseg.classes import Classes
from contextseg.cli import app
from contextseg.clustering.kmeans import scores
from contextseg.clustering.own_centers import own_centers
from contextseg.data.image_files import list_images
from contextseg.data.images import read_image
from contextseg.errors import ClassesError, RunError, TrainingError
from contextseg.methods.lab import Lab
from contextseg.predictor import Predictor
from contextseg.run_folder import RunFolder
from contextseg.settings import make_settings
from contextseg.splitting import _clusters, split
from contextseg.training.fit import fit


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> RunFolder:
    small = {"data": {"image_px": 64}, "views": {"frame_px": 64}, "clustering": {"max_points": 4000}}
    return fit(scenes, tmp_path / "run", make_settings({"n_classes": 3, "method": "lab", **small}))


def test_the_pixels_of_the_cluster_move_to_its_parts(run: RunFolder, scenes: Path, tmp_path: Path) -> None:
    name(run.path, {1: "ground"})
    files = {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    made = split(run.path, scenes, 1, tmp_path / "split", into=3)
    assert {path.name: path.read_bytes() for path in run.path.iterdir() if path.is_file()} == files
    classes = Classes.read(made.classes, 5)
    assert [entry.name for entry in classes.entries] == ["class 0", "ground", "class 2", "class 3", "class 4"]
    assert made.meta()["split"] == {"run": str(run.path), "cluster": 1, "into": 3}

    before, after = Predictor.load(run), Predictor.load(made)
    torch.testing.assert_close(after.centers[[0, 2]], before.centers[[0, 2]])
    images = [read_image(path) for path in list_images(scenes)]
    old, new = (np.stack([predictor.predict(image).clusters for image in images]) for predictor in (before, after))
    parts = np.isin(new, [1, 3, 4])
    assert parts[old == 1].mean() > 0.9
    assert (new == old)[old != 1].mean() > 0.8
    assert (new == old)[(old != 1) & ~parts].all()
    assert {1, 3, 4} <= set(new.ravel().tolist())


def test_the_parts_are_nearer_to_the_points_than_the_cluster(run: RunFolder, scenes: Path, tmp_path: Path) -> None:
    before, after = Predictor.load(run), Predictor.load(split(run.path, scenes, 0, tmp_path / "split"))
    points = torch.cat([before.embed(read_image(path)).flatten(1).T for path in list_images(scenes)])
    own = points[scores(points, before.centers).argmax(1) == 0]
    parts = after.centers[[0, 3]]
    distances = torch.cdist(own, parts).min(1).values.square().sum()
    assert distances < 0.8 * torch.cdist(own, before.centers[:1]).square().sum()


def test_the_cells_of_a_cluster_are_those_that_are_shown() -> None:
    settings = make_settings({"n_classes": 2, "method": "lab"})
    method = Lab(settings)
    method.own_centers, method.centers_within = True, own_centers
    angles = torch.tensor([25.0] * 8 + [47.0, 95.0, 95.0]).deg2rad()
    points, centers = torch.stack([angles.cos(), angles.sin()], dim=1), torch.eye(2)
    expected = scores(points, own_centers(points[None], centers)[0]).argmax(1)
    assert _clusters(method, points, centers).tolist() == expected.tolist() == [0] * 9 + [1] * 2
    assert _clusters(Lab(settings), points, centers).tolist() == [0] * 8 + [1] * 3


def test_errors_leave_nothing_behind(run: RunFolder, scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "split"
    with pytest.raises(ClassesError, match="there is no cluster 3; ids go from 0 to 2"):
        split(run.path, scenes, 3, out)
    with pytest.raises(TrainingError, match="5000"):
        split(run.path, scenes, 0, out, into=5000)
    assert not out.exists()
    with pytest.raises(RunError, match="not empty"):
        split(run.path, scenes, 0, run.path)


def test_a_split_run_is_not_trained_on(scenes: Path, tmp_path: Path) -> None:
    small = {"data": {"image_px": 64}, "views": {"frame_px": 64}, "backbone": {"name": "test_resnet"}}
    settings = make_settings({"n_classes": 3, "method": "picie", "training": {"epochs": 1, "batch_size": 4}, **small})
    made = split(fit(scenes, tmp_path / "run", settings).path, scenes, 0, tmp_path / "split")
    longer = made.settings().model_copy(update={"training": settings.training.model_copy(update={"epochs": 2})})
    with pytest.raises(RunError, match="made by `contextseg split`, which leaves no checkpoint"):
        fit(scenes, made.path, longer, resume=True)


def test_on_the_command_line(run: RunFolder, scenes: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["split", str(run.path), str(scenes), "2", "-o", str(tmp_path / "split")])
    assert result.exit_code == 0, result.output
    assert "class 3" in result.output
