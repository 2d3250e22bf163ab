"""PASCAL VOC 2012, the segmentation part.

Source: the development kit of VOC 2012 (Everingham et al.). The borders of objects are 255 and count nowhere.
"""

from pathlib import Path

from contextseg.conventions import IGNORE
from contextseg.data.data_set import DataSet, SplitFiles, chosen_splits, files_by_name, read_list
from contextseg.data.label_files import LabelCode
from contextseg.data.label_space import LabelSpace

NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""The place of a name is its id in the label files."""


def find(root: Path, split: str | None) -> list[SplitFiles]:
    """Find the files of train, val, trainval, or (None) of train and val."""
    base = _base(root)
    lists, images, labels = (base / name for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"))
    known = [name for name in ("train", "val", "trainval") if (lists / f"{name}.txt").is_file()]
    chosen = [name for name in chosen_splits(root, split, known) if split or name != "trainval"]
    image_of, label_of = files_by_name(images, {".jpg"}), files_by_name(labels, {".png"})
    return [
        SplitFiles(
            name,
            image_of,
            label_of,
            image_place=str(images),
            label_place=f"{labels} (a .png of the same name)",
        ).only(read_list(lists / f"{name}.txt"))
        for name in chosen
    ]


def _base(root: Path) -> Path:
    """Return the folder of VOC 2012, which users name by itself or by one of the folders around it."""
    bases = (root / "VOCdevkit" / "VOC2012", root / "VOC2012")
    return next((base for base in bases if base.is_dir()), root)


def _fits(root: Path) -> bool:
    return all((_base(root) / name).is_dir() for name in ("ImageSets/Segmentation", "JPEGImages", "SegmentationClass"))


VOC2012 = DataSet(
    title="PASCAL VOC 2012",
    source="PASCAL VOC (page of the 2012 challenge: training and validation data, VOCtrainval)",
    tree="""\
VOCdevkit/VOC2012/JPEGImages/*.jpg
VOCdevkit/VOC2012/SegmentationClass/*.png     palette PNG: 0-20, 255 = border
VOCdevkit/VOC2012/ImageSets/Segmentation/{train,val,trainval}.txt     the names in a split""",
    fits=_fits,
    find=find,
    code=LabelCode(
        LabelSpace("VOC-2012", NAMES, {"things": tuple(range(1, len(NAMES)))}),
        {i: i for i in range(len(NAMES))} | {IGNORE: IGNORE},
    ),
    n_published={"train": 1464, "val": 1449},
)
"""The background is neither thing nor stuff."""
