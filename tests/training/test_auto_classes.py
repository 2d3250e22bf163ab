"""A run whose number of classes the images decide is the run that is given this number."""

import json
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from contextseg.clustering.choosing import RULE
from contextseg.errors import SettingsError, TrainingError
from contextseg.settings import MOST_CLASSES, Settings, make_settings
from contextseg.training.fit import fit


def tiny(n_classes: int | str, epochs: int = 1, **values: object) -> Settings:
    shared = {"data": {"image_px": 64}, "views": {"frame_px": 64}, "backbone": {"name": "test_resnet"}}
    training = {"epochs": epochs, "batch_size": 4}
    return make_settings({"n_classes": n_classes, "training": training} | shared | values)


def test_auto_is_short_for_a_choice_up_to_thirty() -> None:
    assert tiny("auto") == tiny(MOST_CLASSES, choose_n_classes=True)
    with pytest.raises(SettingsError, match="'context' alone chooses its number of classes"):
        make_settings({"n_classes": "auto", "method": "lab"})


def test_the_number_is_chosen_told_kept_and_resumed(scenes: Path, tmp_path: Path) -> None:
    told = StringIO()
    settings = tiny(5, choose_n_classes=True)
    run = fit(scenes, tmp_path / "run", settings, console=Console(file=told))
    choosing = json.loads((run.path / "choosing.json").read_text())
    assert choosing["n_classes"] == [2, 3, 4, 5]
    assert choosing["rule"] == RULE
    assert f"chosen: {choosing['chosen']} classes, of at most 5" in told.getvalue()
    assert run.settings() == tiny(choosing["chosen"])
    assert len(run.read_json("classes.json")) == choosing["chosen"]

    given = fit(scenes, tmp_path / "given", tiny(choosing["chosen"]))
    one, other = (load_file(path.weights) for path in (run, given))
    assert all(torch.equal(one[name], other[name]) for name in one)

    longer = fit(scenes, tmp_path / "run", tiny(5, epochs=2, choose_n_classes=True), resume=True)
    assert longer.settings() == tiny(choosing["chosen"], epochs=2)


def test_one_image_has_no_number_of_classes(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"1 usable images; at least 2 are needed: add images$"):
        fit(next((scenes / "images").iterdir()), tmp_path / "run", tiny("auto"))
