"""COCO's files, read by pycocotools and, for panoptic PNGs, after the format's description."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from exported_masks import ID_OF_NAME, values
from pycocotools.coco import COCO

from contextseg.classes import Classes
from contextseg.errors import LibraryError
from contextseg.export.coco import CocoPanopticWriter, CocoRleWriter


def box_of(mask):
    """Return [x, y, width, height] of the pixels that are set, the slow way."""
    rows, columns = np.nonzero(mask)
    x, y = columns.min(), rows.min()
    return [x, y, columns.max() - x + 1, rows.max() - y + 1]


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_panoptic(exported):
    found = exported(CocoPanopticWriter)
    file = read_json(found.path / "annotations" / "panoptic_default.json")
    name_of = {category["id"]: category["name"] for category in file["categories"]}
    assert {name: number - 1 for number, name in name_of.items()} == ID_OF_NAME
    assert all(category["isthing"] == 0 for category in file["categories"])
    assert [image["file_name"] for image in file["images"]] == list(found.names)
    for image, annotation, names in zip(file["images"], file["annotations"], found.names.values(), strict=True):
        assert annotation["image_id"] == image["id"]
        assert (image["height"], image["width"]) == names.shape
        rgb = values(found.path / "annotations" / "panoptic_default" / annotation["file_name"]).astype(int)
        ids = rgb[..., 0] + 256 * rgb[..., 1] + 256**2 * rgb[..., 2]
        segments = annotation["segments_info"]
        read = np.full(names.shape, "", names.dtype)
        for segment in segments:
            mask = ids == segment["id"]
            read[mask] = name_of[segment["category_id"]]
            assert segment["area"] == mask.sum() > 0
            assert segment["bbox"] == box_of(mask)
        assert np.array_equal(read, names)
        assert len(segments) == len(set(names.ravel()) - {""})


def test_panoptic_of_more_classes_than_a_byte_holds(tmp_path):
    writer = CocoPanopticWriter(tmp_path, Classes.numbered(300).merge(0, [299]))
    writer.add(Path("a.jpg"), Path("a.png"), np.array([[254, 255, 256, 298, 299]], np.uint16))
    writer.finish()
    rgb = values(tmp_path / "annotations" / "panoptic_default" / "a.png")
    # 254 + 1 = 255; 256 = 0 + 256 * 1; 257 = 1 + 256; 299 = 43 + 256; 299 is part of 0, which is 1
    assert rgb.tolist() == [[[255, 0, 0], [0, 1, 0], [1, 1, 0], [43, 1, 0], [1, 0, 0]]]
    segments = read_json(tmp_path / "annotations" / "panoptic_default.json")["annotations"][0]["segments_info"]
    assert [segment["category_id"] for segment in segments] == [1, 255, 256, 257, 299]


# pycocotools 2.0.11 reads arrays in a way that NumPy 2 warns of.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_run_lengths(exported):
    found = exported(CocoRleWriter)
    coco = COCO(str(found.path / "annotations" / "instances_default.json"))
    name_of = {number: category["name"] for number, category in coco.cats.items()}
    assert {name: number - 1 for number, name in name_of.items()} == ID_OF_NAME
    assert [image["file_name"] for image in coco.dataset["images"]] == list(found.names)
    for image_id, names in zip(coco.getImgIds(), found.names.values(), strict=True):
        read = np.full(names.shape, "", names.dtype)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=image_id))
        for annotation in annotations:
            mask = coco.annToMask(annotation).astype(bool)
            assert (read[mask] == "").all()
            read[mask] = name_of[annotation["category_id"]]
            assert annotation["area"] == mask.sum() > 0
            assert annotation["bbox"] == box_of(mask)
        assert np.array_equal(read, names)
    ids = [annotation["id"] for annotation in coco.dataset["annotations"]]
    assert ids == list(range(1, 1 + len(ids)))


@pytest.mark.parametrize("writer_class", [CocoPanopticWriter, CocoRleWriter])
def test_no_image_is_a_file_all_the_same(tmp_path, writer_class):
    writer_class(tmp_path, Classes.numbered(2)).finish()
    (path,) = (tmp_path / "annotations").glob("*.json")
    file = read_json(path)
    assert (file["images"], file["annotations"], len(file["categories"])) == ([], [], 2)


def test_an_absent_library_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pycocotools.mask", None)
    with pytest.raises(LibraryError, match=r"pycocotools, which is not installed: pip install 'contextseg\[coco\]'"):
        CocoRleWriter(tmp_path / "out", Classes.numbered(2))
    assert not (tmp_path / "out").exists()
