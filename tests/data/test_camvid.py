from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.data.image_files import list_images
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError

NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
# SegNet's 12 values, the last of which is void, and 255
ALL_VALUES = np.append(np.arange(12), 255).astype(np.uint8)[None]
EXPECTED = [[*range(11), 255, 255]]


def add(root: Path, image: str, label: str) -> None:
    for path in (root / image, root / label):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (13, 1)).save(root / image)
    Image.fromarray(ALL_VALUES).save(root / label)


@pytest.fixture(params=["segnet", "folder"])
def root(request, tmp_path):
    for split, n_images in (("train", 3), ("val", 2), ("test", 1)):
        image, label = (split, f"{split}annot") if request.param == "segnet" else (f"images/{split}", f"labels/{split}")
        for i in range(n_images):
            add(tmp_path, f"{image}/{split}_{i}.png", f"{label}/{split}_{i}.png")
    return tmp_path


def test_every_value_in_both_layouts(root):
    data = open_labelled(root, "val", "camvid11")
    np.testing.assert_array_equal(data.read_label(1), EXPECTED)
    assert data.space.names == NAMES
    assert data.space.groups == {"things": (8, 9, 10), "stuff": tuple(range(8))}


def test_splits(root):
    data = open_labelled(root, data_set="camvid11")
    assert (data.split, len(data)) == ("train+val+test", 6)
    assert [len(open_labelled(root, split, "camvid11")) for split in ("train", "val", "test")] == [3, 2, 1]
    with pytest.raises(DataError, match="no split 'trainannot'"):
        open_labelled(root, "trainannot", "camvid11")


def test_labels_are_not_listed_for_training(root):
    assert len(list_images(root)) == 6


def test_segnets_layout_is_recognised(tmp_path):
    add(tmp_path, "val/a.png", "valannot/a.png")
    assert open_labelled(tmp_path).data_set == "camvid11"
    (tmp_path / "train").mkdir()
    with pytest.raises(DataError, match=r"train: no images found; expected files ending in"):
        open_labelled(tmp_path)


def test_the_shared_copy(shared_data):
    data = open_labelled(shared_data / "camvid", data_set="camvid11")
    own = open_labelled(shared_data / "camvid")
    assert data.space.names == own.space.names  # its classes.txt
    assert (data.split, own.split) == ("train+val", "train+val")
    assert data.items == own.items
    np.testing.assert_array_equal(data.read_label(400), own.read_label(400))
