from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.conventions import IGNORE
from contextseg.data.image_files import list_images, relative_name
from contextseg.data.label_space import LabelSpace
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError

LABEL = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)


def add(root: Path, name: str, label: np.ndarray | Image.Image = LABEL, image_suffix: str = "jpg") -> None:
    """Write an image of grey and its label."""
    label = label if isinstance(label, Image.Image) else Image.fromarray(label)
    image_path, label_path = root / "images" / f"{name}.{image_suffix}", root / "labels" / f"{name}.png"
    for path in (image_path, label_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", label.size, "grey").save(image_path)
    label.save(label_path)


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "train/a")
    add(tmp_path, "train/deep/b", image_suffix="png")
    add(tmp_path, "val/c", image_suffix="TIFF")
    (tmp_path / "classes.txt").write_text("sky\nsea\nrock\n\n")
    return tmp_path


def test_folder_layout(root):
    data = open_labelled(root)
    assert (data.data_set, data.split, len(data), data.root) == ("folder", "train+val", 3, root)
    assert [item.name for item in data.items] == [
        "images/train/a.jpg",
        "images/train/deep/b.png",
        "images/val/c.TIFF",
    ]
    assert data.items[1].label == root / "labels/train/deep/b.png"
    assert data.space == LabelSpace(root.name, ("sky", "sea", "rock"))
    label = data.read_label(0)
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, LABEL)


def test_names_are_those_of_the_unlabelled_list(root):
    assert [item.name for item in open_labelled(root).items] == [relative_name(p, root) for p in list_images(root)]


def test_splits(root):
    assert [item.name for item in open_labelled(root, "val").items] == ["images/val/c.TIFF"]
    assert len(open_labelled(root, "train")) == 2
    for wrong in ("test", "train/deep", ".."):
        with pytest.raises(DataError, match=f"no split '{wrong}'; there are: train, val"):
            open_labelled(root, wrong)


def test_other_folders_are_one_split(root):
    add(root, "may/d")
    assert open_labelled(root).split == "all"
    assert len(open_labelled(root)) == 4
    assert len(open_labelled(root, "may")) == 1


@pytest.mark.parametrize("stray", ["images/d.jpg", "labels/d.png", "labels/test/d.png"])
def test_files_beside_the_splits_are_not_overlooked(root, stray):
    path = root / stray
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(LABEL).save(path)
    with pytest.raises(DataError, match=rf"1 (images|labels) have no (label|image) in .*: {path.name}"):
        open_labelled(root)


def test_hidden_files_beside_the_splits_are(root):
    (root / "images" / ".DS_Store").touch()
    assert open_labelled(root).split == "train+val"


def test_without_classes_file_the_largest_id_of_all_splits_counts(root):
    (root / "classes.txt").unlink()
    add(root, "val/d", np.array([[0, 6, 255]], np.uint8))
    space = open_labelled(root, "train").space
    assert space.n_classes == 7
    assert space.names[::6] == ("class 0", "class 6")


def test_without_classes_file_ids_must_be_ids(tmp_path):
    add(tmp_path, "a", np.full((2, 3), IGNORE, np.uint8))
    with pytest.raises(DataError, match=r"the labels hold ignored pixels \(255\) only; expected class ids from 0"):
        open_labelled(tmp_path)
    add(tmp_path, "b", np.array([[0, 1000]], np.uint16))
    with pytest.raises(DataError, match=r"b\.png: holds the label 1000, expected class ids from 0 to 254"):
        open_labelled(tmp_path)


def test_ids_out_of_range(root):
    add(root, "val/c", np.array([[0, 3, 255, 4, 9, 200]], np.uint8), "TIFF")
    data = open_labelled(root)
    with pytest.raises(
        DataError,
        match=r"c\.png: holds the label 3, 4, 9, \.\.\., expected 0 to 2 for the 3 classes, or 255",
    ):
        data.read_label(2)


def test_images_and_labels_must_pair_up(root):
    for name in "efgh":
        add(root, f"val/{name}")
        (root / f"labels/val/{name}.png").unlink()
    with pytest.raises(
        DataError,
        match=r"4 images have no label in .* \(a \.png of the same name\): e\.jpg, f\.jpg, g\.jpg, \.\.\.",
    ):
        open_labelled(root)
    assert len(open_labelled(root, "train")) == 2
    for name in "efgh":
        (root / f"images/val/{name}.jpg").unlink()
    (root / "images/val/c.TIFF").unlink()
    add(root, "val/i")
    (root / "labels/val/c.jpg").touch()
    with pytest.raises(DataError, match=r"1 labels have no image in .*images/val: c\.png"):
        open_labelled(root)


def test_two_images_cannot_share_a_label(root):
    add(root, "train/a", image_suffix="png")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png would share one label; rename one of them"):
        open_labelled(root)


def test_folders_that_are_no_data_set(tmp_path):
    with pytest.raises(DataError, match="missing: no such folder"):
        open_labelled(tmp_path / "missing")
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"no labelled data set \(its folders: images\); expected images/ and labels/"):
        open_labelled(tmp_path)
    (tmp_path / "labels").mkdir()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match=r"images: no images found; expected files ending in"):
        open_labelled(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has 0 classes, expected 1 to 255"),
        ("a\n\nb", "class 1 has no name"),
        ("a\nb\na", "'a' names classes 0 and 2"),
    ],
)
def test_classes_file_that_names_no_classes(root, text, message):
    (root / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        open_labelled(root)


def test_classes_file_from_windows(root):
    (root / "classes.txt").write_bytes("\ufeffciel\r\nmer\r\nrocher é\r\n".encode())
    assert open_labelled(root).space.names == ("ciel", "mer", "rocher é")


@pytest.mark.parametrize(
    ("name", "split", "n_images", "n_classes"),
    [
        ("camvid", None, 468, 11),
        ("camvid", "train", 367, 11),
        ("camvid", "val", 101, 11),
        ("msrc21", None, 335, 21),
    ],
)
def test_shared_sets(shared_data, name, split, n_images, n_classes):
    data = open_labelled(shared_data / name, split)
    assert (len(data), data.space.n_classes, data.space.name) == (n_images, n_classes, name)
    for i in range(0, n_images, 40):
        label = data.read_label(i)
        with Image.open(data.items[i].image) as image:
            assert label.shape == image.size[::-1]
        np.testing.assert_array_equal(label, np.asarray(Image.open(data.items[i].label)))
