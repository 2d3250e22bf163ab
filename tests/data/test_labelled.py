import numpy as np
import pytest
from PIL import Image

from contextseg.data.label_space import LabelSpace
from contextseg.data.labelled import DATA_SETS, open_labelled
from contextseg.errors import DataError


def test_data_sets_are_a_plain_dict():
    assert list(DATA_SETS) == [
        "cocostuff27",
        "cocostuff15",
        "cocostuff3",
        "cocostuff171",
        "cityscapes27",
        "cityscapes19",
        "voc2012",
        "folder",
        "camvid11",
        "potsdam3",
    ]


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_data_set_says_what_it_is(name):
    data_set = DATA_SETS[name]
    assert all(len(line) <= 100 for line in data_set.tree.splitlines())
    if name == "folder":
        return
    space = data_set.code.space
    assert name.endswith(str(space.n_classes)) or name == "voc2012"
    assert set(data_set.code.class_of_value.values()) - {255} == set(range(space.n_classes))
    ids = [i for group in space.groups.values() for i in group]
    assert len(ids) == len(set(ids))


def test_published_numbers_of_images():
    coco_stuff = {"train-curated": 49_629, "val-curated": 2_175, "train-all": 118_287, "val-all": 5_000}
    assert {name: data_set.n_published for name, data_set in DATA_SETS.items()} == {
        "cocostuff27": coco_stuff,
        "cocostuff15": coco_stuff,
        "cocostuff3": {"train-all": 118_287, "val-all": 5_000},
        "cocostuff171": coco_stuff,
        "cityscapes27": {"train": 2_975, "val": 500},
        "cityscapes19": {"train": 2_975, "val": 500},
        "voc2012": {"train": 1_464, "val": 1_449},
        "folder": {},
        "camvid11": {"train": 367, "val": 101, "test": 233},
        "potsdam3": {"train": 4_545, "val": 855},
    }


def test_groups_hold_ids():
    with pytest.raises(DataError, match=r"group 'things' holds \[2\], ids go from 0 to 1"):
        LabelSpace("two", ("a", "b"), {"things": (0, 2)})


def test_unknown_name(tmp_path):
    with pytest.raises(DataError, match=r"no data set 'coco'; there are: cocostuff27, .*, potsdam3"):
        open_labelled(tmp_path, data_set="coco")


@pytest.mark.parametrize("name", DATA_SETS)
def test_a_folder_of_another_layout(tmp_path, name):
    data_set = DATA_SETS[name]
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError) as raised:
        open_labelled(tmp_path, data_set=name)
    told = str(raised.value)
    assert told.startswith(f"{tmp_path}: holds no {data_set.title} (its folders: photos)")
    assert data_set.source in told
    assert told.endswith(data_set.tree)
    with pytest.raises(DataError, match=r"missing: no such folder, so no .* Source: "):
        open_labelled(tmp_path / "missing", data_set=name)


def test_what_is_opened_is_told_in_one_line(tmp_path):
    for kind in ("images", "labels"):
        for split, n_images in (("train", 2), ("val", 1)):
            (tmp_path / kind / split).mkdir(parents=True)
            for i in range(n_images):
                Image.fromarray(np.zeros((3, 5), np.uint8)).save(tmp_path / kind / split / f"{i}.png")
    assert str(open_labelled(tmp_path)) == f"{tmp_path.name}, train+val: 3 images"
    assert str(open_labelled(tmp_path, "val", "potsdam3")) == "Potsdam-3, val: 1 images"
