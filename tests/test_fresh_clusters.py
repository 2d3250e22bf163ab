from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console

from contextseg.data.scenes import write_scenes
from contextseg.errors import DataError
from contextseg.fresh_clusters import cluster_afresh
from contextseg.predictor import Predictor
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings
from contextseg.training.fit import fit

QUIET = Console(quiet=True)


def tiny(method: str, **values: object) -> Settings:
    return make_settings(
        {
            "n_classes": 4,
            "method": method,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "clustering": {"max_points": 1000, "n_restarts": 1},
        }
        | values
    )


@pytest.mark.parametrize("method", ["lab", "picie"])
def test_on_the_training_images_they_are_what_fit_has_found(scenes: Path, tmp_path: Path, method: str) -> None:
    trained = {"backbone": {"name": "test_resnet"}, "training": {"epochs": 1, "batch_size": 4}}
    run = fit(scenes, tmp_path / "run", tiny(method, **(trained if method == "picie" else {})))
    predictor = Predictor.load(run)
    torch.testing.assert_close(cluster_afresh(predictor, scenes, QUIET), predictor.centers, atol=1e-3, rtol=0)


def test_other_images_give_other_clusters_and_the_run_keeps_its_own(scenes: Path, tmp_path: Path) -> None:
    run = fit(scenes, tmp_path / "run", tiny("lab"))
    predictor = Predictor.load(run)
    before = predictor.centers.clone()
    write_scenes(tmp_path / "others", 5, seed=7, size=(64, 96))
    fresh = cluster_afresh(predictor, tmp_path / "others", QUIET)
    assert fresh.shape == before.shape
    assert not torch.allclose(fresh, before, atol=1e-2)
    assert torch.equal(predictor.centers, before)
    assert torch.equal(Predictor.load(RunFolder.open(run.path)).centers, before)


def test_images_that_cannot_be_read_are_left_out_and_named(
    scenes: Path, hard_folder: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    predictor = Predictor.load(fit(scenes, tmp_path / "run", tiny("lab")))
    root, reasons = hard_folder
    console = Console(file=StringIO(), width=500)
    assert torch.isfinite(cluster_afresh(predictor, root, console)).all()
    told = console.file.getvalue()  # type: ignore[attr-defined]
    assert {name for name in reasons if f"left out {root / name}" in told} == reasons.keys() - {"one_pixel.png"}


def test_a_folder_without_images(scenes: Path, tmp_path: Path) -> None:
    predictor = Predictor.load(fit(scenes, tmp_path / "run", tiny("lab")))
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no images found"):
        cluster_afresh(predictor, tmp_path / "empty", QUIET)
