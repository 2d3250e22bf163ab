"""The command line, run as a user runs it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from contextseg.classes import Classes
from contextseg.cli import app
from contextseg.data.labelled import DATA_SETS
from contextseg.data.scenes import CLASSES
from contextseg.exporting import FORMATS
from contextseg.run_folder import RunFolder
from contextseg.settings import METHOD_SECTIONS, make_settings, setting_names

FAST = ["--set", "data.image_px=64", "--set", "views.frame_px=64", "--set", "clustering.max_points=2000"]


def run(*arguments: object, status: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == status, result.output
    return " ".join(result.output.split())


def test_fit_predict_evaluate(scenes: Path, tmp_path: Path) -> None:
    tiny = ["--set", "training.batch_size=4", "--set", "picie.dim=16", "--backbone", "test_resnet"]
    config = tmp_path / "config.yaml"
    config.write_text("method: lab\nseed: 3\n")
    out = tmp_path / "run"
    told = run(
        "fit", scenes, "-o", out, "--classes", 6, "--config", config, "--method", "picie", "--epochs", 1, *FAST, *tiny
    )
    assert "finished" in told
    assert "images/s" in told
    assert "starting from random weights" in told
    settings = (out / "settings.yaml").read_text()
    assert "method: picie" in settings  # an option wins over the file
    assert "seed: 3" in settings
    told = run("evaluate", out, scenes, "--data-set", "folder")
    assert f"evaluating on {scenes.name}, all: 12 images" in told
    assert "mean IoU" in told
    assert all(name in told for name in CLASSES)
    assert json.loads((out / "scores.json").read_text())["context"]["seed"] == 3
    run("evaluate", out, scenes, "--flip", "--refine", "--fresh-clusters", scenes)
    context = json.loads((out / "scores.json").read_text())["context"]
    assert all(context[option] for option in ("flip", "refine", "fresh_clusters"))
    told = run("evaluate", out, scenes, "--probe", "knn", status=1)
    assert "no split 'train'" in told
    run("predict", out, scenes / "images", "-o", tmp_path / "masks", "--confidence")
    assert len(list((tmp_path / "masks").glob("*.png"))) == 12
    assert len(list((tmp_path / "masks" / "confidence").glob("*.png"))) == 12


def test_resume_takes_the_settings_of_the_run(scenes: Path, tmp_path: Path) -> None:
    tiny = ["--set", "training.batch_size=4", "--set", "context.embedding.dim=16", "--backbone", "test_resnet"]
    run("fit", scenes, "-o", tmp_path / "run", "--classes", 4, "--epochs", 1, *FAST, *tiny)
    run("fit", scenes, "-o", tmp_path / "run", "--epochs", 2, "--resume")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if "step" not in line] == [0, 1]


def test_fit_starts_from_weights_of_pretrain(scenes: Path, tmp_path: Path) -> None:
    tiny = ["--backbone", "test_resnet", "--epochs", 1, *FAST]
    no_clusters = tiny[:-2]
    weights = tmp_path / "start.safetensors"
    told = run("pretrain", scenes, "-o", weights, *no_clusters, "--set", "training.epochs=1", status=1)
    assert "training.epochs: pre-training does not read it; it has pretraining.epochs" in told
    told = run("pretrain", scenes, "-o", weights, "--method", "simsiam", "--set", "pretraining.dim=16", *no_clusters)
    assert "epoch 1: loss" in told
    assert "embedding spread" in told
    run("fit", scenes, "-o", tmp_path / "run", "--classes", 4, "--method", "kmeans", "--weights", weights, *tiny)
    assert "self-supervised (simsiam) on 12 images" in (tmp_path / "run" / "meta.json").read_text()
    dim = ["--set", "pretraining.dim=16", "--set", "pretraining.epochs=1"]
    run("fit", scenes, "-o", tmp_path / "one", "--classes", 4, "--method", "kmeans", "--start", "pretrain", *dim, *tiny)
    assert "self-supervised (vicregl) on these images" in (tmp_path / "one" / "meta.json").read_text()


def test_compare_prints_one_table(scenes: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "lab-alone.yaml"
    recipe.write_text("method: lab\nlab:\n  position_weight: 0\n")
    methods = f"lab,{recipe}"
    arguments = ["compare", scenes, "--methods", methods, "-o", tmp_path / "out", "--seeds", 1, *FAST]
    told = run(*arguments)
    assert "lab, seed 0: accuracy" in told
    assert (tmp_path / "out" / "lab-alone" / "seed-0" / "scores.json").exists()
    again = run(*arguments)
    assert "seed 0: accuracy" not in again  # nothing is run twice
    assert "(n=1)" in again


def test_name_merge_hide_export(scenes: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run("fit", scenes, "-o", out, "--classes", 4, "--method", "lab", *FAST)
    told = run("name", out, "0=sky", "3=dirt road")
    assert "dirt road" in told
    assert "part of 3" in run("merge", out, "3,1")
    assert "hidden" in run("hide", out, "0,2")
    assert "hidden" not in run("hide", out, "0,2", "--undo")
    assert "part of" not in run("merge", out, "3,1", "--undo")
    run("merge", out, "3,1")
    before = (out / "classes.json").read_bytes()
    listed = run("name", out)
    assert all(word in listed for word in ("sky", "part of 3", "class 2", "dirt road"))
    assert (out / "classes.json").read_bytes() == before
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "one.png").write_bytes((scenes / "images" / "0000.png").read_bytes())
    (tmp_path / "images" / "empty.png").touch()
    told = run("export", out, tmp_path / "images", "-o", tmp_path / "voc", "--format", "voc")
    assert "left out" in told
    assert "empty.png: is empty (0 bytes)" in told
    assert "dirt road:" in (tmp_path / "voc" / "labelmap.txt").read_text()
    run("evaluate", out, scenes, "--merged")
    assert json.loads((out / "scores.json").read_text())["context"]["merged"] is True


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["merge", "3"], "got '3', expected two ids or more, such as 3,5"),
        (["merge", "3,road"], "got 'road' for a class, expected its id, such as 3"),
        (["merge", "3,3"], "class 3 cannot become part of itself"),
        (["hide", "3,1"], "class 1 is part of class 0, shown with it; hide that one, or undo the merge"),
        (["hide", "9"], "there is no class 9; ids go from 0 to 3"),
        (["name", "sky"], "got 'sky' for a class, expected its id"),
        (["name", "2="], "class 2, name: got ''; a name is one line of visible characters"),
    ],
)
def test_changes_of_classes_that_make_no_sense(tmp_path: Path, arguments: list[str], message: str) -> None:
    folder = RunFolder.create(tmp_path / "run", make_settings({"n_classes": 4}))
    Classes.numbered(4).merge(0, [1]).write(folder.classes)
    verb, *rest = arguments
    told = run(verb, tmp_path / "run", *rest, status=1)
    assert told.startswith("error: ")
    assert message in told


def test_the_help_of_export_names_all_formats() -> None:
    told = run("export", "--help")
    assert [name for name in (*FORMATS, "onnx") if name not in told] == []


def test_the_help_of_fit_names_all_methods() -> None:
    assert ", ".join(METHOD_SECTIONS) in " ".join(run("fit", "--help").replace("\u2502", " ").split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "SCENES", "-o", "RUN"], "how many classes? Give --classes 8, say, or --classes auto"),
        (
            ["fit", "SCENES", "-o", "RUN", "--classes", 1],
            "n_classes: got 1; input should be greater than or equal to 2",
        ),
        (["fit", "SCENES", "-o", "RUN", "--classes", 4, "--method", "magic"], "method: got 'magic'"),
        (["fit", "SCENES", "-o", "RUN", "--classes", 4, "--set", "epochs=3"], "did you mean 'training.epochs'?"),
        (["fit", "NOWHERE", "-o", "RUN", "--classes", 4], "NOWHERE"),
        (["fit", "SCENES", "-o", "RUN", "--classes", 4, "--weights", "NOWHERE"], "no such file"),
        (["predict", "NOWHERE", "SCENES", "-o", "RUN"], "holds no run"),
        (["evaluate", "NOWHERE", "SCENES"], "holds no run"),
        (["compare", "SCENES", "--methods", "lab,magic", "-o", "RUN"], "there is no 'magic'"),
        (["compare", "SCENES", "--methods", "lab", "-o", "RUN", "--set", "seed=3"], "--seeds says how many"),
        (["datasets", "check", "coco", "SCENES"], "no data set 'coco'; there are: cocostuff27"),
        (
            ["datasets", "check", "voc2012", "SCENES"],
            "holds no PASCAL VOC 2012 (its folders: images, labels). Source: ",
        ),
    ],
)
def test_errors_are_one_line(scenes: Path, tmp_path: Path, arguments: list[object], message: str) -> None:
    places = {"SCENES": scenes, "RUN": tmp_path / "run", "NOWHERE": tmp_path / "NOWHERE"}
    told = run(*(places.get(str(argument), argument) for argument in arguments), status=1)
    assert told.startswith("error: ")
    assert message in told
    assert "Traceback" not in told


def test_settings_are_listed_with_their_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    listed = run("settings")
    assert all(name in listed for name in setting_names())
    guidance = run("settings", "guidance.s")
    names = ["context.guidance.scales", "context.guidance.strength", "context.guidance.shuffled"]
    assert re.findall(r"context[a-z_.]+", guidance) == names
    assert "[1.0, 2.0]" in guidance
    assert "must be given" in run("settings", "n_classes")
    assert "'epochz' is in no setting's name" in run("settings", "epochz", status=1)


def test_data_sets_are_shown() -> None:
    told = run("datasets")
    for name, data_set in DATA_SETS.items():
        assert name in told
        assert " ".join(f"{data_set.source} {data_set.tree}".split()) in told


def test_a_copy_is_checked(scenes: Path, tmp_path: Path) -> None:
    assert "nothing wrong" in run("datasets", "check", "folder", scenes)
    shutil.copytree(scenes, tmp_path / "copy")
    (tmp_path / "copy" / "images" / "0003.png").write_bytes(b"")
    told = run("datasets", "check", "folder", tmp_path / "copy", status=1)
    assert "all: 1 images cannot be read: 0003.png is empty (0 bytes)" in told
    told = run("datasets", "check", "folder", scenes, "--split", "val", status=1)
    assert "no split 'val'; there are: none" in told


def run_without_torch(*arguments: object) -> str:
    code = (
        f"import sys; sys.argv = {['contextseg', *map(str, arguments)]!r}\n"
        "from contextseg.cli import app\n"
        "try: app()\n"
        "finally: assert 'torch' not in sys.modules"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_data_sets_need_no_torch(scenes: Path) -> None:
    assert "nothing wrong" in run_without_torch("datasets", "check", "folder", scenes)


def test_help_needs_no_torch_and_answers_at_once() -> None:
    told = run_without_torch("fit", "--help")
    assert "--classes" in told
    assert "--resume" in told


def test_module_and_script_are_the_same_command() -> None:
    done = subprocess.run([sys.executable, "-m", "contextseg", "--help"], capture_output=True, text=True, check=True)
    for verb in ("fit", "pretrain", "predict", "evaluate", "compare", "demo"):
        assert verb in done.stdout


def test_names_that_look_like_markup_or_yaml_are_told_and_read_as_they_are(scenes: Path, tmp_path: Path) -> None:
    images = tmp_path / "photos [red]a[/set]"
    shutil.copytree(scenes / "images", images)
    (images / "bad [dim].png").write_bytes(b"no image")
    told = run("fit", images, "-o", tmp_path / "run[x]", "--classes", 4, "--method", "lab", *FAST)
    assert "bad [dim].png: " in told.replace("\n", "")
    assert "contextseg predict" in told
    assert "run[x] IMAGES" in told
    told = run("predict", tmp_path / "run[x]", tmp_path / "none[/set]", "-o", tmp_path / "masks", status=1)
    assert "none[/set]: no such folder" in told
    weights = tmp_path / "my #1: b😀.safetensors"
    given = ["--backbone", "test_resnet", "--weights", weights]
    told = run("fit", images, "-o", tmp_path / "other", "--classes", "4", *given, *FAST, status=1)
    assert f"{weights.name}: no such file" in told
    assert "holds no run" in run("fit", images, "-o", tmp_path / "never", "--resume", status=1)
