import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from contextseg.data.check import CheckedSplit, check_copy
from contextseg.data.labelled import DATA_SETS
from contextseg.errors import DataError

SIZE = (3, 5)  # height, width


def add(root, split, name, label=None):
    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True, exist_ok=True)
    label = np.zeros(SIZE, np.uint8) if label is None else label
    Image.new("RGB", SIZE[::-1]).save(root / "images" / split / f"{name}.png")
    Image.fromarray(label).save(root / "labels" / split / f"{name}.png")


# As CamVid, but smaller: these many images are published.
SMALL = replace(DATA_SETS["camvid11"], n_published={"train": 4, "val": 12, "test": 2})


@pytest.fixture
def root(tmp_path):
    for split, n_images in SMALL.n_published.items():
        for i in range(n_images):
            add(tmp_path, split, str(i))
    return tmp_path


def check(root, split=None, data_set=SMALL):
    return check_copy(data_set, root, split)


def faults(root, split="val"):
    (one,) = check(root, split)
    return one.faults


def test_a_whole_copy(root):
    seen = []
    checked = check_copy(SMALL, root, on_progress=lambda done, total: seen.append((done, total)))
    assert checked == [
        CheckedSplit("train", 4, 4, ()),
        CheckedSplit("val", 12, 12, ()),
        CheckedSplit("test", 2, 2, ()),
    ]
    assert seen == [(i, 18) for i in range(1, 19)]
    assert check(root, "val") == checked[1:2]


def test_counts(root):
    for kind in ("images", "labels"):
        for i in (7, 8):
            (root / kind / "val" / f"{i}.png").unlink()
    assert check(root, "val") == [CheckedSplit("val", 10, 12, ("10 images are there, 12 are published",))]


def test_pairs_without_partner(root):
    (root / "images" / "val" / "7.png").rename(root / "images" / "val" / "new.png")
    assert faults(root) == (
        f"1 images have no label in {root}/labels/val (a .png of the same name): new.png",
        f"1 labels have no image in {root}/images/val: 7.png",
    )


def test_sizes_that_differ(root):
    add(root, "val", "7", np.zeros((4, 5), np.uint8))
    add(root, "val", "8", np.zeros((3, 4), np.uint8))
    # width x height, as in all errors
    assert faults(root) == (
        "2 labels have another size than their image: 7.png (5 x 4 for 5 x 3), 8.png (4 x 3 for 5 x 3)",
    )


def test_files_that_cannot_be_read(root):
    image, label = (root / kind / "val" / "7.png" for kind in ("images", "labels"))
    image.write_bytes(image.read_bytes()[:45])
    (root / "images" / "val" / "8.png").write_bytes(b"")
    label.write_text("no PNG")
    told = faults(root)
    assert len(told) == 2
    assert told[0].startswith("2 images cannot be read: 7.png is truncated or damaged")
    assert told[0].endswith("8.png is empty (0 bytes)")
    assert told[1].startswith(f"1 labels cannot be read: {label}: the label cannot be read")


def test_labels_of_colours(root):
    Image.new("RGB", SIZE[::-1]).save(root / "labels" / "val" / "7.png")
    assert faults(root)[0].startswith("1 labels cannot be read: ")
    assert "is an image of mode RGB" in faults(root)[0]


def test_ids_out_of_range(root):
    for i, value in enumerate((12, 13, 14, 200)):
        add(root, "val", str(i), np.array([[0, 11, 255, 12, value], [0] * 5, [0] * 5], np.uint8))
    assert faults(root) == (
        "4 labels hold values that stand for no class: 0.png (12), 1.png (12, 13), 2.png (12, 14), ...",
    )


def test_several_faults_of_one_pair(root):
    add(root, "val", "7", np.full((1, 2), 99, np.uint8))
    assert [one.split(":")[0] for one in faults(root)] == [
        "1 labels have another size than their image",
        "1 labels hold values that stand for no class",
    ]


def test_a_split_that_is_not_there(root):
    for kind in ("images", "labels"):
        (root / kind / "test").rename(root / f"elsewhere-{kind}")
    assert check(root)[-1] == CheckedSplit("test", 0, 2, ("is not there",))
    assert [one.name for one in check(root, "val")] == ["val"]
    with pytest.raises(DataError, match="no split 'test'; there are: train, val"):
        check(root, "test")


def test_an_empty_split(root):
    for kind in ("images", "labels"):
        for path in (root / kind / "val").iterdir():
            path.unlink()
    (one,) = check(root, "val")
    assert one.n_images == 0
    assert one.faults[0].startswith(f"{root}/images/val: no images found")
    assert one.faults[1] == "0 images are there, 12 are published"


def test_a_folder_of_ones_own_has_no_published_counts(root):
    (root / "classes.txt").write_text("a\n")
    checked = check(root, data_set=DATA_SETS["folder"])
    assert [(one.name, one.n_published, one.faults) for one in checked] == [
        (split, None, ()) for split in ("train", "val", "test")
    ]


def test_tiles_without_splits_are_no_missing_splits(tmp_path):
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / kind / "a.png")
    assert check(tmp_path, data_set=DATA_SETS["potsdam3"]) == [CheckedSplit("all", 1, None, ())]


def test_the_parts_of_cocostuff(shared_data):
    root = shared_data / "cocostuff_sample"
    checked = check(root, data_set=DATA_SETS["cocostuff171"])
    assert [(one.name, one.n_images, one.n_published) for one in checked] == [
        ("train-all", 13, 118_287),
        ("val-all", 8, 5_000),
    ]
    assert all(len(one.faults) == 1 for one in checked)  # the number of images; every pair is whole
    (one,) = check(root, "val-rule", data_set=DATA_SETS["cocostuff27"])
    assert (one.n_published, one.faults) == (None, ())


def test_a_part_of_cocostuff_that_is_not_there(tmp_path):
    for kind, suffix in (("images", "jpg"), ("annotations", "png")):
        (tmp_path / kind / "val2017").mkdir(parents=True)
        Image.fromarray(np.zeros(SIZE, np.uint8)).save(tmp_path / kind / "val2017" / f"1.{suffix}")
    assert [(one.name, one.n_published) for one in check(tmp_path, data_set=DATA_SETS["cocostuff27"])] == [
        ("val-all", 5_000),
        ("train-curated", 49_629),
    ]
    assert [one.name for one in check(tmp_path, data_set=DATA_SETS["cocostuff3"])] == ["val-all", "train-all"]


def test_another_layout(tmp_path):
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "test").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no Cityscapes-19"):
        check(tmp_path, data_set=DATA_SETS["cityscapes19"])
    shutil.rmtree(tmp_path / "gtFine")
    with pytest.raises(DataError, match="holds no Cityscapes-27"):
        check(tmp_path, data_set=DATA_SETS["cityscapes27"])
