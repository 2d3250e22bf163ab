"""Run folders of other versions of contextseg."""

import json
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from contextseg.errors import RunError
from contextseg.run_folder import RunFolder
from contextseg.settings import make_settings
from contextseg.training.fit import fit
from contextseg.verbs import evaluate, predict

SETTINGS = make_settings({"n_classes": 4, "method": "lab", "data": {"image_px": 32}, "views": {"frame_px": 32}})


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> RunFolder:
    return fit(scenes, tmp_path / "run", SETTINGS)


def change_meta(run: RunFolder, **values: object) -> None:
    meta = run.read_json("meta.json") | values
    run.write_json("meta.json", {key: value for key, value in meta.items() if value is not None})


def test_a_newer_one_is_refused_whatever_its_settings_are(scenes: Path, tmp_path: Path, run: RunFolder) -> None:
    change_meta(run, format=2, contextseg="9.1")
    (run.path / "settings.yaml").write_text("of: another time\n")
    message = r"run: was made by contextseg 9\.1, in format 2; this version reads formats up to 1, so install that one"
    with pytest.raises(RunError, match=message):
        predict(run.path, scenes, tmp_path / "masks")
    with pytest.raises(RunError, match=message):
        evaluate(run.path, scenes)
    with pytest.raises(RunError, match=message):
        fit(scenes, run.path, SETTINGS, resume=True)
    assert not (tmp_path / "masks").exists()


def test_one_from_before_formats_were_counted_is_read(scenes: Path, tmp_path: Path, run: RunFolder) -> None:
    change_meta(run, format=None)
    save_file(load_file(run.weights), run.weights)  # without the number of epochs
    assert "format" not in json.loads((run.path / "meta.json").read_text())
    assert predict(run.path, scenes, tmp_path / "masks") == []
    with pytest.raises(RunError, match="this run is finished"):
        fit(scenes, run.path, SETTINGS, resume=True)
    longer = SETTINGS.model_copy(update={"training": SETTINGS.training.model_copy(update={"epochs": 9})})
    fit(scenes, run.path, longer, resume=True)


def test_damaged_weights_are_made_again(scenes: Path, run: RunFolder) -> None:
    before = run.weights.read_bytes()
    run.weights.write_bytes(before[:50])
    with pytest.raises(RunError, match=r"weights\.safetensors: is damaged: .*; delete it, and --resume makes it again"):
        fit(scenes, run.path, SETTINGS, resume=True)
    run.weights.unlink()
    assert fit(scenes, run.path, SETTINGS, resume=True).weights.read_bytes() == before
