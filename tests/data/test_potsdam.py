from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError

# The contest's six classes in its order, and where no class is told: colour, id, class of the three.
TABLE = [
    ((255, 255, 255), 0, 0),  # impervious surfaces: roads
    ((0, 0, 255), 1, 1),  # buildings
    ((0, 255, 255), 2, 2),  # low vegetation
    ((0, 255, 0), 3, 2),  # trees
    ((255, 255, 0), 4, 0),  # cars
    ((255, 0, 0), 5, 1),  # clutter
    ((0, 0, 0), 255, 255),
]
COLOURS = np.array([row[0] for row in TABLE], np.uint8)[None]
IDS = np.array([row[1] for row in TABLE], np.uint8)[None]
EXPECTED = [[row[2] for row in TABLE]]


def add(root: Path, image: str, label: str, values: np.ndarray) -> None:
    for path in (root / "images" / image, root / "labels" / label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (7, 1)).save(root / "images" / image)
    Image.fromarray(values).save(root / "labels" / label)


@pytest.mark.parametrize("values", [COLOURS, IDS], ids=["colours", "ids"])
@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("0001.png", "0001.png"),
        ("0001.tif", "0001.tif"),
        ("0001.tif", "0001.png"),
        ("top_potsdam_2_10_RGB.tif", "top_potsdam_2_10_label.tif"),
        ("top_potsdam_2_10_IRRG.TIF", "top_potsdam_2_10_label.tif"),
        ("train/a_1.png", "train/a_1.tiff"),
    ],
)
def test_every_class_as_colour_and_as_id(tmp_path, image, label, values):
    add(tmp_path, image, label, values)
    data = open_labelled(tmp_path, data_set="potsdam3")
    assert data.items[0].label == tmp_path / "labels" / label
    np.testing.assert_array_equal(data.read_label(0), EXPECTED)
    assert data.space.names == ("roads and cars", "buildings and clutter", "vegetation and trees")
    assert data.space.groups == {}  # cars are of one class with roads


def test_splits(tmp_path):
    add(tmp_path, "train/a.png", "train/a.png", IDS)
    add(tmp_path, "train/b.png", "train/b.png", IDS)
    add(tmp_path, "val/c.png", "val/c.png", COLOURS)
    data = open_labelled(tmp_path, data_set="potsdam3")
    assert (data.split, len(data)) == ("train+val", 3)
    assert len(open_labelled(tmp_path, "val", "potsdam3")) == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            np.array([[[255, 255, 254]]], np.uint8),
            r"holds the label \(255, 255, 254\), expected 0 to 5, \(0, 0, 0\), \(0, ",
        ),
        (np.array([[6]], np.uint8), "holds the label 6, expected 0 to 5,"),
    ],
)
def test_other_colours_and_ids_are_errors(tmp_path, values, message):
    add(tmp_path, "a.png", "a.png", values)
    with pytest.raises(DataError, match=message):
        open_labelled(tmp_path, data_set="potsdam3").read_label(0)


def test_two_images_of_one_tile(tmp_path):
    add(tmp_path, "a_RGB.tif", "a_label.tif", IDS)
    add(tmp_path, "a_IRRG.tif", "a_label.tif", IDS)
    with pytest.raises(DataError, match=r"a_IRRG\.tif and a_RGB\.tif would share one label"):
        open_labelled(tmp_path, data_set="potsdam3")
