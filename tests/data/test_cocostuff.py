import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contextseg.conventions import IGNORE
from contextseg.data.cocostuff import (
    COCOSTUFF3,
    COCOSTUFF15,
    COCOSTUFF27,
    COCOSTUFF171,
    FEW_6,
    FINE_NAMES,
    FINE_OF_COARSE,
    NEVER_LABELLED,
    STUFF_7,
    meets_rule,
)
from contextseg.data.image_files import list_images
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError

# All 183 values that a label file of the 27 may hold, on 3 x 61 pixels.
ALL_VALUES = np.append(np.arange(182), 255).astype(np.uint8).reshape(3, 61)
PUBLISHED_GAPS = "street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door, blender, hair brush"
NAMES = ("cocostuff27", "cocostuff15", "cocostuff3", "cocostuff171")


def add(root, split, name, label):
    for kind in ("images", "annotations"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    Image.new("RGB", label.shape[::-1]).save(root / "images" / split / f"{name}.jpg")
    Image.fromarray(label).save(root / "annotations" / split / f"{name}.png")


def write_list(root, split, text, list_file="Coco164kFull_Stuff_Coarse_7.txt"):
    path = root / "curated" / split / list_file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def names(data):
    return [item.name for item in data.items]


@pytest.fixture
def root(tmp_path):
    """Two images to train on and one to evaluate on, in COCO-Stuff's layout."""
    add(tmp_path, "train2017", "000000000009", ALL_VALUES)
    add(tmp_path, "train2017", "000000000025", ALL_VALUES)
    add(tmp_path, "val2017", "000000000139", ALL_VALUES)
    (tmp_path / "annotations" / "instances_val2017.json").write_text("{}")
    return tmp_path


@pytest.fixture(scope="session")
def expected_of(shared_data):
    """Value in a label file -> class, for each of the four, made from the reference table alone."""
    reference = json.loads((shared_data / "labels" / "cocostuff27.json").read_text())
    coarse_of = {fine["id"]: fine["coarse"] for fine in reference["fine"]}
    coarse_names = [coarse["name"] for coarse in reference["coarse"]]
    few = {coarse_names.index(name): i for i, name in enumerate(("sky-stuff", "plant-stuff", "ground-stuff"))}
    gaps = PUBLISHED_GAPS.split(", ")
    labelled = [fine["id"] for fine in reference["fine"] if fine["name"] not in gaps]
    tables = {
        "cocostuff27": coarse_of,
        "cocostuff15": {fine: coarse - 12 if coarse >= 12 else 255 for fine, coarse in coarse_of.items()},
        "cocostuff3": {fine: few.get(coarse, 255) for fine, coarse in coarse_of.items()},
        "cocostuff171": {fine: i for i, fine in enumerate(labelled)},
    }
    return {name: table | {255: 255} for name, table in tables.items()}


def test_each_fine_id_has_one_coarse_class():
    fine = [i for ids in FINE_OF_COARSE.values() for i in ids]
    assert sorted(fine) == list(range(182))
    assert len(set(FINE_NAMES)) == 182


def test_things_come_before_stuff():
    space = COCOSTUFF27.code.space
    assert space.n_classes == 27
    assert space.groups == {"things": tuple(range(12)), "stuff": tuple(range(12, 27))}
    # COCO's own order: ids up to 90 are things
    assert all((fine <= 90) == (coarse < 12) for fine, coarse in COCOSTUFF27.code.class_of_value.items() if fine < 182)


def test_things_and_stuff_of_the_others():
    assert COCOSTUFF15.code.space.groups == {"things": (), "stuff": tuple(range(15))}
    assert COCOSTUFF3.code.space.groups == {"things": (), "stuff": (0, 1, 2)}
    assert COCOSTUFF171.code.space.groups == {"things": tuple(range(80)), "stuff": tuple(range(80, 171))}


def test_classes_of_the_others_by_hand():
    assert COCOSTUFF15.code.space.names == COCOSTUFF27.code.space.names[12:]
    assert COCOSTUFF3.code.space.names == ("sky-stuff", "plant-stuff", "ground-stuff")
    # banner is the first stuff after 80 things; person, the first thing; wood the last of all
    assert [COCOSTUFF171.code.space.names[i] for i in (0, 79, 80, 170)] == ["person", "toothbrush", "banner", "wood"]
    assert ", ".join(FINE_NAMES[i] for i in NEVER_LABELLED) == PUBLISHED_GAPS


def test_tables_are_the_reference(shared_data, expected_of):
    reference = json.loads((shared_data / "labels" / "cocostuff27.json").read_text())
    assert list(FINE_NAMES) == [fine["name"] for fine in reference["fine"]]
    space = COCOSTUFF27.code.space
    assert list(space.names) == [coarse["name"] for coarse in reference["coarse"]]
    for group in ("thing", "stuff"):
        ids = space.groups["things" if group == "thing" else group]
        assert ids == tuple(coarse["id"] for coarse in reference["coarse"] if coarse["group"] == group)
    for data_set, name in zip((COCOSTUFF27, COCOSTUFF15, COCOSTUFF3, COCOSTUFF171), NAMES, strict=True):
        assert data_set.code.class_of_value == expected_of[name]


def test_every_value_is_read(root):
    data = open_labelled(root, "val")
    assert (data.data_set, data.space) == ("cocostuff27", COCOSTUFF27.code.space)
    label = data.read_label(0)
    assert label.dtype == np.uint8
    assert label.shape == (3, 61)
    # told by hand: person, bicycle, street sign (never labelled), banner, sky, wood
    flat = label.ravel()
    assert [data.space.names[flat[value]] for value in (0, 1, 11, 91, 156, 181)] == [
        "person-things", "vehicle-things", "outdoor-things", "textile-stuff", "sky-stuff", "solid-stuff",
    ]  # fmt: skip
    assert flat[182] == IGNORE
    assert set(flat) == {*range(27), 255}


def test_every_value_is_read_as_stuff_alone(root):
    flat = open_labelled(root, "val", "cocostuff15").read_label(0).ravel()
    assert set(flat[:91]) == {IGNORE}
    assert set(flat[91:]) == {*range(15), 255}
    flat = open_labelled(root, "val", "cocostuff3").read_label(0).ravel()
    # sky: clouds, sky-other; branch is the first plant, dirt the first ground
    assert np.flatnonzero(flat == 0).tolist() == [105, 156]
    assert (flat[93], flat[110]) == (1, 2)
    assert np.count_nonzero(flat != IGNORE) == 2 + 9 + 11


def test_fine_classes_have_no_gaps(root):
    label = np.setdiff1d(ALL_VALUES, NEVER_LABELLED)[None]
    add(root, "val2017", "000000000139", label)
    flat = open_labelled(root, "val", "cocostuff171").read_label(0).ravel()
    assert flat.tolist() == [*range(171), 255]
    add(root, "val2017", "000000000139", ALL_VALUES)
    with pytest.raises(
        DataError, match=r"holds the label 11, 25, 28, \.\.\., expected 0 to 10, 12 to 24, 26 to 27, 30"
    ):
        open_labelled(root, "val", "cocostuff171").read_label(0)


def test_values_between_the_last_class_and_255_are_errors(root):
    add(root, "val2017", "000000000139", np.array([[0, 182, 254]], np.uint8))
    for name in NAMES[:3]:
        with pytest.raises(DataError, match=r"139\.png: holds the label 182, 254, expected 0 to 181 for the"):
            open_labelled(root, "val", name).read_label(0)


@pytest.mark.parametrize(
    ("split", "resolved", "n_images"),
    [
        ("train", "train-all", 2),
        ("train2017", "train-all", 2),
        ("val", "val-all", 1),
        ("val2017-all", "val-all", 1),
        (None, "train-all+val-all", 3),
    ],
)
def test_splits_say_how_they_were_chosen(root, split, resolved, n_images):
    data = open_labelled(root, split)
    assert (data.split, len(data)) == (resolved, n_images)


@pytest.mark.parametrize("split", ["test", "2017", "train2014", "", "val-best", "train-"])
def test_unknown_split(root, split):
    with pytest.raises(
        DataError, match=f"no split '{split}'; there are: train, train-curated, train-rule, train-all, val, "
    ):
        open_labelled(root, split)


def test_a_set_with_one_split(root):
    (root / "images" / "train2017").rename(root / "elsewhere")
    assert len(open_labelled(root)) == 1
    with pytest.raises(DataError, match="no split 'train'; there are: val, val-curated, val-rule, val-all"):
        open_labelled(root, "train")


def test_curated_list_restricts_its_split(root):
    write_list(root, "train2017", "000000000025\n")
    data = open_labelled(root)
    assert names(data) == ["images/train2017/000000000025.jpg", "images/val2017/000000000139.jpg"]
    assert data.split == "train-curated+val-all"
    assert len(open_labelled(root, "train-curated")) == 1
    assert len(open_labelled(root, "train-all")) == 2
    write_list(root, "train2017", "000000000025\n000000000030\n")
    with pytest.raises(DataError, match=r"1 listed images are not in .*train2017: 000000000030"):
        open_labelled(root)


def test_the_three_classes_have_a_list_of_their_own(root):
    write_list(root, "train2017", "000000000025\n")
    write_list(root, "train2017", "000000000009\n", "Coco164kFew_Stuff_6.txt")
    (of_15,) = names(open_labelled(root, "train", "cocostuff15"))
    (of_3,) = names(open_labelled(root, "train", "cocostuff3"))
    assert (of_15[-6:], of_3[-6:]) == ("25.jpg", "09.jpg")


def test_without_its_list_a_curated_split_says_what_to_do(root):
    with pytest.raises(
        DataError,
        match=r"curated/val2017/Coco164kFull_Stuff_Coarse_7\.txt: no such list; it comes with IIC .*val-rule .*val-all",
    ):
        open_labelled(root, "val-curated")


def stuff_map(height, width, n_stuff, fine=168):
    """Return a map whose first pixels are tree, and the rest unlabelled."""
    label = np.full(height * width, 255, np.uint8)
    label[:n_stuff] = fine
    return label.reshape(height, width)


# 360 x 364 = 131,040 pixels, of which 75 % are 98,280
@pytest.mark.parametrize(
    ("height", "width", "n_stuff", "meets"),
    [
        (360, 364, 98_280, True),
        (360, 364, 98_279, False),
        (364, 360, 98_280, True),
        (359, 364, 359 * 364, False),
        (364, 359, 359 * 364, False),
        (361, 361, 97_740, False),  # 75 % of 130,321 pixels are 97,740.75
        (361, 361, 97_741, True),
    ],
)
def test_curation_rule_at_its_limits(height, width, n_stuff, meets):
    assert meets_rule(stuff_map(height, width, n_stuff), (168,)) == meets


def test_curation_rule_chooses_a_split(root):
    whole = 360 * 364
    add(root, "val2017", "exact", stuff_map(360, 364, 98_280))
    add(root, "val2017", "less", stuff_map(360, 364, 98_279))
    add(root, "val2017", "low", stuff_map(359, 364, whole - 364))
    add(root, "val2017", "narrow", stuff_map(364, 359, whole - 364))
    add(root, "val2017", "things", stuff_map(360, 364, whole, fine=0))
    add(root, "val2017", "building", stuff_map(360, 364, whole, fine=95))
    chosen = {name: [path[15:] for path in names(open_labelled(root, "val-rule", name))] for name in NAMES}
    for name in ("cocostuff27", "cocostuff15", "cocostuff171"):
        assert chosen[name] == ["building.jpg", "exact.jpg"]
    assert chosen["cocostuff3"] == ["exact.jpg"]  # a building is none of sky, plant and ground
    with pytest.raises(DataError, match="train2017: no images found; none there is part of train-rule"):
        open_labelled(root, "train-rule")
    (root / "annotations" / "val2017" / "less.png").unlink()
    with pytest.raises(DataError, match=r"1 images have no label in .*: less\.jpg"):
        open_labelled(root, "val-rule")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 181) | st.just(255), min_size=4, max_size=40))
def test_curation_rule_counts_stuff(values):
    # each row has one value, so that the share of rows is the share of pixels
    rows = np.resize(np.array(values, np.uint8), 360)
    label = np.repeat(rows[:, None], 361, axis=1)
    for curation, classes in ((STUFF_7, range(12, 27)), (FEW_6, (21, 22, 23))):
        fine_ids = [fine for i, ids in enumerate(FINE_OF_COARSE.values()) if i in classes for fine in ids]
        assert meets_rule(label, curation.fine_ids) == (sum(value in fine_ids for value in rows.tolist()) >= 270)


def test_missing_label(root):
    (root / "annotations" / "train2017" / "000000000009.png").unlink()
    with pytest.raises(
        DataError,
        match=r"1 images have no label in .*annotations/train2017.*: 000000000009\.jpg\. Source: COCO .*IIC.*Expected",
    ):
        open_labelled(root)


def test_labels_are_not_listed_for_training(root):
    assert {path.suffix for path in list_images(root)} == {".jpg"}


@pytest.mark.parametrize("name", NAMES)
def test_real_pairs(shared_data, expected_of, name):
    root = shared_data / "cocostuff_sample"
    data = open_labelled(root, data_set=name)
    assert (data.data_set, len(data)) == (name, 21)
    assert (len(open_labelled(root, "train", name)), len(open_labelled(root, "val2017", name))) == (13, 8)
    table = np.array([expected_of[name].get(value, -1) for value in range(256)])
    for i, item in enumerate(data.items):
        with Image.open(item.image) as image, Image.open(item.label) as stored:
            label = data.read_label(i)
            assert label.shape == image.size[::-1]
            np.testing.assert_array_equal(label, table[np.asarray(stored)])


def test_real_pairs_that_meet_the_rule(shared_data):
    root = shared_data / "cocostuff_sample"
    expected = []
    for path in sorted((root / "annotations").rglob("*.png")):
        with Image.open(path) as image:
            label = np.asarray(image)
        if min(label.shape) >= 360 and ((label >= 91) & (label <= 181)).mean() >= 0.75:
            expected.append(path.stem)
    chosen = [item.image.stem for split in ("train-rule", "val-rule") for item in open_labelled(root, split).items]
    assert chosen == expected
    assert 0 < len(chosen) < 21
