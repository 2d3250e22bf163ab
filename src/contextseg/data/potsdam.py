"""Potsdam with its six classes merged in pairs, as tiles of any size.

Source: the ISPRS 2D semantic labelling contest, Potsdam, for the classes and their colours. The three pairs and the
counts are those of IIC (Ji et al., ICCV 2019): 200 x 200 pixels, cut from the labelled 24 of the 38 areas at half
resolution. Cars are one class with roads, so that no class is of things alone.
"""

from functools import partial

from contextseg.conventions import IGNORE
from contextseg.data import folder
from contextseg.data.data_set import DataSet
from contextseg.data.label_files import LabelCode, colour
from contextseg.data.label_space import LabelSpace

COLOURS = {
    "impervious surfaces": (255, 255, 255),
    "building": (0, 0, 255),
    "low vegetation": (0, 255, 255),
    "tree": (0, 255, 0),
    "car": (255, 255, 0),
    "clutter": (255, 0, 0),
}
"""Class of the contest -> its colour in label files; its place is its id in those that hold ids."""
NO_CLASS = (0, 0, 0)
"""Colour of borders, where they are left out."""
PAIRS = {
    "roads and cars": ("impervious surfaces", "car"),
    "buildings and clutter": ("building", "clutter"),
    "vegetation and trees": ("low vegetation", "tree"),
}

_CLASS_OF_NAME = {name: i for i, pair in enumerate(PAIRS.values()) for name in pair}

POTSDAM3 = DataSet(
    title="Potsdam-3",
    source="ISPRS (benchmark page 2D Semantic Labeling - Potsdam)",
    tree="""\
images/**/*.png, .tif     tiles; a split is a folder right below, such as images/train
labels/**/*.png, .tif     the same names, or _label for _RGB; colours or 0-5; black or 255 = ignored""",
    fits=folder.is_folder,
    find=partial(
        folder.find,
        label_suffixes=frozenset({".png", ".tif", ".tiff"}),
        image_endings=("_RGB", "_IRRG", ""),
        label_endings=("_label", ""),
    ),
    code=LabelCode(
        LabelSpace("Potsdam-3", tuple(PAIRS)),
        {i: _CLASS_OF_NAME[name] for i, name in enumerate(COLOURS)}
        | {colour(*rgb): _CLASS_OF_NAME[name] for name, rgb in COLOURS.items()}
        | {IGNORE: IGNORE, colour(*NO_CLASS): IGNORE},
    ),
    n_published={"train": 4545, "val": 855},
)
