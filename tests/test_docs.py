"""What the documents say can be done is done: their commands and code run, their links lead somewhere."""

import csv
import re
import runpy
import shlex
import shutil
import sys
from pathlib import Path
from textwrap import dedent
from typing import Any

import nbformat
import numpy as np
import pytest
import rasterio
import timm
from nbclient import NotebookClient
from PIL import Image
from typer.testing import CliRunner

from contextseg import ContextSegmenter, naming, predict
from contextseg.cli import app
from contextseg.data.labelled import DATA_SETS
from contextseg.exporting import FORMATS, _masks
from contextseg.settings import Settings, load_settings, make_settings, override, setting_names

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
SMALL = ["--set", "data.image_px=64", "--set", "views.frame_px=64", "--set", "clustering.max_points=2000"]


def blocks(page: Path, language: str) -> list[str]:
    return [dedent(block) for block in re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)]


@pytest.fixture
def desk(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with what the documents assume to be there."""
    shutil.copytree(scenes / "images", tmp_path / "photos")
    shutil.copy(tmp_path / "photos" / "0000.png", tmp_path / "photos" / "one.jpg")
    shutil.copytree(scenes, tmp_path / "labelled")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run_commands(page: Path) -> list[list[str]]:
    """Run the commands of a page as a user would, on a small scale, and return them; `demo` has tests of its own."""
    lines = [line for block in blocks(page, "sh") for line in block.splitlines() if line.startswith("contextseg ")]
    commands = [shlex.split(line, comments=True)[1:] for line in lines]
    small = {
        "fit": [*SMALL, "--method", "lab"],
        "pretrain": [*SMALL[:4], "--backbone", "test_resnet", "--epochs", "1", "--set", "pretraining.dim=16"],
        "compare": [*SMALL, "--backbone", "test_resnet", "--epochs", "1", "--seeds", "1"],
    }
    for arguments in (command for command in commands if command[0] != "demo"):
        result = CliRunner().invoke(app, arguments + small.get(arguments[0], []))
        assert result.exit_code == 0, (arguments, result.output)
    return commands


def make_run() -> None:
    """Make the run that the pages on exports begin with."""
    fit = ["fit", "photos/", "-o", "run", "--classes", "8", *SMALL, "--method", "lab"]
    assert CliRunner().invoke(app, fit).exit_code == 0


@pytest.mark.parametrize("page", ["README.md", "docs/index.md", "docs/own-images.md", "docs/choosing-k.md"])
def test_commands_run(desk: Path, page: str) -> None:
    assert len(run_commands(ROOT / page)) >= 2
    assert list(desk.glob("masks*/0001.png"))


def test_commands_of_the_page_on_data_sets_of_ones_own_run(desk: Path) -> None:
    assert [arguments[0] for arguments in run_commands(ROOT / "docs/add-a-data-set.md")] == [
        "datasets",
        "fit",
        "evaluate",
    ]
    assert (desk / "run" / "scores.json").exists()


def test_the_export_of_the_page_on_exports_of_ones_own_runs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = ROOT / "docs/add-an-export.md"
    (code,) = blocks(page, "python")
    names: dict[str, Any] = {}
    exec(code, names)
    monkeypatch.setitem(FORMATS, "shares", _masks(names["SharesWriter"]))
    make_run()
    naming.name(desk / "run", {0: "sky, or sea"})
    naming.merge(desk / "run", 0, [5])
    naming.hide(desk / "run", [3])
    assert [arguments[0] for arguments in run_commands(page)] == ["export"]
    with (desk / "shares" / "shares.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "sky, or sea", "class 1", "class 2", "class 4", "class 6", "class 7"]
    predict(desk / "run", desk / "photos", desk / "masks")
    assert [image for image, *_ in rows] == sorted(path.name for path in (desk / "photos").iterdir())
    for image, *shares in rows:
        with Image.open(desk / "masks" / f"{Path(image).stem}.png") as mask:
            values = np.asarray(mask)
        assert [float(share) for share in shares] == [round((values == i).mean(), 6) for i in (0, 1, 2, 4, 6, 7)]


def test_commands_of_the_data_sets_page_run(desk: Path) -> None:
    page = ROOT / "docs/datasets.md"
    (block,) = blocks(page, "sh")
    for line in block.splitlines():
        result = CliRunner().invoke(app, shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, (line, result.output)
    rows = re.findall(r"^\| `(\w+)` \| .* \| (?:(\d+) / (\d+)|not told apart) \|", page.read_text(), re.M)
    told = {name: {"things": int(things or 0), "stuff": int(stuff or 0)} for name, things, stuff in rows}
    assert told.keys() == DATA_SETS.keys()
    for name, n_classes in told.items():
        code = DATA_SETS[name].code
        groups = {} if name == "folder" else code.space.groups
        assert {group: len(groups.get(group, ())) for group in ("things", "stuff")} == n_classes, name


def test_commands_of_the_exports_run_and_miss_no_format(desk: Path) -> None:
    (desk / "rasters").mkdir()
    profile = {"driver": "GTiff", "count": 3, "height": 64, "width": 96, "dtype": "uint8", "crs": "EPSG:32633"}
    place = rasterio.Affine(0.5, 0, 400_000, 0, -0.5, 5_800_000)
    with rasterio.open(desk / "rasters" / "one.tif", "w", transform=place, **profile) as raster:
        raster.write(np.zeros((3, 64, 96), np.uint8))
    make_run()
    commands = run_commands(ROOT / "docs/exports.md")
    assert {arguments[0] for arguments in commands} == {"name", "merge", "hide", "split", "export"}
    formats = [arguments[arguments.index("--format") + 1] for arguments in commands if "--format" in arguments]
    assert set(formats) == {"onnx", *FORMATS}
    assert (desk / "maps" / "one.tif").exists()


def test_commands_of_the_report_run(desk: Path) -> None:
    fit = ["fit", "photos/", "-o", "run", "--classes", "8", *SMALL, "--method", "lab"]
    assert CliRunner().invoke(app, fit).exit_code == 0
    (report,), (auto,) = (
        [shlex.split(line, comments=True)[1:] for line in block.splitlines()]
        for block in blocks(ROOT / "docs/report.md", "sh")
    )
    assert CliRunner().invoke(app, report).exit_code == 0
    assert (desk / "run" / "report.html").exists()
    chosen = [*auto, *SMALL, "--backbone", "test_resnet", "--epochs", "1"]
    (desk / "run").rename(desk / "before")
    result = CliRunner().invoke(app, chosen)
    assert result.exit_code == 0, result.output
    assert "chosen: " in result.output


def test_python_of_the_readme_runs(desk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    init = ContextSegmenter.__init__
    small = {"method": "lab", "data": {"image_px": 64}, "views": {"frame_px": 64}}
    monkeypatch.setattr(ContextSegmenter, "__init__", lambda self, **given: init(self, **given, **small))
    (code,) = blocks(ROOT / "README.md", "python")
    names: dict[str, object] = {}
    exec(code, names)
    assert names["prediction"].clusters.shape == (64, 96)


def test_example_of_the_whole_method_runs(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["train_plain.py", str(scenes), "4"])
    runpy.run_path(str(ROOT / "examples" / "train_plain.py"), run_name="__main__")
    told = capsys.readouterr().out
    assert "epoch 2: loss" in told
    assert "mask of images/0000.png: (16, 24) cells" in told


def test_recipes_are_settings() -> None:
    recipes = sorted((ROOT / "recipes").glob("*.yaml"))
    assert recipes
    for recipe in recipes:
        assert make_settings(override(load_settings(recipe), ["n_classes=27"])).n_classes == 27


N_CLASSES = {"coco27": 27, "coco171": 171, "cityscapes27": 27, "potsdam3": 3}


@pytest.mark.parametrize(
    "recipe",
    sorted(path for name in N_CLASSES for path in (ROOT / "recipes").glob(f"{name}-*.yaml")),
    ids=lambda recipe: recipe.stem,
)
def test_recipes_of_published_numbers_are_complete(recipe: Path) -> None:
    settings = make_settings(load_settings(recipe))
    assert settings.n_classes == N_CLASSES[recipe.stem.split("-")[0]]
    assert timm.models.is_model_pretrained(settings.backbone.name)
    assert settings.backbone.start is not None
    comment = " ".join(line[2:] for line in recipe.read_text().splitlines() if line.startswith("# "))
    figure = re.search(r"Published[^:]*: .*?([\d.]+) \[V\]", comment)
    if settings.method == "context":
        assert "as reconstructed" in comment
    else:
        assert figure is not None
        assert f"{figure[1]} [V]" in (ROOT / "docs/leaderboard.md").read_text()
    assert f"`{recipe.name}`" in (ROOT / "docs/leaderboard.md").read_text()
    assert f"recipes/{recipe.name}" in comment or "--config" not in comment


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_settings_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    sections = {name for name, field in Settings.model_fields.items() if not isinstance(field.annotation, str)}
    known = set(setting_names())
    for name in re.findall(r"`([a-z]+\.[a-z_]+)(?:=[^`]*)?`", text):
        if name.split(".")[0] in sections:
            assert name in known, name


def test_the_demo_is_shown_before_line_40() -> None:
    head = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    for part in ("![", "make demo", "contextseg fit", "contextseg predict"):
        assert part in head


def test_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "examples" / "notebook.ipynb", as_version=4)
    done = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output.data for cell in done.cells for output in cell.get("outputs", []) if "data" in output]
    assert ["image/png" in data for data in shown] == [False, True, True, False, True, False]
    assert "sky" in shown[3]["text/html"]
    assert (tmp_path / "run" / "report.html").stat().st_size > 100_000
