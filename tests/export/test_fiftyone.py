"""FiftyOne's folders, read after the format's description: grey values, and their names in a file."""

import json
from pathlib import Path

import numpy as np
from exported_masks import values
from PIL import Image

from contextseg.classes import Classes
from contextseg.export.fiftyone import FiftyOneWriter


def test_values_have_names(exported):
    found = exported(FiftyOneWriter)
    targets = json.loads((found.path / "mask_targets.json").read_text(encoding="utf-8"))
    assert targets == {"1": "sky", "3": "dirt road", "4": "Häuser & Höfe", "6": "class 5"}
    name_of = np.array([targets.get(str(value), "") for value in range(7)])
    for image, names in found.names.items():
        mask = found.path / "labels" / Path(image).with_suffix(".png")
        with Image.open(mask) as opened:
            assert opened.mode == "L"
        assert np.array_equal(name_of[values(mask)], names)
        assert (found.path / "data" / image).read_bytes() == (found.images / image).read_bytes()


def test_images_that_differ_in_their_suffix_alone_keep_their_masks(tmp_path):
    writer = FiftyOneWriter(tmp_path / "out", Classes.numbered(3))
    for cluster, name in enumerate(("a.jpg", "a.png")):
        Image.new("RGB", (2, 2)).save(tmp_path / name)
        writer.add(tmp_path / name, Path(f"{name}.png"), np.full((2, 2), cluster, np.uint8))
    stems = {path.stem for path in (tmp_path / "out" / "data").iterdir()}
    assert stems == {path.stem for path in (tmp_path / "out" / "labels").iterdir()} == {"a.jpg", "a.png"}


def test_more_classes_than_a_byte_holds(tmp_path):
    Image.new("RGB", (3, 1)).save(tmp_path / "a.png")
    writer = FiftyOneWriter(tmp_path / "out", Classes.numbered(300).hide([7]))
    writer.add(tmp_path / "a.png", Path("a.png"), np.array([[7, 255, 299]], np.uint16))
    assert values(tmp_path / "out" / "labels" / "a.png").tolist() == [[0, 256, 300]]
