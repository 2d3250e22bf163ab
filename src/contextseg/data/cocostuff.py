"""COCO-Stuff with its 27 coarse classes, in its own folders and label values.

    images/{train,val}2017/*.jpg
    annotations/{train,val}2017/*.png             the "stuffthingmaps": fine ids 0-181, 255 = unlabelled
    curated/*/Coco164kFull_Stuff_Coarse_7.txt     optional: file names without suffix that make up a split

Source: the label hierarchy of COCO-Stuff (Caesar et al., CVPR 2018). The 27 coarse classes and the curated
lists are those of IIC (Ji et al., ICCV 2019), which PiCIE and its successors use.
"""

from pathlib import Path

from contextseg.conventions import IGNORE
from contextseg.data.label_space import LabelSpace
from contextseg.errors import DataError

N_FINE = 182
"""Fine ids go from 0 to N_FINE - 1."""

FINE_OF_COARSE: dict[str, tuple[int, ...]] = {
    "electronic-things": tuple(range(71, 77)),
    "appliance-things": tuple(range(77, 83)),
    "food-things": tuple(range(51, 61)),
    "furniture-things": tuple(range(61, 71)),
    "indoor-things": tuple(range(83, 91)),
    "kitchen-things": tuple(range(43, 51)),
    "accessory-things": tuple(range(25, 33)),
    "animal-things": tuple(range(15, 25)),
    "outdoor-things": tuple(range(9, 15)),
    "person-things": (0,),
    "sports-things": tuple(range(33, 43)),
    "vehicle-things": tuple(range(1, 9)),
    "ceiling-stuff": (101, 102),
    "floor-stuff": (100, *range(113, 118)),
    "food-stuff": (120, 121, 152, 169),
    "furniture-stuff": (97, 106, 107, 109, 111, 122, 129, 132, 155, 160, 164),
    "rawmaterial-stuff": (99, 131, 138, 142),
    "textile-stuff": (91, 92, 103, 104, 108, 130, 136, 140, 151, 166, 167),
    "wall-stuff": tuple(range(170, 177)),
    "window-stuff": (179, 180),
    "building-stuff": (94, 95, 127, 150, 157, 165),
    "ground-stuff": (110, 124, 125, 135, 139, 143, 144, 146, 148, 153, 158),
    "plant-stuff": (93, 96, 118, 123, 128, 133, 141, 162, 168),
    "sky-stuff": (105, 156),
    "solid-stuff": (126, 134, 149, 159, 161, 181),
    "structural-stuff": (98, 112, 137, 145, 163),
    "water-stuff": (119, 147, 154, 177, 178),
}
"""Coarse class -> its fine ids; the place of a coarse class is its id.

Ids of things that COCO named but never labelled, such as 11 (street sign), keep the class of their kind.
"""

SPACE = LabelSpace(
    "COCO-Stuff-27",
    tuple(FINE_OF_COARSE),
    {
        kind: tuple(i for i, name in enumerate(FINE_OF_COARSE) if name.endswith(f"-{kind}"))
        for kind in ("things", "stuff")
    },
)
"""The 27 coarse classes: things 0-11, stuff 12-26."""

CLASS_OF_VALUE = {fine: coarse for coarse, fine_ids in enumerate(FINE_OF_COARSE.values()) for fine in fine_ids} | {
    IGNORE: IGNORE
}
"""Value in a label file -> coarse class."""

SPLITS = ("train2017", "val2017")

_CURATED_FILE = "Coco164kFull_Stuff_Coarse_7.txt"


def is_cocostuff(root: Path) -> bool:
    """Tell whether a folder has COCO-Stuff's layout."""
    return any((root / "images" / split).is_dir() for split in SPLITS) and any(
        (root / "annotations" / split).is_dir() for split in SPLITS
    )


def split_folders(root: Path, split: str | None) -> list[str]:
    """Return the folders below `images/` that a split stands for; None stands for all that are there.

    Raises:
        DataError: the split is unknown or not there.
    """
    there = [name for name in SPLITS if (root / "images" / name).is_dir()]
    if split is None:
        return there
    wanted = split if split.endswith("2017") else f"{split}2017"
    if wanted not in there:
        raise DataError(f"{root}: no split '{split}'; there are: {', '.join(there)}")
    return [wanted]


def curated_names(root: Path, folder: str) -> set[str] | None:
    """Return the file names (without suffix) that make up a split, or None where no list restricts it.

    Args:
        root: the data set.
        folder: "train2017" or "val2017".

    Raises:
        DataError: the list is there and cannot be read.
    """
    path = root / "curated" / folder / _CURATED_FILE
    if not path.is_file():
        return None
    try:
        return {line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of names, one a line: {error}") from error
