import json

import numpy as np
import pytest
from PIL import Image

from contextseg.conventions import IGNORE
from contextseg.data.cocostuff import CLASS_OF_VALUE, FINE_OF_COARSE, N_FINE, SPACE
from contextseg.data.images import list_images
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError

# All 183 values that a label file may hold, on 3 x 61 pixels.
ALL_VALUES = np.append(np.arange(182), 255).astype(np.uint8).reshape(3, 61)


@pytest.fixture
def root(tmp_path):
    """Two images to train on and one to evaluate on, in COCO-Stuff's layout."""
    for split, names in (("train2017", ["000000000009", "000000000025"]), ("val2017", ["000000000139"])):
        for kind in ("images", "annotations"):
            (tmp_path / kind / split).mkdir(parents=True)
        for name in names:
            Image.new("RGB", (61, 3)).save(tmp_path / "images" / split / f"{name}.jpg")
            Image.fromarray(ALL_VALUES).save(tmp_path / "annotations" / split / f"{name}.png")
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{}")
    return tmp_path


def test_each_fine_id_has_one_coarse_class():
    fine = [i for ids in FINE_OF_COARSE.values() for i in ids]
    assert sorted(fine) == list(range(N_FINE)) == list(range(182))
    assert CLASS_OF_VALUE.keys() == {*range(182), 255}


def test_things_come_before_stuff():
    assert SPACE.n_classes == 27
    assert SPACE.groups == {"things": tuple(range(12)), "stuff": tuple(range(12, 27))}
    # COCO's own order: ids up to 90 are things
    assert all((fine <= 90) == (coarse < 12) for fine, coarse in CLASS_OF_VALUE.items() if fine != IGNORE)


def test_table_is_the_reference(shared_data):
    reference = json.loads((shared_data / "labels" / "cocostuff27.json").read_text())
    assert list(SPACE.names) == [coarse["name"] for coarse in reference["coarse"]]
    assert {fine["id"]: fine["coarse"] for fine in reference["fine"]} | {255: 255} == CLASS_OF_VALUE
    for group in ("thing", "stuff"):
        ids = SPACE.groups["things" if group == "thing" else group]
        assert ids == tuple(coarse["id"] for coarse in reference["coarse"] if coarse["group"] == group)


def test_every_value_is_read(root):
    data = open_labelled(root, "val")
    assert (data.layout, data.space) == ("cocostuff", SPACE)
    label = data.read_label(0)
    assert label.dtype == np.uint8
    assert label.shape == (3, 61)
    # told by hand: person, bicycle, street sign (never labelled), banner, sky, wood
    flat = label.ravel()
    assert [SPACE.names[flat[value]] for value in (0, 1, 11, 91, 156, 181)] == [
        "person-things", "vehicle-things", "outdoor-things", "textile-stuff", "sky-stuff", "solid-stuff",
    ]  # fmt: skip
    assert flat[182] == IGNORE
    assert set(flat) == {*range(27), 255}


def test_values_between_the_last_class_and_255_are_errors(root):
    path = root / "annotations" / "val2017" / "000000000139.png"
    Image.fromarray(np.array([[0, 182, 254]], np.uint8)).save(path)
    with pytest.raises(DataError, match=r"139\.png: holds the label 182, 254, expected 0 to 181 for the 27 classes"):
        open_labelled(root, "val").read_label(0)


@pytest.mark.parametrize(("split", "n_images"), [("train", 2), ("train2017", 2), ("val", 1), ("val2017", 1), (None, 3)])
def test_splits(root, split, n_images):
    assert len(open_labelled(root, split)) == n_images


@pytest.mark.parametrize("split", ["test", "2017", "train2014", ""])
def test_unknown_split(root, split):
    with pytest.raises(DataError, match=f"no split '{split}'; there are: train2017, val2017"):
        open_labelled(root, split)


def test_a_set_with_one_split(root):
    (root / "images" / "train2017").rename(root / "elsewhere")
    assert len(open_labelled(root)) == 1
    with pytest.raises(DataError, match="no split 'train'; there are: val2017"):
        open_labelled(root, "train")


def test_curated_list_restricts_its_split(root):
    path = root / "curated" / "train2017" / "Coco164kFull_Stuff_Coarse_7.txt"
    path.parent.mkdir(parents=True)
    path.write_text("000000000025\n")
    assert [item.name for item in open_labelled(root).items] == [
        "images/train2017/000000000025.jpg",
        "images/val2017/000000000139.jpg",
    ]
    path.write_text("000000000025\n000000000030\n")
    with pytest.raises(DataError, match="train2017: 1 listed images are not there: 000000000030"):
        open_labelled(root)


def test_missing_label(root):
    (root / "annotations" / "train2017" / "000000000009.png").unlink()
    with pytest.raises(DataError, match=r"1 images have no label in .*annotations/train2017.*: 000000000009\.jpg"):
        open_labelled(root)


def test_labels_are_not_listed_for_training(root):
    assert {path.suffix for path in list_images(root)} == {".jpg"}


def test_real_pairs(shared_data):
    root = shared_data / "cocostuff_sample"
    data = open_labelled(root)
    assert (data.layout, len(data)) == ("cocostuff", 21)
    assert (len(open_labelled(root, "train")), len(open_labelled(root, "val2017"))) == (13, 8)
    reference = json.loads((shared_data / "labels" / "cocostuff27.json").read_text())
    coarse_of = {fine["id"]: fine["coarse"] for fine in reference["fine"]} | {255: 255}
    for i, item in enumerate(data.items):
        with Image.open(item.image) as image, Image.open(item.label) as stored:
            label = data.read_label(i)
            assert label.shape == image.size[::-1]
            expected = np.vectorize(coarse_of.__getitem__, otypes=[np.uint8])(np.asarray(stored)[::4, ::4])
            np.testing.assert_array_equal(label[::4, ::4], expected)
