"""COCO-Stuff in its own folders and label values: 27 coarse classes, 15 of stuff, 3 of landscape, or all 171.

Source: the labels and their hierarchy are those of COCO-Stuff (Caesar et al., CVPR 2018). The 27 coarse classes, the
15 and the 3, the curated lists and the rule that they were made by are those of IIC (Ji et al., ICCV 2019; public code,
`cocostuff.py` and `coco164k_prepare.py`), which PiCIE and its successors use.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contextseg.conventions import IGNORE
from contextseg.data.data_set import DataSet, SplitFiles, chosen_splits, files_by_name, read_list
from contextseg.data.label_files import LabelCode, read_values
from contextseg.data.label_space import LabelSpace
from contextseg.data.threads import map_ahead
from contextseg.errors import DataError

_FINE = """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, street sign,
    stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, hat,
    backpack, umbrella, shoe, eye glasses, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite,
    baseball bat, baseball glove, skateboard, surfboard, tennis racket, bottle, plate, wine glass, cup, fork, knife,
    spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch,
    potted plant, bed, mirror, dining table, window, desk, toilet, door, tv, laptop, mouse, remote, keyboard,
    cell phone, microwave, oven, toaster, sink, refrigerator, blender, book, clock, vase, scissors, teddy bear,
    hair drier, toothbrush, hair brush, banner, blanket, branch, bridge, building-other, bush, cabinet, cage,
    cardboard, carpet, ceiling-other, ceiling-tile, cloth, clothes, clouds, counter, cupboard, curtain, desk-stuff,
    dirt, door-stuff, fence, floor-marble, floor-other, floor-stone, floor-tile, floor-wood, flower, fog,
    food-other, fruit, furniture-other, grass, gravel, ground-other, hill, house, leaves, light, mat, metal,
    mirror-stuff, moss, mountain, mud, napkin, net, paper, pavement, pillow, plant-other, plastic, platform,
    playingfield, railing, railroad, river, road, rock, roof, rug, salad, sand, sea, shelf, sky-other, skyscraper,
    snow, solid-other, stairs, stone, straw, structural-other, table, tent, textile-other, towel, tree, vegetable,
    wall-brick, wall-concrete, wall-other, wall-panel, wall-stone, wall-tile, wall-wood, water-other, waterdrops,
    window-blind, window-other, wood
"""
FINE_NAMES = tuple(" ".join(name.split()) for name in _FINE.split(","))
"""Name of each id 0-181 in the label files."""
FIRST_STUFF = 91
"""The ids below are things."""
NEVER_LABELLED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Ids of things that COCO named and never labelled: street sign, hat, shoe, ...; without them there are 171."""

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

The ids of `NEVER_LABELLED` keep the class of their kind.
"""

COARSE_NAMES = tuple(FINE_OF_COARSE)
N_COARSE_THINGS = 12
"""Coarse classes of things; those of stuff come after them."""
LANDSCAPE = ("sky-stuff", "plant-stuff", "ground-stuff")
"""The coarse classes of COCO-Stuff-3, in IIC's order."""

MIN_SIDE_PX = 360
"""The curation rule: both sides of an image are at least this long, ..."""
MIN_SOUGHT_PERCENT = 75
"""... and at least this part of all its pixels, unlabelled ones included, is of the classes that are sought."""

_PARTS = ("train", "val")


def coarse_code(name: str, classes: tuple[str, ...]) -> LabelCode:
    """Return the code of some of the coarse classes; the others are ignored."""
    groups = {
        kind: tuple(i for i, coarse in enumerate(classes) if coarse.endswith(f"-{kind}"))
        for kind in ("things", "stuff")
    }
    class_of_fine = {fine: i for i, coarse in enumerate(classes) for fine in FINE_OF_COARSE[coarse]}
    return LabelCode(
        LabelSpace(name, classes, groups), dict.fromkeys([*range(len(FINE_NAMES)), IGNORE], IGNORE) | class_of_fine
    )


def fine_code() -> LabelCode:
    """Return the code of the 171 fine classes that have labels."""
    labelled = [fine for fine in range(len(FINE_NAMES)) if fine not in NEVER_LABELLED]
    groups = {
        "things": tuple(i for i, fine in enumerate(labelled) if fine < FIRST_STUFF),
        "stuff": tuple(i for i, fine in enumerate(labelled) if fine >= FIRST_STUFF),
    }
    space = LabelSpace("COCO-Stuff-171", tuple(FINE_NAMES[fine] for fine in labelled), groups)
    return LabelCode(space, {fine: i for i, fine in enumerate(labelled)} | {IGNORE: IGNORE})


def meets_rule(fine_HW: NDArray[np.int64], fine_ids: tuple[int, ...]) -> bool:
    """Tell whether an image belongs to a curated split, by IIC's rule.

    Args:
        fine_HW: (H, W) fine ids.
        fine_ids: those that count.
    """
    # In integers: a fraction of exactly 0.75 is enough.
    n_sought = int(np.isin(fine_HW, fine_ids).sum())
    return min(fine_HW.shape) >= MIN_SIDE_PX and 100 * n_sought >= MIN_SOUGHT_PERCENT * fine_HW.size


@dataclass(frozen=True)
class Curation:
    """What makes an image part of a curated split.

    Attributes:
        list_file: below curated/train2017 and curated/val2017, file names without suffix.
        sought: the coarse classes that the rule counts.
    """

    list_file: str
    sought: tuple[str, ...]

    @property
    def fine_ids(self) -> tuple[int, ...]:
        """The fine ids that the rule counts."""
        return tuple(fine for name in self.sought for fine in FINE_OF_COARSE[name])


STUFF_7 = Curation("Coco164kFull_Stuff_Coarse_7.txt", COARSE_NAMES[N_COARSE_THINGS:])
"""49,629 images to train on and 2,175 to evaluate on."""
FEW_6 = Curation("Coco164kFew_Stuff_6.txt", LANDSCAPE)
"""For the three classes. The code that is public has the limits of version 7; they are taken for version 6 too."""


def is_cocostuff(root: Path) -> bool:
    """Tell whether a folder has COCO-Stuff's layout."""
    return all(any((root / kind / f"{part}2017").is_dir() for part in _PARTS) for kind in ("images", "annotations"))


def find(curation: Curation, root: Path, split: str | None) -> list[SplitFiles]:
    """Find the files of a split.

    A split is "train" or "val" and how its images are chosen: "-curated" takes those of the list, "-rule" those that
    meet the rule, for which every label file is read, "-all" takes all. "train" and "val" alone mean "-curated" where
    the list is there, else "-all". COCO's own "train2017" and "val2017" mean the same as "train" and "val".

    Args:
        curation: the list and the rule.
        root: the data set.
        split: its name; None for both parts, as far as they are there.

    Raises:
        DataError: the split is unknown, or its list or a label file cannot be read.
    """
    parts = [part for part in _PARTS if (root / "images" / f"{part}2017").is_dir()]
    known = [f"{part}{ending}" for part in parts for ending in ("", "-curated", "-rule", "-all")]
    names = parts if split is None else chosen_splits(root, re.sub("^(train|val)2017", r"\1", split), known)
    return [_find_one(curation, root, *name.partition("-")[::2]) for name in names]


def _find_one(curation: Curation, root: Path, part: str, how: str) -> SplitFiles:
    images, labels, curated = (root / kind / f"{part}2017" for kind in ("images", "annotations", "curated"))
    list_file = curated / curation.list_file
    how = how or ("curated" if list_file.is_file() else "all")
    files = SplitFiles(
        f"{part}-{how}",
        files_by_name(images, {".jpg"}),
        files_by_name(labels, {".png"}),
        image_place=str(images),
        label_place=f"{labels} (a .png of the same name)",
    )
    if how == "curated":
        return files.only(_read_curated(list_file, part))
    if how == "rule":
        kept = map_ahead(lambda label: meets_rule(read_values(label), curation.fine_ids), files.labels.values())
        meet = {name for name, keep in zip(files.labels, kept, strict=True) if keep}
        # Without a label the rule says nothing: such images stay, so that they are told.
        return files.only(meet | (files.images.keys() - files.labels.keys()))
    return files


def _read_curated(path: Path, part: str) -> list[str]:
    if not path.is_file():
        raise DataError(
            f"{path}: no such list; it comes with IIC (project page, data sets: COCOStuff164kCurated). Without it, "
            f"{part}-rule chooses by the rule that the list was made by, and {part}-all takes all images"
        )
    return read_list(path)


def _data_set(code: LabelCode, curation: Curation, n_curated: Mapping[str, int]) -> DataSet:
    return DataSet(
        title=code.space.name,
        source="COCO (download page: 2017 train and val images), COCO-Stuff (project page: "
        "stuffthingmaps_trainval2017), and IIC for the lists (project page, data sets: COCOStuff164kCurated)",
        tree=f"""\
images/{{train,val}}2017/*.jpg
annotations/{{train,val}}2017/*.png     the stuffthingmaps: 0-181, 255 = unlabelled
curated/{{train,val}}2017/{curation.list_file}     optional""",
        fits=is_cocostuff,
        find=partial(find, curation),
        code=code,
        n_published={**n_curated, "train-all": 118_287, "val-all": 5_000},
    )


_N_STUFF_7 = {"train-curated": 49_629, "val-curated": 2_175}

COCOSTUFF27 = _data_set(coarse_code("COCO-Stuff-27", COARSE_NAMES), STUFF_7, _N_STUFF_7)
COCOSTUFF15 = _data_set(coarse_code("COCO-Stuff-15", COARSE_NAMES[N_COARSE_THINGS:]), STUFF_7, _N_STUFF_7)
COCOSTUFF3 = _data_set(coarse_code("COCO-Stuff-3", LANDSCAPE), FEW_6, {})
COCOSTUFF171 = _data_set(fine_code(), STUFF_7, _N_STUFF_7)
