"""The verbs on classes and exports, on files: what a person has merged and hidden is what the tools get."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import rasterio
from PIL import Image

from contextseg import verbs
from contextseg.classes import Classes
from contextseg.clustering.own_centers import own_centers
from contextseg.data.scenes import CLASSES
from contextseg.errors import ClassesError, DataError, LibraryError, RunError, SettingsError
from contextseg.exporting import FORMATS
from contextseg.methods import METHODS
from contextseg.predictor import Predictor
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings

PLACE = {"crs": "EPSG:32633", "transform": rasterio.Affine(0.5, 0, 400_000, 0, -0.25, 5_800_000)}


def small(**values: object) -> Settings:
    shared = {"n_classes": len(CLASSES), "data": {"image_px": 64}, "views": {"frame_px": 64}}
    return make_settings(shared | {"clustering": {"max_points": 2000, "n_restarts": 1}} | values)


@pytest.fixture
def run(scenes: Path, tmp_path: Path) -> Path:
    """A run whose class 3 is part of 0 and whose class 5 is hidden; 1 and 2 have names."""
    path = verbs.fit(scenes, tmp_path / "run", small(method="lab")).path
    verbs.name(path, {1: "sky", 2: "road"})
    verbs.merge(path, 0, [3])
    verbs.hide(path, [5])
    return path


def clusters_of(run: Path, image: Path) -> np.ndarray:
    predictor = Predictor.load(RunFolder.open(run))
    with Image.open(image) as opened:
        return predictor.predict(np.asarray(opened.convert("RGB"))).clusters


def values(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


MASK_VALUES = np.array([0, 1, 2, 0, 4, 255])


def test_predict_writes_what_was_merged_and_hidden(run: Path, scenes: Path, tmp_path: Path) -> None:
    verbs.predict(run, scenes, tmp_path / "masks")
    for image in sorted((scenes / "images").iterdir()):
        expected = MASK_VALUES[clusters_of(run, image)]
        assert np.array_equal(values(tmp_path / "masks" / image.name), expected)
    assert Classes.read(tmp_path / "masks" / "classes.json") == Classes.read(run / "classes.json", len(CLASSES))


def test_a_merge_can_be_taken_back(run: Path, scenes: Path, tmp_path: Path) -> None:
    verbs.merge(run, 0, [3], undo=True)
    verbs.hide(run, [5], undo=True)
    verbs.predict(run, scenes / "images" / "0000.png", tmp_path / "masks")
    assert np.array_equal(values(tmp_path / "masks" / "0000.png"), clusters_of(run, scenes / "images" / "0000.png"))


def test_a_change_that_fails_leaves_the_file_as_it_was(run: Path) -> None:
    before = (run / "classes.json").read_bytes()
    for change in (
        lambda: verbs.merge(run, 3, [0]),
        lambda: verbs.name(run, {0: "sky"}),
        lambda: verbs.hide(run, [6]),
    ):
        with pytest.raises(ClassesError):
            change()
    assert verbs.name(run, {}) == Classes.read(run / "classes.json")
    assert (run / "classes.json").read_bytes() == before


def test_evaluate_counts_clusters_unless_it_is_asked(run: Path, scenes: Path) -> None:
    raw = verbs.evaluate(run, scenes)
    assert raw.context["merged"] is False
    assert (raw.matrix.sum(1) > 0).sum() == len(CLASSES)
    merged = verbs.evaluate(run, scenes, merged=True)
    assert merged.context["merged"] is True
    expected = raw.matrix.copy()
    expected[0] += expected[3]
    expected[3] = 0
    assert np.array_equal(merged.matrix, expected)  # hidden clusters count: they are wrong, not absent
    verbs.merge(run, 0, [3], undo=True)
    assert np.array_equal(verbs.evaluate(run, scenes).matrix, raw.matrix)


@pytest.mark.parametrize("other", [{"probe": "knn"}, {"fresh_clusters": Path("images")}])
def test_merges_join_the_clusters_of_the_run_alone(run: Path, scenes: Path, other: dict[str, object]) -> None:
    with pytest.raises(
        SettingsError, match=f"merged joins clusters of the run, which {next(iter(other))} does not use"
    ):
        verbs.evaluate(run, scenes, merged=True, **other)  # type: ignore[arg-type]


@pytest.fixture
def album(scenes: Path, tmp_path: Path) -> Path:
    """Images in sub-folders, one of them broken."""
    for place in ("a.png", "may/b.png"):
        (tmp_path / "album" / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "album" / place).write_bytes((scenes / "images" / "0003.png").read_bytes())
    (tmp_path / "album" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return tmp_path / "album"


@pytest.mark.parametrize(
    ("format_name", "files"),
    [
        ("png", {"a.png", "may/b.png", "classes.json"}),
        (
            "voc",
            {
                "labelmap.txt",
                "ImageSets/Segmentation/default.txt",
                "SegmentationClass/a.png",
                "SegmentationClass/may/b.png",
                "SegmentationObject/a.png",
                "SegmentationObject/may/b.png",
            },
        ),
        (
            "coco-panoptic",
            {
                "annotations/panoptic_default.json",
                "annotations/panoptic_default/a.png",
                "annotations/panoptic_default/may/b.png",
            },
        ),
        ("coco-rle", {"annotations/instances_default.json"}),
        ("label-studio", {"tasks.json", "labels.xml"}),
        ("datumaro", {"dataset_meta.json", "images/a.png", "images/may__b.png", "masks/a.png", "masks/may__b.png"}),
        ("fiftyone", {"mask_targets.json", "data/a.png", "data/may/b.png", "labels/a.png", "labels/may/b.png"}),
        ("npy", {"a.npy", "may/b.npy"}),
    ],
)
def test_each_format_has_its_files_and_names_what_it_left_out(
    run: Path, album: Path, tmp_path: Path, format_name: str, files: set[str]
) -> None:
    out = tmp_path / "out"
    left_out = dict(verbs.export(run, album, out, format=format_name))
    assert {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()} == files
    broken = str(album / "broken.jpg")
    assert left_out.keys() == {broken}
    assert left_out[broken]


def test_the_formats_above_are_all() -> None:
    (mark,) = test_each_format_has_its_files_and_names_what_it_left_out.pytestmark
    assert {format_name for format_name, _ in mark.args[1]} == FORMATS.keys() - {"geotiff"}


def test_an_export_without_any_image_is_an_error(run: Path, album: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no image could be used\. .*: .*; 2 more were left out"):
        verbs.export(run, album, tmp_path / "out", format="geotiff")  # none of them has a place on the earth
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["classes.json"]
    with pytest.raises(DataError, match=r"no image could be used\. .*broken\.jpg: [^;]*$"):
        verbs.export(run, album / "broken.jpg", tmp_path / "other", format="png")


def test_the_pixels_of_an_export_are_those_of_predict(run: Path, album: Path, tmp_path: Path) -> None:
    verbs.export(run, album, tmp_path / "png", format="png")
    verbs.export(run, album, tmp_path / "fiftyone", format="fiftyone")
    verbs.predict(run, album, tmp_path / "masks")
    for name in ("a.png", "may/b.png"):
        mask = values(tmp_path / "masks" / name)
        assert np.array_equal(values(tmp_path / "png" / name), mask)
        assert np.array_equal(values(tmp_path / "fiftyone" / "labels" / name), np.where(mask == 255, 0, mask + 1))


def test_embeddings_give_the_clusters_again(scenes: Path, tmp_path: Path) -> None:
    settings = small(method="kmeans", backbone={"name": "test_resnet"})
    run = verbs.fit(scenes, tmp_path / "run", settings).path
    verbs.export(run, scenes / "images" / "0002.png", tmp_path / "out", format="npy")
    embedded = np.load(tmp_path / "out" / "0002.npy")
    predictor = Predictor.load(RunFolder.open(run))
    assert embedded.dtype == np.float16
    assert embedded.shape == (predictor.centers.shape[1], 64 // 4, 96 // 4)
    np.testing.assert_allclose(np.linalg.norm(embedded.astype(np.float32), axis=0), 1, atol=2e-3)
    with Image.open(scenes / "images" / "0002.png") as image:
        expected = predictor.score(np.asarray(image)).argmax(0).numpy()
    found = np.einsum("kd,dhw->khw", predictor.centers.numpy(), embedded.astype(np.float32)).argmax(0)
    assert (found == expected).mean() > 0.98


def test_a_geotiff_is_predicted_at_its_own_resolution(run: Path, scenes: Path, tmp_path: Path) -> None:
    """A raster of 64 x 96 pixels is what `predict` would resize to itself: the clusters must be the same."""
    (tmp_path / "rasters").mkdir()
    with Image.open(scenes / "images" / "0001.png") as image:
        pixels = np.asarray(image)
    profile = {"driver": "GTiff", "count": 3, "height": 64, "width": 96, "dtype": "uint8", "photometric": "rgb"}
    with rasterio.open(tmp_path / "rasters" / "one.tif", "w", **profile, **PLACE) as target:
        target.write(np.moveaxis(pixels, -1, 0))
    assert verbs.export(run, tmp_path / "rasters", tmp_path / "out", format="geotiff") == []
    with rasterio.open(tmp_path / "out" / "one.tif") as written:
        assert (written.crs, written.transform) == (rasterio.CRS.from_string(PLACE["crs"]), PLACE["transform"])
        found = written.read(1)
    expected = MASK_VALUES[clusters_of(run, scenes / "images" / "0001.png")]
    assert (found == expected).mean() > 0.999  # a tie between two clusters may fall either way
    assert verbs.export(run, tmp_path / "rasters", tmp_path / "half", format="geotiff", scale=0.5) == []
    with rasterio.open(tmp_path / "half" / "one.tif") as written:
        assert written.shape == (64, 96)
        assert 0.3 < (written.read(1) == expected).mean() < 0.999


def test_what_a_geotiff_holds_where_it_has_no_data_changes_nothing(
    run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS["lab"], "own_centers", True)
    monkeypatch.setattr(METHODS["lab"], "centers_within", lambda _self, points, centers: own_centers(points, centers))
    (tmp_path / "rasters").mkdir()
    with Image.open(scenes / "images" / "0001.png") as image:
        pixels = np.asarray(image).clip(1, 254)
    profile = {"driver": "GTiff", "count": 3, "height": 64, "width": 192, "dtype": "uint8", "photometric": "rgb"}
    for nodata in (0, 255):
        with rasterio.open(tmp_path / "rasters" / f"{nodata}.tif", "w", **profile, nodata=nodata, **PLACE) as target:
            target.write(np.pad(np.moveaxis(pixels, -1, 0), ((0, 0), (0, 0), (0, 96)), constant_values=nodata))
    assert verbs.export(run, tmp_path / "rasters", tmp_path / "out", format="geotiff") == []
    with rasterio.open(tmp_path / "out" / "0.tif") as black, rasterio.open(tmp_path / "out" / "255.tif") as white:
        classes = black.read(1)
        assert np.array_equal(classes[:, :92], white.read(1)[:, :92])  # beside the border scores are of both sides
    assert len(np.unique(classes[:, :92])) >= 3
    assert (classes[:, 96:] == 255).all()


def test_an_onnx_file_gives_the_pixels_of_predict(run: Path, scenes: Path, tmp_path: Path) -> None:
    assert verbs.export(run, None, tmp_path / "new" / "run.onnx", format="onnx") == []
    verbs.predict(run, scenes, tmp_path / "masks")
    session = onnxruntime.InferenceSession(tmp_path / "new" / "run.onnx")
    agree = []
    for image in sorted((scenes / "images").iterdir()):
        classes, _ = session.run(["classes", "confidence"], {"pixels": values(image)})
        agree.append((classes == values(tmp_path / "masks" / image.name)).mean())
    assert min(agree) >= 0.999  # 3 is part of 0, 5 is 255


def test_an_onnx_file_needs_its_extra(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(
        LibraryError, match=r"needs onnxscript, which is not installed: pip install 'contextseg\[onnx\]'"
    ):
        verbs.export(run, None, tmp_path / "run.onnx", format="onnx")
    assert not (tmp_path / "run.onnx").exists()


def test_masks_need_images(run: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="images: got none, but voc holds masks of images"):
        verbs.export(run, None, tmp_path / "out", format="voc")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"format": "cvat"}, SettingsError, "format: got 'cvat'; there are png, voc, .*, geotiff, npy and onnx"),
        ({"format": "onnx", "device": "cuda"}, SettingsError, "device: got cuda, but an ONNX file is made on the CPU"),
        ({"format": "onnx"}, SettingsError, "images: got .*album, but an ONNX file is made of the run alone"),
        ({"format": "voc", "scale": 2.0}, SettingsError, "scale: got 2, but only geotiff reads it; the format is voc"),
        ({"format": "geotiff", "scale": 20.0}, SettingsError, r"scale: got 20; it must lie in 0\.1\.\.10"),
    ],
)
def test_options_that_make_no_sense(
    run: Path, album: Path, tmp_path: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        verbs.export(run, album, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_an_export_does_not_mix_with_what_is_there(run: Path, album: Path) -> None:
    with pytest.raises(RunError, match="album: is not empty; give a new folder"):
        verbs.export(run, album, album, format="png")


def test_a_file_of_classes_that_was_edited_wrongly_stops_every_verb(run: Path, album: Path, tmp_path: Path) -> None:
    entries = json.loads((run / "classes.json").read_text())
    (run / "classes.json").write_text(json.dumps(entries[:-1]))
    for verb in (
        lambda: verbs.predict(run, album, tmp_path / "out"),
        lambda: verbs.export(run, album, tmp_path / "out", format="png"),
        lambda: verbs.name(run, {0: "x"}),
    ):
        with pytest.raises(ClassesError, match=r"classes.json: holds 5 classes, the run has 6 clusters"):
            verb()
    assert not (tmp_path / "out").exists()


def test_memory_does_not_follow_the_size_of_a_raster(run: Path, tmp_path: Path) -> None:
    """16 times the pixels: held whole, raster, its resized copy, scores and clusters would be 270 MiB more."""
    for name, side in (("small", 1500), ("large", 6000)):
        (tmp_path / name).mkdir()
        profile = {"driver": "GTiff", "count": 3, "height": side, "width": side, "dtype": "uint8", "tiled": True}
        with rasterio.open(tmp_path / name / "raster.tif", "w", **profile, **PLACE) as target:
            for top in range(0, side, 500):
                rows = np.random.default_rng(top).integers(0, 256, (3, 500, side), np.uint8)
                target.write(rows, window=((top, top + 500), (0, side)))
    code = (
        "import resource, sys; from pathlib import Path; from contextseg import verbs\n"
        "for name in ('small', 'large'):\n"
        "    assert verbs.export(Path('run'), Path(name), Path('out-' + name), format='geotiff') == []\n"
        "    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
    )
    # What is freed goes back to the system at once, so that the peak is of what was held.
    env = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    arguments = [sys.executable, "-c", code]
    done = subprocess.run(arguments, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)
    small_kib, large_kib = map(int, done.stdout.split())
    assert large_kib - small_kib < 80 * 1024
    with rasterio.open(tmp_path / "out-large" / "raster.tif") as written:
        assert written.shape == (6000, 6000)
        corner = written.read(1, window=((5990, 6000), (5990, 6000)))
        assert set(np.unique(corner)) <= {0, 1, 2, 4, 255}
