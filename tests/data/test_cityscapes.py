from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.data.image_files import list_images
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError

# The 34 ids of the label files, written out: id, name, class of 27, class of 19 (the benchmark's trainId), instances.
TABLE = [
    (0, "unlabeled", 255, 255, False),
    (1, "ego vehicle", 255, 255, False),
    (2, "rectification border", 255, 255, False),
    (3, "out of roi", 255, 255, False),
    (4, "static", 255, 255, False),
    (5, "dynamic", 255, 255, False),
    (6, "ground", 255, 255, False),
    (7, "road", 0, 0, False),
    (8, "sidewalk", 1, 1, False),
    (9, "parking", 2, 255, False),
    (10, "rail track", 3, 255, False),
    (11, "building", 4, 2, False),
    (12, "wall", 5, 3, False),
    (13, "fence", 6, 4, False),
    (14, "guard rail", 7, 255, False),
    (15, "bridge", 8, 255, False),
    (16, "tunnel", 9, 255, False),
    (17, "pole", 10, 5, False),
    (18, "polegroup", 11, 255, False),
    (19, "traffic light", 12, 6, False),
    (20, "traffic sign", 13, 7, False),
    (21, "vegetation", 14, 8, False),
    (22, "terrain", 15, 9, False),
    (23, "sky", 16, 10, False),
    (24, "person", 17, 11, True),
    (25, "rider", 18, 12, True),
    (26, "car", 19, 13, True),
    (27, "truck", 20, 14, True),
    (28, "bus", 21, 15, True),
    (29, "caravan", 22, 255, True),
    (30, "trailer", 23, 255, True),
    (31, "train", 24, 16, True),
    (32, "motorcycle", 25, 17, True),
    (33, "bicycle", 26, 18, True),
]
COLUMN = {"cityscapes27": 2, "cityscapes19": 3}
ALL_IDS = np.arange(34, dtype=np.uint8).reshape(2, 17)


def add(root: Path, split: str, name: str, label: np.ndarray = ALL_IDS) -> None:
    city = name.split("_")[0]
    image = root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png"
    labels = root / "gtFine" / split / city
    for folder in (image.parent, labels):
        folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", label.shape[::-1]).save(image)
    Image.fromarray(label).save(labels / f"{name}_gtFine_labelIds.png")
    # what lies beside the label files and is not one
    Image.new("RGBA", label.shape[::-1]).save(labels / f"{name}_gtFine_color.png")
    Image.fromarray(label.astype(np.uint16)).save(labels / f"{name}_gtFine_instanceIds.png")
    (labels / f"{name}_gtFine_polygons.json").write_text("{}")


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "train", "aachen_000000_000019")
    add(tmp_path, "train", "ulm_000000_000019")
    add(tmp_path, "val", "munster_000000_000019")
    add(tmp_path, "test", "berlin_000000_000019")
    return tmp_path


@pytest.mark.parametrize("name", COLUMN)
def test_every_id(root, name):
    data = open_labelled(root, "val", name)
    expected = np.array([row[COLUMN[name]] for row in TABLE]).reshape(2, 17)
    np.testing.assert_array_equal(data.read_label(0), expected)
    classes = {row[COLUMN[name]]: row for row in TABLE if row[COLUMN[name]] != 255}
    assert data.space.names == tuple(classes[i][1] for i in range(len(classes)))
    assert data.space.name == f"Cityscapes-{len(classes)}"
    assert data.space.groups == {
        "things": tuple(i for i, row in sorted(classes.items()) if row[4]),
        "stuff": tuple(i for i, row in sorted(classes.items()) if not row[4]),
    }


@pytest.mark.parametrize("value", [34, 255])
def test_other_ids_are_errors(root, value):
    add(root, "val", "munster_000000_000019", np.full((2, 3), value, np.uint8))
    with pytest.raises(
        DataError, match=rf"labelIds\.png: holds the label {value}, expected 0 to 33 for the 27 classes$"
    ):
        open_labelled(root, "val").read_label(0)


def test_splits(root):
    data = open_labelled(root)
    assert (data.data_set, data.split) == ("cityscapes27", "train+val")  # the labels of test are not public
    assert [item.name for item in data.items] == [
        "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        "leftImg8bit/train/ulm/ulm_000000_000019_leftImg8bit.png",
        "leftImg8bit/val/munster/munster_000000_000019_leftImg8bit.png",
    ]
    assert [item.label.name for item in open_labelled(root, "val").items] == [
        "munster_000000_000019_gtFine_labelIds.png"
    ]
    with pytest.raises(DataError, match="no split 'test'; there are: train, val"):
        open_labelled(root, "test")


def test_pairs_are_told_by_city(root):
    path = root / "gtFine" / "train" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png"
    path.rename(path.parents[1] / "aachen" / path.name)
    with pytest.raises(
        DataError, match=r"1 images have no label in .*gtFine/train .*: ulm_000000_000019_leftImg8bit\.png"
    ):
        open_labelled(root, "train")


def test_without_labels(root):
    (root / "gtFine").rename(root / "elsewhere")
    with pytest.raises(
        DataError,
        match=r"(?s)holds no Cityscapes-19 \(its folders: elsewhere, leftImg8bit\)\. Source: Cityscapes .*"
        r"nothing is downloaded\. Expected:\nleftImg8bit/\{train,val\}/CITY",
    ):
        open_labelled(root, "val", "cityscapes19")


def test_labels_are_not_listed_for_training(root):
    assert [path.name[-15:] for path in list_images(root)] == ["leftImg8bit.png"] * 4
