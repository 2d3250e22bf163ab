"""The files of a run that comes from a stranger."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from damage import damaged, damaged_file, inputs, used_or_refused
from hypothesis import given
from hypothesis import strategies as st
from lightning_fabric.plugins import Precision

from contextseg.classes import Classes
from contextseg.errors import ContextsegError
from contextseg.evaluation.scores import read_scores, score
from contextseg.methods import METHODS
from contextseg.models.backbone import load_weights
from contextseg.predictor import Predictor
from contextseg.run_folder import RunFolder
from contextseg.settings import make_settings
from contextseg.training.checkpoint import load_checkpoint
from contextseg.training.fit import fit
from contextseg.verbs import predict

LAB = make_settings({"n_classes": 3, "method": "lab", "data": {"image_px": 32}, "views": {"frame_px": 32}})
PICIE = make_settings(
    LAB.model_dump(include={"n_classes", "data", "views"})
    | {
        "method": "picie",
        "backbone": {"name": "test_resnet"},
        "picie": {"dim": 2},
        "training": {"epochs": 1, "batch_size": 6},
    }
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@pytest.fixture(scope="module")
def lab(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(scenes, tmp_path_factory.mktemp("lab") / "run", LAB)


@pytest.fixture(scope="module")
def picie(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(scenes, tmp_path_factory.mktemp("picie") / "run", PICIE)


@pytest.fixture(scope="module")
def copy(lab: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(Path(shutil.copytree(lab.path, tmp_path_factory.mktemp("copy") / "run")))


@inputs
@given(data=st.data())
def test_meta(scenes: Path, lab: RunFolder, copy: RunFolder, data: st.DataObject) -> None:
    path = copy.path / "meta.json"
    with damaged_file(path, (lab.path / path.name).read_bytes(), data):
        predict(copy.path, scenes / "images" / "0000.png", copy.path / "masks")


@inputs
@given(data=st.data())
def test_weights(scenes: Path, lab: RunFolder, copy: RunFolder, data: st.DataObject) -> None:
    with damaged_file(copy.weights, lab.weights.read_bytes(), data):
        Predictor.load(RunFolder.open(copy.path)).predict(np.zeros((33, 40, 3), np.uint8))


@inputs
@given(data=st.data())
def test_metrics(picie: RunFolder, copy: RunFolder, data: st.DataObject) -> None:
    path = copy.path / "metrics.jsonl"
    with damaged_file(path, (picie.path / path.name).read_bytes(), data):
        copy.metrics()
        copy.keep_metrics_before(0, 1)


@inputs
@given(data=st.data())
def test_checkpoint(picie: RunFolder, copy: RunFolder, data: st.DataObject) -> None:
    # what lies at its front, the names and shapes, is damaged more often than one of its many numbers
    whole = picie.checkpoint.read_bytes()
    front = 8 + int.from_bytes(whole[:8], "little")
    copy.checkpoint.write_bytes(data.draw(damaged(whole[:front])) + whole[front:])
    method = METHODS["picie"](PICIE)
    with used_or_refused(copy.checkpoint):
        load_checkpoint(copy.checkpoint, method, method.optimizer(), Precision())


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@inputs
@given(content=st.binary(max_size=300))
def test_starting_weights(copy: RunFolder, suffix: str, content: bytes) -> None:
    path = copy.path / f"start{suffix}"
    path.write_bytes(content)
    with used_or_refused(path):
        load_weights(METHODS["picie"](PICIE).embedding.backbone.net, path)


@inputs
@given(data=st.data())
def test_scores(copy: RunFolder, data: st.DataObject) -> None:
    path = copy.path / "scores.json"
    score(np.array([[3, 1], [0, 4], [2, 0]]), ["sky", "sea"]).write(path)
    with damaged_file(path, path.read_bytes(), data):
        read_scores(path)


@inputs
@given(data=st.data())
def test_classes(lab: RunFolder, copy: RunFolder, data: st.DataObject) -> None:
    with damaged_file(copy.classes, lab.classes.read_bytes(), data):
        classes = Classes.read(copy.classes)
        assert len(classes.survivors()) == len(classes.colours_K3)


@inputs
@given(content=JSON)
def test_other_json(lab: RunFolder, copy: RunFolder, content: object) -> None:
    for name in ("meta.json", "classes.json"):
        copy.write_json(name, content)
    with pytest.raises(ContextsegError, match=r"meta\.json: is damaged"):
        RunFolder.open(copy.path)
    with used_or_refused(copy.classes):
        Classes.read(copy.classes, n_classes=3)
    for name in ("meta.json", "classes.json"):
        shutil.copy(lab.path / name, copy.path / name)
