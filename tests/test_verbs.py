"""The main job on files: fit, predict and evaluate, on good folders and on hard ones."""

import json
import os
import re
import shutil
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from contextseg import ContextSegmenter, verbs
from contextseg.classes import Classes
from contextseg.data.image_files import list_images
from contextseg.data.images import read_image
from contextseg.data.scenes import CLASSES, render_scene, write_scenes
from contextseg.errors import ContextsegError, DataError, ImageError, RunError, SettingsError, TrainingError, WriteError
from contextseg.evaluation.boundaries import BoundaryCounts
from contextseg.evaluation.counts import ConfusionCounts
from contextseg.evaluation.scores import read_scores
from contextseg.export.indexed_png import PngWriter, write_confidence
from contextseg.methods import METHODS
from contextseg.predictor import Predictor
from contextseg.probes import PARAMETERS, PROBES
from contextseg.refinement import EPS, KERNEL_PX
from contextseg.run_folder import RunFolder
from contextseg.settings import METHOD_SECTIONS, Settings, make_settings


def tiny(n_classes: int = 4, **values: object) -> Settings:
    return make_settings(
        {
            "n_classes": n_classes,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "clustering": {"max_points": 2000, "n_restarts": 1},
        }
        | values
    )


TRAINED = {
    "backbone": {"name": "test_resnet"},
    "training": {"epochs": 1, "batch_size": 4},
}


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.fixture(scope="module")
def lab_run(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return verbs.fit(scenes, tmp_path_factory.mktemp("lab") / "run", tiny(len(CLASSES), method="lab")).path


def of_method(method: str) -> Settings:
    own = {"kmeans": {"backbone": TRAINED["backbone"]}, "lab": {}}.get(method, TRAINED)
    return tiny(method=method, **own)


def test_every_method_has_a_section_of_settings() -> None:
    assert list(METHODS) == list(METHOD_SECTIONS)


@pytest.mark.parametrize("method", METHODS)
def test_the_run_folder_is_complete(scenes: Path, tmp_path: Path, method: str) -> None:
    run = verbs.fit(scenes, tmp_path / "run", of_method(method))
    files = {path.name for path in run.path.iterdir() if path.name != ".lock"}
    trained = {"metrics.jsonl", "checkpoint.safetensors"} if method not in {"kmeans", "lab"} else set()
    assert files == {"settings.yaml", "meta.json", "classes.json", "weights.safetensors"} | trained
    meta = run.read_json("meta.json")
    assert meta["data"]["n_images"] == 12
    assert meta["start"] == ("none" if method == "lab" else "random")
    assert meta["left_out"] == []
    assert meta["peak_memory_mib"] > 1
    classes = run.read_json("classes.json")
    assert [(c["id"], c["name"], len(c["colour"])) for c in classes] == [(i, f"class {i}", 3) for i in range(4)]
    assert run.settings().method == method


def test_folders_may_be_given_as_strings(tmp_path: Path) -> None:
    write_scenes(tmp_path, 8, size=(64, 96))
    run, images, masks = (str(tmp_path / part) for part in ("run", "images", "masks"))
    verbs.fit(images, run, tiny(len(CLASSES), method="lab"))
    verbs.name(run, {0: "sky"})
    verbs.merge(run, 0, [1])
    verbs.hide(run, [2])
    assert verbs.predict(run, images, masks) == []
    assert verbs.export(run, images, masks + "-voc", format="voc") == []
    assert verbs.evaluate(run, str(tmp_path), fresh_clusters=images).n_images == 8
    assert len(list_images(tmp_path / "images")) == len(list((tmp_path / "masks").glob("*.png"))) == 8


def test_predict_writes_masks_of_the_images_size_in_their_folders(lab_run: Path, tmp_path: Path) -> None:
    sizes = {"a/wide.png": (40, 301), "a/b/tall.jpg": (123, 45), "one.png": (1, 1)}
    for name, (height, width) in sizes.items():
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render_scene(1, 2, max(height, 32), max(width, 32)).image[:height, :width]).save(path)
    assert verbs.predict(lab_run, tmp_path / "in", tmp_path / "out", confidence=True) == []
    for name, size in sizes.items():
        for folder in ("out", "out/confidence"):
            assert values((tmp_path / folder / name).with_suffix(".png")).shape == size
        assert values((tmp_path / "out" / name).with_suffix(".png")).max() < len(CLASSES)
    assert json.loads((tmp_path / "out/classes.json").read_text()) == RunFolder(lab_run).read_json("classes.json")


def test_a_large_photograph_is_read_small_and_told_as_if_it_were_not(lab_run: Path, tmp_path: Path) -> None:
    """Eight times as large as it is looked at, on its side by its EXIF data: the mask is of its own size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    scene = Image.fromarray(render_scene(1, 2, 64, 96).image).resize((768, 512), Image.Resampling.BICUBIC)
    scene.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.jpg", exif=exif, quality=95)
    verbs.predict(lab_run, tmp_path, tmp_path / "out")
    whole = Predictor.load(RunFolder(lab_run)).predict(read_image(tmp_path / "a.jpg")).clusters
    assert values(tmp_path / "out/a.png").shape == whole.shape == (512, 768)
    assert (values(tmp_path / "out/a.png") == whole).mean() > 0.98
    pixels, size = Predictor.load(RunFolder(lab_run)).read(tmp_path / "a.jpg")
    assert (pixels.shape, size) == ((128, 192, 3), (512, 768))
    of_file = ContextSegmenter.load(lab_run).predict(tmp_path / "a.jpg").clusters
    assert np.array_equal(of_file, values(tmp_path / "out/a.png"))


def test_images_that_differ_in_their_suffix_keep_it(lab_run: Path, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.jpg"):
        Image.new("RGB", (40, 30)).save(tmp_path / name)
    verbs.predict(lab_run, tmp_path, tmp_path / "out")
    assert {path.name for path in (tmp_path / "out").glob("*.png")} == {"a.png.png", "a.jpg.png", "b.png"}


def test_raw_masks_know_neither_merges_nor_hidden_classes(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    run = shutil.copytree(lab_run, tmp_path / "run")
    verbs.predict(run, scenes, tmp_path / "before")
    verbs.merge(run, 1, [0])
    verbs.hide(run, [2])
    verbs.predict(run, scenes, tmp_path / "raw", raw=True)
    verbs.predict(run, scenes, tmp_path / "merged")
    before, raw, merged = (values(tmp_path / out / "0000.png") for out in ("before", "raw", "merged"))
    assert np.array_equal(raw, before)
    assert not np.array_equal(merged, before)


def test_resume_predicts_only_what_is_missing(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    verbs.predict(lab_run, scenes, tmp_path, confidence=True)
    whole = (tmp_path / "0001.png").read_bytes()
    (tmp_path / "0000.png").write_bytes(b"kept")
    (tmp_path / "0001.png").unlink()
    verbs.predict(lab_run, scenes, tmp_path, confidence=True, resume=True)
    assert (tmp_path / "0000.png").read_bytes() == b"kept"
    assert (tmp_path / "0001.png").read_bytes() == whole


def test_predict_leaves_out_what_it_cannot_read(lab_run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (40, 30)).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"")
    left_out = verbs.predict(lab_run, tmp_path, tmp_path / "out")
    assert [Path(name).name for name, _ in left_out] == ["bad.png"]
    assert (tmp_path / "out" / "good.png").exists()
    left_out = verbs.predict(lab_run, tmp_path, tmp_path / "out", resume=True)  # nothing but the bad one is left
    assert [Path(name).name for name, _ in left_out] == ["bad.png"]
    (tmp_path / "good.png").unlink()
    with pytest.raises(DataError, match=r"no image could be used\. .*bad\.png: is empty"):
        verbs.predict(lab_run, tmp_path, tmp_path / "other")


def test_predict_in_half_precision_needs_hardware_that_multiplies_in_it(
    lab_run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("contextseg.precision.cpu_computes_bf16", lambda: False)
    with pytest.raises(SettingsError, match="cpu does not"):
        verbs.predict(lab_run, scenes, tmp_path / "out", half=True)
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr("contextseg.precision.cpu_computes_bf16", lambda: True)
    verbs.predict(lab_run, scenes, tmp_path / "out", half=True)
    assert len(list((tmp_path / "out").rglob("*.png"))) == len(list_images(scenes))


def write_masks_one_by_one(run: Path, images: Path, out: Path) -> list[tuple[str, str]]:
    """The slow reference: read, compute and write one image after the other."""
    predictor = Predictor.load(RunFolder.open(run))
    writer = PngWriter(out, Classes.read(run / "classes.json", len(CLASSES)))
    left_out = []
    for path in list_images(images):
        target = path.relative_to(images).with_suffix(".png")
        try:
            prediction = predictor.predict(read_image(path))
        except ImageError as error:
            left_out.append((str(path), error.reason))
        else:
            write_confidence(out / "confidence" / target, prediction.confidence)
            writer.add(path, target, prediction.clusters)
    return left_out


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Images of several sizes, every third of them broken."""
    root = tmp_path / "mixed"
    (root / "sub").mkdir(parents=True)
    for i in range(24):
        path = root / ("sub" if i % 2 else "") / f"{i:02}.png"
        if i % 3 == 1:
            path.write_bytes(b"broken" * i)
        else:
            Image.fromarray(render_scene(i, 0, 64, 96).image[: 40 + i, : 90 - 2 * i]).save(path)
    return root


@pytest.mark.parametrize("n_threads", [1, 3])
@pytest.mark.parametrize("confidence", [False, True])
def test_predict_in_threads_writes_what_one_by_one_does(
    lab_run: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n_threads: int, confidence: bool
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: n_threads)
    told = write_masks_one_by_one(lab_run, mixed, tmp_path / "one by one")
    assert len(told) == 8
    assert verbs.predict(lab_run, mixed, tmp_path / "out", confidence=confidence) == told
    expected = {path.relative_to(tmp_path / "one by one"): path for path in (tmp_path / "one by one").rglob("*.*")}
    if not confidence:
        expected = {name: path for name, path in expected.items() if name.parts[0] != "confidence"}
    found = {path.relative_to(tmp_path / "out"): path for path in (tmp_path / "out").rglob("[!.]*.*")}
    assert found.keys() == expected.keys()
    for name, path in found.items():
        assert path.read_bytes() == expected[name].read_bytes()


def test_what_is_computed_is_written_when_predict_is_interrupted(
    lab_run: Path, mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs.predict(lab_run, mixed, tmp_path / "whole")
    embed_tile, n_seen = Predictor.embed_tile, 0

    def interrupted(predictor: Predictor, *tile: torch.Tensor, **whole: torch.Tensor | None) -> torch.Tensor:
        nonlocal n_seen
        if n_seen >= 5:
            raise KeyboardInterrupt
        n_seen += len(tile[0])
        return embed_tile(predictor, *tile, **whole)

    with monkeypatch.context() as patch:
        patch.setattr("contextseg.cores._MAX_THREADS", 1)  # of several, one may count images that come after the end
        patch.setattr(Predictor, "embed_tile", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            verbs.predict(lab_run, mixed, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == n_seen < len(list((tmp_path / "whole").rglob("*.png")))
    verbs.predict(lab_run, mixed, tmp_path / "out", resume=True)
    for path in (tmp_path / "whole").rglob("*.*"):
        assert (tmp_path / "out" / path.relative_to(tmp_path / "whole")).read_bytes() == path.read_bytes()


def test_a_mask_that_cannot_be_written_ends_predict_with_its_error(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "0003.png").mkdir()
    with pytest.raises(WriteError, match=r"0003\.png: cannot be written"):
        verbs.predict(lab_run, scenes, tmp_path)
    assert all((tmp_path / f"000{i}.png").is_file() for i in range(3))


def test_predict_holds_few_images_at_their_own_size(
    lab_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenes(tmp_path / "photos", 40, size=(96, 128))
    n_held, most_held, counting = 0, 0, threading.Lock()

    def count(change: int) -> None:
        nonlocal n_held, most_held
        with counting:
            n_held += change
            most_held = max(most_held, n_held)

    def counted(predictor: Predictor, path: Path) -> tuple[np.ndarray, tuple[int, int]]:
        image, size = read(predictor, path)
        count(1)
        weakref.finalize(image, count, -1)
        return image, size

    read = Predictor.read
    monkeypatch.setattr(Predictor, "read", counted)
    verbs.predict(lab_run, tmp_path / "photos" / "images", tmp_path / "masks")
    assert 1 <= most_held <= 4  # one in each thread that reads


@pytest.mark.parametrize("verb", ["predict", "evaluate"])
def test_an_error_that_is_held_holds_no_cores(
    lab_run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    n_threads = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.setattr(ConfusionCounts, "__iadd__", lambda *_: 1 / 0)
    (tmp_path / "0003.png").mkdir()
    try:
        with pytest.raises((WriteError, ZeroDivisionError)) as held:
            verbs.predict(lab_run, scenes, tmp_path) if verb == "predict" else verbs.evaluate(lab_run, scenes)
        assert held.tb is not None
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(torch.get_num_threads).result() == 4
    finally:
        torch.set_num_threads(n_threads)


def test_evaluate_agrees_with_the_masks_that_predict_writes(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    scores = verbs.evaluate(lab_run, scenes)
    verbs.predict(lab_run, scenes, tmp_path)
    matrix = np.zeros((len(CLASSES), len(CLASSES)), np.int64)
    for path in sorted((scenes / "labels").iterdir()):
        clusters, labels = values(tmp_path / path.name), values(path)
        np.add.at(matrix, (clusters.ravel(), labels.ravel()), 1)
    assert np.array_equal(scores.matrix, matrix)
    stored = read_scores(lab_run / "scores.json")
    assert (stored.accuracy, stored.miou) == (scores.accuracy, scores.miou)
    raw = json.loads((lab_run / "scores.json").read_text())
    assert {"accuracy", "miou", "per_class", "cluster_to_class", "matrix"} <= raw.keys()
    assert 0 < raw["accuracy"] < 1
    assert raw["context"]["method"] == "lab"
    assert raw["n_images"] == 12


def test_off_the_cpu_evaluate_scores_one_image_at_a_time(
    lab_run: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The predictor pretends to be elsewhere; in one thread, no two images are in the device's memory."""
    on_cpu, threads = Predictor.load(RunFolder(lab_run)), []
    expected, score = verbs.evaluate(lab_run, scenes), Predictor.score

    def elsewhere(run: RunFolder, **_options: object) -> Predictor:
        predictor = Predictor(on_cpu.method, on_cpu.centers, on_cpu.settings)
        predictor.centers = on_cpu.centers.to("meta")
        return predictor

    def scored(_: Predictor, image: np.ndarray) -> torch.Tensor:
        threads.append(threading.current_thread())
        return score(on_cpu, image)

    monkeypatch.setattr(Predictor, "load", elsewhere)
    monkeypatch.setattr(Predictor, "score", scored)
    found = verbs.evaluate(lab_run, scenes)
    assert threads == [threading.main_thread()] * 12
    assert found.to_dict() == expected.to_dict()


def test_evaluate_takes_a_data_set_by_name(lab_run: Path, tmp_path: Path) -> None:
    for split, n_images in (("train", 3), ("val", 2)):
        write_scenes(tmp_path / split, n_images, size=(64, 96))
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / split / kind).rename(tmp_path / kind / split)
    told = Console(file=StringIO(), width=200)
    scores = verbs.evaluate(lab_run, tmp_path, data_set="potsdam3", console=told)
    assert "evaluating on Potsdam-3, train+val: 5 images\n" in told.file.getvalue()
    assert (scores.context["data"], scores.context["split"], len(scores.per_class)) == ("Potsdam-3", "train+val", 3)
    assert verbs.evaluate(lab_run, tmp_path, split="val").context["split"] == "val"
    with pytest.raises(DataError, match="holds no Cityscapes-27"):
        verbs.evaluate(lab_run, tmp_path, data_set="cityscapes27")


def test_evaluate_counts_the_boundaries_of_the_same_masks(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    scores = verbs.evaluate(lab_run, scenes)
    verbs.predict(lab_run, scenes, tmp_path)
    boundaries = BoundaryCounts(len(CLASSES), len(CLASSES))
    for path in sorted((scenes / "labels").iterdir()):
        boundaries.update(values(tmp_path / path.name), values(path))
    assert scores.boundaries is not None
    assert scores.boundaries.to_dict() == boundaries.to_dict()
    assert scores.boundary_f is not None
    assert 0 < scores.boundary_f < 1


@pytest.fixture(scope="module")
def splits(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scenes in two splits: 8 and 4."""
    root = tmp_path_factory.mktemp("splits")
    for kind in ("images", "labels"):
        for index, path in enumerate(sorted((scenes / kind).iterdir())):
            target = root / kind / ("train" if index < 8 else "val") / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    shutil.copy(scenes / "classes.txt", root)
    return root


@pytest.mark.parametrize("probe", PROBES)
def test_a_probe_is_scored_apart_and_changes_nothing_of_the_run(lab_run: Path, splits: Path, probe: str) -> None:
    plain = verbs.evaluate(lab_run, splits, split="val")
    before = {path.name: path.read_bytes() for path in lab_run.iterdir() if path.name != f"scores-{probe}.json"}
    console = Console(file=StringIO(), width=100)
    scores = verbs.evaluate(lab_run, splits, split="val", probe=probe, console=console)
    assert {name: (lab_run / name).read_bytes() for name in before} == before
    assert read_scores(lab_run / f"scores-{probe}.json").to_dict() == scores.to_dict()
    assert scores.options["probe"] == {"kind": probe, "labels_read": "train"} | PARAMETERS[probe]
    assert scores.cluster_to_class.tolist() == list(range(len(CLASSES)))
    assert scores.matrix.sum(axis=0).tolist() == plain.matrix.sum(axis=0).tolist()  # the same labels were counted
    assert "reads the labels of 8 images" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_probe_is_not_scored_on_labels_that_it_has_read(lab_run: Path, splits: Path) -> None:
    for options in ({"split": "train"}, {}, {"split": "val", "probe_split": "val"}):
        with pytest.raises(SettingsError, match="must be scored on another: give one, such as split=val"):
            verbs.evaluate(lab_run, splits, probe="linear", **options)
    with pytest.raises(SettingsError, match="probe=knn uses no clusters, so fresh_clusters has no effect"):
        verbs.evaluate(lab_run, splits, split="val", probe="knn", fresh_clusters=splits / "images")


def test_options_change_the_counts_and_stand_in_the_context(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, 8, seed=99, size=(64, 96))
    plain = verbs.evaluate(lab_run, scenes)
    assert plain.options == {}
    assert {plain.context[option] for option in ("flip", "refine", "fresh_clusters", "probe")} == {False, None}
    for option, value, told in (
        ("flip", True, True),
        ("refine", True, {"filter": "guided", "kernel_px": KERNEL_PX, "eps": EPS}),
        ("fresh_clusters", tmp_path, {"images": str(tmp_path)}),
    ):
        scores = verbs.evaluate(lab_run, scenes, **{option: value})
        assert scores.options == read_scores(lab_run / "scores.json").options == {option: told}
        assert not np.array_equal(scores.matrix, plain.matrix), option


def test_evaluate_tells_a_label_of_another_size(lab_run: Path, tmp_path: Path) -> None:
    write_scenes(tmp_path, 2, size=(64, 96))
    label = tmp_path / "labels" / "0001.png"
    Image.fromarray(np.zeros((50, 96), np.uint8)).save(label)
    with pytest.raises(DataError, match=r"0001\.png: is 96 x 50 pixels, its image 0001\.png is 96 x 64"):
        verbs.evaluate(lab_run, tmp_path)


def test_an_unfinished_run_does_not_predict(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", tiny())
    with pytest.raises(RunError, match="training has not ended"):
        verbs.predict(tmp_path / "run", tmp_path, tmp_path / "out")


@pytest.mark.parametrize("method", METHODS)
def test_labels_never_reach_training(scenes: Path, tmp_path: Path, method: str) -> None:
    """The same images, once with their labels, once with noise for labels: bit-identical weights."""
    noisy = tmp_path / "noisy"
    (noisy / "images").mkdir(parents=True)
    (noisy / "labels").mkdir()
    rng = np.random.default_rng(0)
    for path in sorted((scenes / "images").iterdir()):
        (noisy / "images" / path.name).write_bytes(path.read_bytes())
        noise = rng.integers(0, 6, (64, 96), dtype=np.uint8)
        Image.fromarray(noise).save(noisy / "labels" / path.name)
    weights = [
        load_file(verbs.fit(root, tmp_path / f"run-{number}", of_method(method)).weights)
        for number, root in enumerate((scenes, noisy, scenes / "images"))
    ]
    for other in weights[1:]:
        assert all(torch.equal(weights[0][name], other[name]) for name in weights[0])


def test_a_hard_folder_goes_on_and_says_what_it_left_out(
    hard_folder: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    root, reasons = hard_folder
    run = verbs.fit(root, tmp_path / "run", tiny(**TRAINED))  # 5 images are good, for 4 classes
    left_out = {entry["file"]: entry["reason"] for entry in run.read_json("meta.json")["left_out"]}
    assert left_out.keys() == reasons.keys()
    for name, reason in reasons.items():
        assert re.search(reason, left_out[name])
    told = {Path(name).name for name, _ in verbs.predict(run.path, root, tmp_path / "masks")}
    assert told == reasons.keys() - {"one_pixel.png"}  # too small to train on, but it has a mask
    assert values(tmp_path / "masks" / "one_pixel.png").shape == (1, 1)
    assert values(tmp_path / "masks" / "wide.png").shape == (20, 30_000)
    with pytest.raises(TrainingError, match="5 usable images; at least 6 are needed: add images or lower n_classes"):
        verbs.fit(root, tmp_path / "more", tiny(6, **TRAINED))


def test_too_few_images_fail_in_words(scenes: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="12 usable images; at least 13 are needed"):
        verbs.fit(scenes, tmp_path / "run", tiny(13))


@pytest.mark.parametrize("name", ["photo.png", "photo.jpg"])
def test_masks_never_replace_images_or_lie_among_them(lab_run: Path, scenes: Path, tmp_path: Path, name: str) -> None:
    with Image.open(scenes / "images" / "0000.png") as image:
        image.convert("RGB").save(tmp_path / name)
    before = (tmp_path / name).read_bytes()
    for images in (tmp_path, tmp_path / name):
        with pytest.raises(RunError, match="holds the images, and a mask is not to be taken for one"):
            verbs.predict(lab_run, images, tmp_path)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "photo.png").symlink_to(tmp_path / name)
    with pytest.raises(RunError, match=r"photo.png: is one of the images, and a mask would replace it"):
        verbs.predict(lab_run, tmp_path / "links", _with_link(tmp_path / "out", "photo.png", tmp_path / name))
    assert (tmp_path / name).read_bytes() == before
    assert not (tmp_path / "classes.json").exists()


def _with_link(folder: Path, name: str, target: Path) -> Path:
    folder.mkdir()
    (folder / name).symlink_to(target)
    return folder


def test_masks_do_not_replace_what_a_person_has_said(lab_run: Path, scenes: Path) -> None:
    before = (lab_run / "classes.json").read_bytes()
    with pytest.raises(RunError, match="is the run itself; give another folder"):
        verbs.predict(lab_run, scenes, lab_run, raw=True)
    assert (lab_run / "classes.json").read_bytes() == before


def test_two_images_never_share_a_mask(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    for name in ("a.jpg", "a.png", "a.jpg.png", "x.png", "confidence/x.png"):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(scenes / "images" / "0000.png", tmp_path / "images" / name)
    with pytest.raises(DataError, match=r"a.jpg(.png)? and .*a.jpg(.png)?: both masks would be called a.jpg.png"):
        verbs.predict(lab_run, tmp_path / "images", tmp_path / "masks")
    (tmp_path / "images" / "a.jpg.png").unlink()
    with pytest.raises(DataError, match=r"confidence.x.png: would be a mask and a confidence map"):
        verbs.predict(lab_run, tmp_path / "images", tmp_path / "masks", confidence=True)
    verbs.predict(lab_run, tmp_path / "images", tmp_path / "masks")
    assert len(list((tmp_path / "masks").rglob("*.png"))) == 4


def test_masks_of_before_are_no_images(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes / "images", tmp_path / "images")
    verbs.predict(lab_run, tmp_path / "images", tmp_path / "images" / "out")
    assert len(list_images(tmp_path / "images")) == 12
    assert len(list_images(tmp_path / "images" / "out")) == 12  # whoever names the folder itself may have them
    (tmp_path / "images" / "out" / "classes.json").write_text("{}")  # not ours
    assert len(list_images(tmp_path / "images")) == 24


def test_masks_are_not_added_to_those_of_another_meaning(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    run = shutil.copytree(lab_run, tmp_path / "run")
    verbs.predict(run, scenes, tmp_path / "masks")
    (tmp_path / "masks" / "0003.png").write_bytes(b"")  # as a power cut may leave it
    (tmp_path / "masks" / "0004.png").unlink()
    verbs.name(run, {0: "sky"})
    verbs.predict(run, scenes, tmp_path / "masks", resume=True)
    assert all(values(mask).shape == (64, 96) for mask in (tmp_path / "masks").glob("*.png"))
    verbs.merge(run, 0, [1])
    (tmp_path / "masks" / "0003.png").unlink()
    with pytest.raises(RunError, match="masks were written before classes were merged or hidden"):
        verbs.predict(run, scenes, tmp_path / "masks", resume=True)
    verbs.predict(run, scenes, tmp_path / "masks")
    assert not any((values(mask) == 1).any() for mask in (tmp_path / "masks").glob("*.png"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (tiny(13, **TRAINED), "at least 13 are needed"),
        (tiny(backbone={"name": "test_resnet", "weights": "missing.safetensors"}), "missing.safetensors: no such file"),
        (tiny(backbone={"name": "resnet51"}), "timm has no such network"),
    ],
)
def test_a_fit_that_is_refused_leaves_its_folder_free(
    scenes: Path, tmp_path: Path, settings: Settings, message: str
) -> None:
    with pytest.raises(ContextsegError, match=message):
        verbs.fit(scenes, tmp_path / "run", settings)
    assert list((tmp_path / "run").glob("[!.]*")) == []
    verbs.fit(scenes, tmp_path / "run", tiny(method="lab"))


@pytest.mark.parametrize("device", ["gpu", "cuda:77"])
def test_a_device_that_is_not_there_is_told(lab_run: Path, scenes: Path, tmp_path: Path, device: str) -> None:
    for verb in (
        lambda: verbs.predict(lab_run, scenes, tmp_path / "out", device=device),
        lambda: verbs.evaluate(lab_run, scenes, device=device),
        lambda: verbs.export(lab_run, scenes, tmp_path / "out", format="png", device=device),
    ):
        with pytest.raises(SettingsError, match=f"device: got '{device}', which cannot be used here .*; cpu can"):
            verb()


def test_masks_of_two_runs_are_not_mixed(
    lab_run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_off(*_: object) -> Iterator[None]:
        raise KeyboardInterrupt
        yield

    other = verbs.fit(scenes, tmp_path / "other", tiny(len(CLASSES), method="lab", seed=1)).path
    verbs.predict(lab_run, scenes, tmp_path / "masks")
    before = {path: path.read_bytes() for path in (tmp_path / "masks").rglob("*.*")}
    with pytest.raises(RunError, match="masks: its masks are of another run; give another folder, or leave out"):
        verbs.predict(other, scenes, tmp_path / "masks", resume=True)
    assert {path: path.read_bytes() for path in before} == before
    with monkeypatch.context() as stopped:
        stopped.setattr(verbs, "map_looks", broken_off)
        with pytest.raises(KeyboardInterrupt):
            verbs.predict(other, scenes, tmp_path / "masks")
    verbs.predict(other, scenes, tmp_path / "masks", resume=True)
    verbs.predict(other, scenes, tmp_path / "alone")
    for path in list_images(tmp_path / "alone"):
        assert path.read_bytes() == (tmp_path / "masks" / path.name).read_bytes()


def test_images_are_never_removed_as_masks_of_another_run(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    shutil.copytree(scenes / "images", tmp_path / "confidence")
    before = {path: path.read_bytes() for path in (tmp_path / "confidence").iterdir()}
    (tmp_path / ".clusters").write_text("others")
    verbs.predict(lab_run, tmp_path / "confidence", tmp_path)
    assert {path: path.read_bytes() for path in before} == before


def test_resume_adds_the_confidence_that_is_missing(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    verbs.predict(lab_run, scenes, tmp_path / "both", confidence=True)
    verbs.predict(lab_run, scenes, tmp_path / "later")
    verbs.predict(lab_run, scenes, tmp_path / "later", confidence=True, resume=True)
    both, later = (
        {path.relative_to(tmp_path / out): path.read_bytes() for path in (tmp_path / out).rglob("*.*")}
        for out in ("both", "later")
    )
    assert later == both
    assert any(name.parts[0] == "confidence" for name in later)


def test_masks_need_a_folder(lab_run: Path, scenes: Path, tmp_path: Path) -> None:
    (tmp_path / "mask.png").touch()
    with pytest.raises(RunError, match=r"mask\.png: is a file; give a folder"):
        verbs.predict(lab_run, scenes, tmp_path / "mask.png")


def test_a_split_for_a_probe_wants_a_probe(lab_run: Path, scenes: Path) -> None:
    with pytest.raises(SettingsError, match="probe_split=val says whose labels a probe reads, and there is none"):
        verbs.evaluate(lab_run, scenes, probe_split="val")
