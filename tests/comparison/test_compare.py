"""A comparison on scenes: it goes on where it stopped, and its table can be computed again from its runs."""

import csv
import json
import re
import shutil
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from contextseg import verbs
from contextseg.comparison import compare as comparison
from contextseg.comparison.compare import compare, merged
from contextseg.comparison.rows import Row, collect, run_folder
from contextseg.comparison.tables import cells, markdown, ranked
from contextseg.errors import RunError, SettingsError
from contextseg.evaluation.scores import Scores

SHARED = {
    "data": {"image_px": 64},
    "views": {"frame_px": 64},
    "backbone": {"name": "test_resnet"},
    "clustering": {"max_points": 2000, "n_restarts": 1},
    "training": {"epochs": 1, "batch_size": 4},
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipes") / "lab-far.yaml"
    path.write_text("method: lab\nlab:\n  position_weight: 2.0\n")
    return path


@pytest.fixture(scope="module")
def compared(scenes: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Row]]:
    out = tmp_path_factory.mktemp("comparison")
    return out, compare(scenes, ["lab", str(recipe), "picie"], out, n_seeds=2, settings=SHARED)


def test_each_row_has_its_settings_and_all_seeds(compared: tuple[Path, list[Row]]) -> None:
    _, rows = compared
    assert [row.name for row in rows] == ["lab", "lab-far", "picie"]
    assert [row.settings.lab.position_weight for row in rows[:2]] == [0.5, 2.0]
    assert all(row.seeds == [0, 1] for row in rows)
    assert rows[0].cluster_use is None
    assert rows[2].cluster_use is not None
    assert 0 < rows[2].cluster_use <= 1


def test_tables_follow_from_the_stored_scores(compared: tuple[Path, list[Row]]) -> None:
    out, rows = compared
    stored = {
        (name, seed): json.loads((out / name / f"seed-{seed}" / "scores.json").read_text())
        for name in ("lab", "lab-far", "picie")
        for seed in (0, 1)
    }
    with (out / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert {(line["method"], int(line["seed"])): float(line["miou"]) for line in lines} == {
        key: scores["miou"] for key, scores in stored.items()
    }
    best = max(rows, key=lambda row: np.mean([stored[row.name, seed]["miou"] for seed in (0, 1)]))
    values = 100 * np.array([stored[best.name, seed]["miou"] for seed in (0, 1)])
    first = (out / "table.md").read_text().splitlines()[2]
    assert first.startswith(f"| {best.name} |")
    assert f"| {values.mean():.1f} ± {values.std(ddof=1):.1f} (n=2) |" in first
    with Image.open(out / "plot.png") as picture:
        assert min(picture.size) > 100


def test_finished_runs_are_not_run_again_and_more_seeds_are_added(
    scenes: Path, compared: tuple[Path, list[Row]]
) -> None:
    out, _ = compared
    before = (run_folder(out, "lab", 0) / "weights.safetensors").stat().st_mtime_ns
    rows = compare(scenes, ["lab"], out, n_seeds=3, settings=SHARED)
    assert rows[0].seeds == [0, 1, 2]
    assert (run_folder(out, "lab", 0) / "weights.safetensors").stat().st_mtime_ns == before


def test_the_data_set_may_be_named(scenes: Path, tmp_path: Path) -> None:
    told = Console(file=StringIO(), width=120)
    (row,) = compare(scenes, ["lab"], tmp_path, n_seeds=1, settings=SHARED, data_set="potsdam3", console=told)
    assert row.scores[0].context["data"] == "Potsdam-3"
    assert row.settings.n_classes == len(row.scores[0].per_class) == 3
    assert "Potsdam-3, all: 12 images" in told.file.getvalue()


@pytest.mark.parametrize("option", ["refine", "merged"])
def test_scores_with_an_option_are_not_shown_beside_plain_ones(
    scenes: Path, compared: tuple[Path, list[Row]], option: str
) -> None:
    out, rows = compared
    run = run_folder(out, "lab", 0)
    verbs.merge(run, 0, [1, 2, 3])
    verbs.evaluate(run, scenes, refine=option == "refine", merged=option == "merged")
    again = compare(scenes, ["lab"], out, n_seeds=1, settings=SHARED)
    assert again[0].scores[0].options == {}
    assert again[0].percent("miou") == rows[0].percent("miou")[:1]


def test_scores_of_another_split_or_set_are_not_shown_as_those_that_are_asked_for(scenes: Path, tmp_path: Path) -> None:
    data = tmp_path / "scenes"
    for path in scenes.glob("*/*.png"):
        kind, split = path.parent.name, "val" if path.stem < "0004" else "train"
        (data / kind / split).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, data / kind / split / path.name)
    shutil.copyfile(scenes / "classes.txt", data / "classes.txt")
    out, settings = tmp_path / "out", {**SHARED, "n_classes": 4}

    def scored(**asked: Any) -> Scores:
        (row,) = compare(data, ["lab"], out, n_seeds=1, settings=settings, **asked)
        return row.scores[0]

    for asked, split, n_images in (({"split": "val"}, "val", 4), ({}, "train+val", 12), ({"split": "val"}, "val", 4)):
        scores = scored(**asked)
        assert (scores.context["split"], scores.n_images) == (split, n_images)
    assert scored(split="val", data_set="potsdam3").context["data"] == "Potsdam-3"
    (data / "images" / "val" / "0000.png").unlink()
    (data / "labels" / "val" / "0000.png").unlink()
    assert scored(split="val").n_images == 3


def test_no_table_shows_seeds_that_were_not_looked_at(
    scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**SHARED, "n_classes": 4}
    compare(scenes, ["lab"], tmp_path, n_seeds=2, settings=settings)
    shown: list[list[int]] = []
    write = comparison.write_tables
    monkeypatch.setattr(
        comparison, "write_tables", lambda rows, out: shown.append([*rows[0].seeds]) or write(rows, out)
    )
    compare(scenes, ["lab"], tmp_path, n_seeds=2, settings=settings, data_set="potsdam3")
    assert shown == [[0], [0, 1]]


def test_a_run_that_was_broken_off_is_resumed(scenes: Path, compared: tuple[Path, list[Row]]) -> None:
    out, rows = compared
    folder = run_folder(out, "picie", 1)
    scores = json.loads((folder / "scores.json").read_text())
    for name in ("scores.json", "weights.safetensors"):
        (folder / name).unlink()
    again = compare(scenes, ["picie"], out, n_seeds=2, settings=SHARED)
    assert again[0].percent("miou") == rows[2].percent("miou")
    assert json.loads((folder / "scores.json").read_text()) == scores


@pytest.mark.parametrize("lost", [(), ("scores.json",), ("scores.json", "weights.safetensors")])
def test_runs_of_other_settings_are_not_shown_as_these(
    scenes: Path, compared: tuple[Path, list[Row]], tmp_path: Path, lost: tuple[str, ...]
) -> None:
    out = shutil.copytree(compared[0], tmp_path / "out")
    for name in lost:
        (run_folder(out, "lab", 0) / name).unlink()
    with pytest.raises(RunError, match="was run with other settings"):
        compare(scenes, ["lab"], out, n_seeds=1, settings={**SHARED, "data": {"image_px": 96}})
    assert (run_folder(out, "lab", 0) / "scores.json").exists() == (not lost)


def test_runs_that_chose_their_number_of_classes_are_taken_up_again(scenes: Path, tmp_path: Path) -> None:
    small = {"n_partitions": 2, "guidance": {"grid": 8}}
    auto = {**SHARED, "context": small, "n_classes": 4, "choose_n_classes": True}
    (row,) = compare(scenes, ["context"], tmp_path, n_seeds=1, settings=auto)
    run = run_folder(tmp_path, "context", 0)
    made = (run / "weights.safetensors").stat().st_mtime_ns
    (again,) = compare(scenes, ["context"], tmp_path, n_seeds=1, settings=auto)
    assert (again.settings, again.percent("miou")) == (row.settings, row.percent("miou"))
    assert (run / "weights.safetensors").stat().st_mtime_ns == made
    # who gives a number asks for another run than one that chose it, and the reverse
    given = {**SHARED, "context": small}
    n_other = 2 if row.settings.n_classes != 2 else 3
    with pytest.raises(RunError, match="was run with other settings"):
        compare(scenes, ["context"], tmp_path, n_seeds=1, settings={**given, "n_classes": n_other})
    (run / "choosing.json").unlink()
    with pytest.raises(RunError, match="was run with other settings"):
        compare(scenes, ["context"], tmp_path, n_seeds=1, settings=auto)


@pytest.mark.parametrize(
    ("methods", "message"),
    [(["lap"], "there is no 'lap'; there are context, "), (["lab", "lab"], "each row needs a name of its own")],
)
def test_methods_that_cannot_be_rows(scenes: Path, tmp_path: Path, methods: list[str], message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        compare(scenes, methods, tmp_path, settings=SHARED)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": 7}, "seed: each row is run with the seeds 0, 1, ..; --seeds says how many"),
        ({"method": "lab"}, "method: it is what tells rows apart; --methods names them"),
        ({"picie": {"dim": 16}}, "section 'picie' is set but the method is 'lab'"),
    ],
)
def test_settings_that_are_not_for_all_rows_are_refused_before_any_is_run(
    scenes: Path, tmp_path: Path, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        compare(scenes, ["picie", "lab"], tmp_path, n_seeds=1, settings={**SHARED, **settings})
    assert list(tmp_path.iterdir()) == []


def test_some_settings_lie_over_others_and_neither_changes() -> None:
    below, above = {"training": {"epochs": 1, "batch_size": 4}, "seed": 1}, {"training": {"epochs": 9}, "method": "lab"}
    assert merged(below, above) == {"training": {"epochs": 9, "batch_size": 4}, "seed": 1, "method": "lab"}
    assert below["training"] == {"epochs": 1, "batch_size": 4}


def test_what_is_given_for_all_rows_wins_over_a_recipe_and_a_recipe_over_the_set(scenes: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "own.yaml"
    recipe.write_text("method: lab\nn_classes: 3\ntraining:\n  epochs: 9\n  batch_size: 5\n")
    given = {**SHARED, "training": {"epochs": 2}}
    rows = compare(scenes, ["lab", str(recipe)], tmp_path / "out", n_seeds=1, settings=given)
    assert [row.settings.training.epochs for row in rows] == [2, 2]
    assert [row.settings.training.batch_size for row in rows] == [16, 5]
    assert [row.settings.n_classes for row in rows] == [len(rows[0].scores[0].per_class), 3]


def test_a_name_cannot_break_the_markdown(compared: tuple[Path, list[Row]]) -> None:
    _, rows = compared
    odd = Row(
        "a|b", *(getattr(rows[0], field) for field in ("settings", "seeds", "scores", "cluster_use", "images_per_s"))
    )
    assert markdown([odd]).splitlines()[2].startswith("| a\\|b |")
    assert len(cells(odd)) == len(markdown([odd]).splitlines()[1].split("|")) - 2


def test_rows_without_a_run_are_left_out(compared: tuple[Path, list[Row]]) -> None:
    out, rows = compared
    assert [row.name for row in collect(out, ["lab", "nothing"], 2)] == ["lab"]
    assert ranked(rows)[0].percent("miou") >= ranked(rows)[-1].percent("miou")
