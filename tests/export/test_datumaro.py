"""Datumaro's folders, read after the format's description."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.classes import Classes
from contextseg.errors import DataError
from contextseg.export.datumaro import DatumaroWriter

STEMS = {"a.jpg": "a", "may/b.png": "may__b", "may/deep down/ü.tif": "may__deep down__ü", "one.png": "one"}


def test_colours_say_the_names(exported):
    found = exported(DatumaroWriter)
    meta = json.loads((found.path / "dataset_meta.json").read_text(encoding="utf-8"))
    assert list(meta["label_map"].values()) == ["background", "sky", "dirt road", "Häuser & Höfe", "class 5"]
    assert meta["label_map"][meta["background_label"]] == "background"
    colour_of = {name: meta["segmentation_colors"][int(index)] for index, name in meta["label_map"].items()}
    for image, names in found.names.items():
        with Image.open(found.path / "masks" / f"{STEMS[image]}.png") as mask:
            indices, colours = np.array(mask), np.array(mask.convert("RGB"))
        expected = np.array([[colour_of[name or "background"] for name in row] for row in names])
        assert np.array_equal(colours, expected)
        name_of = {int(index): name for index, name in meta["label_map"].items()}
        assert {name_of[index] for index in np.unique(indices)} == {name or "background" for name in names.ravel()}
        copy = found.path / "images" / f"{STEMS[image]}{Path(image).suffix}"
        assert copy.read_bytes() == (found.images / image).read_bytes()
    assert {path.name for path in found.path.iterdir()} == {"images", "masks", "dataset_meta.json"}


def test_two_images_whose_folders_make_one_name(tmp_path):
    Image.new("RGB", (4, 3)).save(tmp_path / "image.png")
    writer = DatumaroWriter(tmp_path / "out", Classes.numbered(2))
    writer.add(tmp_path / "image.png", Path("may/b.png"), np.zeros((3, 4), np.uint8))
    with pytest.raises(DataError, match="would be the second image named may__b"):
        writer.add(tmp_path / "image.png", Path("may__b.png"), np.zeros((3, 4), np.uint8))


def test_classes_that_the_format_cannot_hold(tmp_path):
    with pytest.raises(DataError, match="Datumaro's format holds at most 254 classes"):
        DatumaroWriter(tmp_path, Classes.numbered(300))
