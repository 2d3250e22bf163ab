from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.data.image_files import list_images
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError

# The 21 classes by the order of the challenge, and the border.
NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
ALL_IDS = np.append(np.arange(21), 255).astype(np.uint8).reshape(2, 11)


def palette_png(label: np.ndarray) -> Image.Image:
    """Return a label as VOC stores it: an index into colours, which are no ids."""
    image = Image.frombytes("P", label.shape[::-1], label.tobytes())
    image.putpalette([channel for i in range(256) for channel in (128 * (i & 1), 64 * (i & 2), (7 * i) % 256)])
    return image


@pytest.fixture
def root(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation", "Annotations"):
        (base / folder).mkdir(parents=True)
    for name in ("2007_000032", "2007_000039", "2007_000033", "2008_000008"):
        Image.new("RGB", (11, 2)).save(base / "JPEGImages" / f"{name}.jpg")
    for name in ("2007_000032", "2007_000039", "2007_000033"):  # the fourth is an image for detection alone
        palette_png(ALL_IDS).save(base / "SegmentationClass" / f"{name}.png")
    lists = base / "ImageSets" / "Segmentation"
    (lists / "train.txt").write_text("2007_000039\n2007_000032\n")
    (lists / "val.txt").write_text("2007_000033\n")
    (lists / "trainval.txt").write_text("2007_000032\n2007_000033\n2007_000039\n")
    return tmp_path


def test_every_id(root):
    data = open_labelled(root, "val")
    assert (data.data_set, data.space.names) == ("voc2012", NAMES)
    np.testing.assert_array_equal(data.read_label(0), ALL_IDS)
    assert data.space.groups == {"things": tuple(range(1, 21))}


def test_other_ids_are_errors(root):
    path = root / "VOCdevkit/VOC2012/SegmentationClass/2007_000033.png"
    palette_png(np.array([[0, 21, 255]], np.uint8)).save(path)
    with pytest.raises(DataError, match="holds the label 21, expected 0 to 20 for the 21 classes, or 255"):
        open_labelled(root, "val").read_label(0)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["2007_000032", "2007_000039"]),
        ("val", ["2007_000033"]),
        ("trainval", ["2007_000032", "2007_000033", "2007_000039"]),
        (None, ["2007_000032", "2007_000039", "2007_000033"]),
    ],
)
@pytest.mark.parametrize("above", ["", "VOCdevkit", "VOCdevkit/VOC2012"])
def test_splits_are_lists(root, split, names, above):
    data = open_labelled(root / above, split)
    assert [item.label.stem for item in data.items] == names
    assert [item.image.stem for item in data.items] == names
    assert data.items[0].name == str(Path("VOCdevkit/VOC2012/JPEGImages").relative_to(above) / f"{names[0]}.jpg")
    assert data.split == (split or "train+val")


def test_listed_files_must_be_there(root):
    lists = root / "VOCdevkit/VOC2012/ImageSets/Segmentation"
    (lists / "val.txt").write_text("2007_000033\n2008_000008\n")
    with pytest.raises(DataError, match=r"1 images have no label in .*SegmentationClass .*: 2008_000008\.jpg"):
        open_labelled(root, "val")
    (lists / "val.txt").write_text("2007_000033\n2007_000042\n")
    with pytest.raises(DataError, match=r"1 listed images are not in .*JPEGImages: 2007_000042\. Source: PASCAL VOC"):
        open_labelled(root, "val")
    with pytest.raises(DataError, match="no split 'test'; there are: train, val, trainval"):
        open_labelled(root, "test")
    (lists / "val.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(DataError, match=r"val\.txt: cannot be read as a list of names, one a line"):
        open_labelled(root, "val")


def test_without_lists(root):
    for path in (root / "VOCdevkit/VOC2012/ImageSets/Segmentation").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"(?s)holds no PASCAL VOC 2012 .* Expected:\n.*ImageSets/Segmentation"):
        open_labelled(root, data_set="voc2012")
    with pytest.raises(DataError, match="no split 'val'; there are: none"):
        open_labelled(root, "val")


def test_labels_are_not_listed_for_training(root):
    assert {path.suffix for path in list_images(root)} == {".jpg"}
