"""Cityscapes, with the 27 classes of unsupervised segmentation or the 19 of its own benchmark.

Source: the label table of Cityscapes (Cordts et al., CVPR 2016; "labels.py" of cityscapesScripts). The 27 classes are
all ids from 7 on, as PiCIE (Cho et al., CVPR 2021) and its successors use them. Things are the classes that the table
gives instances. PiCIE evaluates on train and val together, STEGO on val: the split is part of the number.
"""

from pathlib import Path

from contextseg.conventions import IGNORE
from contextseg.data.data_set import DataSet, SplitFiles, chosen_splits, files_by_name
from contextseg.data.label_files import LabelCode
from contextseg.data.label_space import LabelSpace

NAMES = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground"),
    *("road", "sidewalk", "parking", "rail track"),
    *("building", "wall", "fence", "guard rail", "bridge", "tunnel"),
    *("pole", "polegroup", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider"),
    *("car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
"""Names of the ids 0-33 that `*_labelIds.png` hold; the id -1 (license plate) is never drawn."""

FIRST_CLASS = 7
"""The ids below are void."""
FIRST_THING = 24
"""The ids from here on have instances."""
NOT_IN_BENCHMARK = ("parking", "rail track", "guard rail", "bridge", "tunnel", "polegroup", "caravan", "trailer")
"""Classes that are rare or ill-defined; the benchmark's 19 leave them out."""


def find(root: Path, split: str | None) -> list[SplitFiles]:
    """Find the files of train, of val, or (None) of both."""
    splits = [name for name in ("train", "val") if (root / "leftImg8bit" / name).is_dir()]
    return [
        SplitFiles(
            name,
            files_by_name(root / "leftImg8bit" / name, {".png"}, ("_leftImg8bit",)),
            files_by_name(root / "gtFine" / name, {".png"}, ("_gtFine_labelIds",)),
            image_place=str(root / "leftImg8bit" / name),
            label_place=f"{root / 'gtFine' / name} (a .png with _gtFine_labelIds for _leftImg8bit)",
        )
        for name in chosen_splits(root, split, splits)
    ]


def _code(left_out: tuple[str, ...]) -> LabelCode:
    ids = [i for i, name in enumerate(NAMES) if i >= FIRST_CLASS and name not in left_out]
    groups = {
        "things": tuple(place for place, i in enumerate(ids) if i >= FIRST_THING),
        "stuff": tuple(place for place, i in enumerate(ids) if i < FIRST_THING),
    }
    space = LabelSpace(f"Cityscapes-{len(ids)}", tuple(NAMES[i] for i in ids), groups)
    return LabelCode(space, dict.fromkeys(range(len(NAMES)), IGNORE) | {i: place for place, i in enumerate(ids)})


def _data_set(code: LabelCode) -> DataSet:
    return DataSet(
        title=code.space.name,
        source="Cityscapes (download page: leftImg8bit_trainvaltest and gtFine_trainvaltest)",
        tree="""\
leftImg8bit/{train,val}/CITY/*_leftImg8bit.png
gtFine/{train,val}/CITY/*_gtFine_labelIds.png     the labels of test are not public""",
        fits=lambda root: (root / "leftImg8bit").is_dir() and (root / "gtFine").is_dir(),
        find=find,
        code=code,
        n_published={"train": 2975, "val": 500},
    )


CITYSCAPES27 = _data_set(_code(left_out=()))
CITYSCAPES19 = _data_set(_code(left_out=NOT_IN_BENCHMARK))
