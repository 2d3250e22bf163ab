"""VOC's folders, read by Pillow after the format's description."""

import numpy as np
import pytest
from exported_masks import values
from PIL import Image

from contextseg.classes import Classes
from contextseg.errors import DataError
from contextseg.export.voc import VocWriter, _voc_colours


def test_colours_say_the_names(exported):
    found = exported(VocWriter)
    lines = (found.path / "labelmap.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "background:0,0,0::"
    assert lines[1] == "sky:105,0,225::"
    colour_of = {line.split(":")[0]: tuple(map(int, line.split(":")[1].split(","))) for line in lines}
    assert list(colour_of) == ["background", "sky", "dirt road", "Häuser & Höfe", "class 5"]
    stems = (found.path / "ImageSets" / "Segmentation" / "default.txt").read_text(encoding="utf-8").splitlines()
    assert stems == ["a", "may/b", "may/deep down/ü", "one"]
    for stem, names in zip(stems, found.names.values(), strict=True):
        with Image.open(found.path / "SegmentationClass" / f"{stem}.png") as mask:
            assert mask.mode == "P"
            colours = np.array(mask.convert("RGB"))
        expected = np.array([[colour_of[name or "background"] for name in row] for row in names])
        assert np.array_equal(colours, expected)


def test_each_class_is_one_object_and_the_background_is_none(exported):
    found = exported(VocWriter)
    classes = values(found.path / "SegmentationClass" / "a.png")
    objects = values(found.path / "SegmentationObject" / "a.png")
    assert np.array_equal(objects == 0, found.names["a.jpg"] == "")
    pairs = {tuple(pair) for pair in np.stack([classes, objects], axis=-1).reshape(-1, 2).tolist()}
    assert len(pairs) == len({one for one, _ in pairs}) == len({other for _, other in pairs}) == 5


def test_the_colours_of_objects_are_vocs():
    # The first colours of the VOC palette, as they are published.
    expected = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128], [128, 0, 128], [0, 128, 128]]
    expected += [[128, 128, 128], [64, 0, 0]]
    assert _voc_colours()[:9].tolist() == expected


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (Classes.numbered(255), "VOC holds at most 254 classes; the run has 255"),
        (Classes.numbered(3).rename({1: "background"}), r"class 1 is named 'background'.*`contextseg hide RUN 1`"),
        (Classes.numbered(3).rename({1: "a:b"}), "class 1: the name 'a:b' holds ':'"),
        (Classes.numbered(3).rename({2: "#1"}), "class 2: the name '#1'"),
    ],
)
def test_classes_that_voc_cannot_hold(tmp_path, classes, message):
    with pytest.raises(DataError, match=message):
        VocWriter(tmp_path, classes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("colour", "other"), [((0, 0, 0), "background"), ((105, 0, 225), "class 0")])
def test_classes_of_one_colour(tmp_path, colour, other):
    entries = list(Classes.numbered(3).entries)
    entries[2] = entries[2].model_copy(update={"colour": colour})
    with pytest.raises(DataError, match=f"'class 2' and '{other}' have the same colour .*change one in classes.json"):
        VocWriter(tmp_path, Classes(tuple(entries)))
    VocWriter(tmp_path, Classes(tuple(entries)).hide([2]))  # a colour that no mask shows disturbs nobody


def test_as_many_classes_as_voc_holds(tmp_path):
    writer = VocWriter(tmp_path, Classes.numbered(254))
    clusters = np.arange(254, dtype=np.uint8)[None]
    writer.add(tmp_path / "a.jpg", tmp_path / "a.png", clusters)
    assert np.array_equal(values(tmp_path / "a.png"), clusters + 1)
