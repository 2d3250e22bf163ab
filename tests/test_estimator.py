import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from contextseg import ContextSegmenter, hide, merge, name
from contextseg.colours import palette
from contextseg.data.image_files import list_images
from contextseg.data.images import read_image
from contextseg.errors import DataError, ImageError, RunError, SettingsError

SMALL = {"method": "lab", "data": {"image_px": 64}, "views": {"frame_px": 64}, "clustering": {"max_points": 2000}}


def test_folder_files_arrays_and_pictures_are_the_same(scenes: Path, tmp_path: Path) -> None:
    paths = list_images(scenes)
    image = read_image(paths[0])
    pictures = []
    for path in paths:
        with Image.open(path) as picture:
            pictures.append(picture.convert("RGB"))
    arrays = [read_image(path) for path in paths]
    inputs = [scenes, str(scenes), paths, arrays, np.stack(arrays), pictures]
    predictions = [ContextSegmenter(4, **SMALL).fit(given).predict(image) for given in inputs]
    for prediction in predictions[1:]:
        assert np.array_equal(prediction.clusters, predictions[0].clusters)
    assert predictions[0].clusters.shape == image.shape[:2]
    assert len(np.unique(predictions[0].clusters)) > 1


def test_a_run_is_kept_where_asked_and_loads_again(scenes: Path, tmp_path: Path) -> None:
    fitted = ContextSegmenter(n_classes=4, run=tmp_path / "run", **SMALL).fit(scenes)
    assert fitted.run_.path == tmp_path / "run"
    path = list_images(scenes)[1]
    loaded = ContextSegmenter.load(tmp_path / "run")
    assert loaded.settings == fitted.settings
    for given in (path, str(path), read_image(path)):
        assert np.array_equal(loaded.predict(given).clusters, fitted.predict(path).clusters)


def test_errors() -> None:
    with pytest.raises(RunError, match="call fit"):
        ContextSegmenter(4, **SMALL).predict(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(SettingsError, match=r"did you mean 'training\.epochs'"):
        ContextSegmenter(4, training={"epoch": 3})
    with pytest.raises(DataError, match=r"expected \(H, W, 3\) uint8 RGB"):
        ContextSegmenter(4, **SMALL).fit([np.zeros((64, 64), np.uint8)] * 5)


def test_overlay_shows_the_classes_as_people_have_left_them(scenes: Path, tmp_path: Path) -> None:
    segmenter = ContextSegmenter(4, run=tmp_path / "run", **SMALL).fit(scenes)
    path = list_images(scenes)[0]
    pixels, clusters = read_image(path), segmenter.predict(path).clusters
    hidden, kept, merged = np.unique(clusters)[:3].tolist()
    merge(tmp_path / "run", kept, [merged])
    hide(tmp_path / "run", [hidden])
    shown = np.asarray(segmenter.overlay(path, alpha=1))
    assert (shown[clusters == merged] == palette(4)[kept]).all()
    assert np.array_equal(shown[clusters == hidden], pixels[clusters == hidden])
    assert np.array_equal(np.asarray(segmenter.overlay(path, alpha=0)), pixels)


def test_what_a_notebook_shows(scenes: Path, tmp_path: Path) -> None:
    segmenter = ContextSegmenter(4, run=tmp_path / "run", **SMALL)
    assert "<b>lab</b>, 4 classes, not fitted" in segmenter._repr_html_()
    prediction = segmenter.fit(scenes).predict(list_images(scenes)[0])
    with Image.open(io.BytesIO(prediction._repr_png_())) as picture:
        assert np.array_equal(np.asarray(picture), palette(4)[prediction.clusters])
    name(tmp_path / "run", {0: "sky & <b>sea</b>"})
    page = segmenter._repr_html_()
    assert "0 sky &amp; &lt;b&gt;sea&lt;/b&gt;" in page
    assert page.count("color:rgb(") == 4


def test_pictures_are_read_as_files_are(scenes: Path, tmp_path: Path) -> None:
    """16 bits are stretched, and what is transparent is white."""
    segmenter = ContextSegmenter(4, **SMALL).fit(scenes)
    deep = Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64) * 20)
    clear = Image.open(scenes / "images" / "0000.png").convert("RGBA")
    clear.putalpha(Image.new("L", clear.size, 0))
    for file, picture in (("deep.png", deep), ("clear.png", clear)):
        picture.save(tmp_path / file)
        found = segmenter.predict(picture).clusters
        assert np.array_equal(found, segmenter.predict(tmp_path / file).clusters)


def test_pictures_are_turned_as_their_files_are(scenes: Path, tmp_path: Path) -> None:
    segmenter = ContextSegmenter(4, run=tmp_path / "run", **SMALL).fit(scenes)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    Image.fromarray(read_image(list_images(scenes)[0])).save(tmp_path / "turned.jpg", exif=exif)
    with Image.open(tmp_path / "turned.jpg") as picture:
        found = segmenter.predict(picture)
    assert np.array_equal(found.clusters, segmenter.predict(tmp_path / "turned.jpg").clusters)


def test_the_limit_of_pixels_is_that_of_the_settings(scenes: Path, tmp_path: Path) -> None:
    small = SMALL | {"data": {"image_px": 64, "max_pixels": 64 * 96}}
    segmenter = ContextSegmenter(4, run=tmp_path / "run", **small).fit(scenes)
    Image.new("RGB", (97, 64)).save(tmp_path / "large.png")
    with pytest.raises(ImageError, match="more than max_pixels = 6,144"):
        segmenter.predict(tmp_path / "large.png")


@pytest.mark.parametrize(("images", "message"), [([], "empty sequence"), ([np.zeros((0, 5, 3), np.uint8)], "expected")])
def test_nothing_to_learn_from(images: list[NDArray[np.uint8]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        ContextSegmenter(4, **SMALL).fit(images)
