"""Images with labels, for evaluation and probes alone: training never comes here.

Each layout is a way in which data sets lie on disk; `LAYOUTS` lists them. A layout's opener pairs images with
label files and says which value in a label file stands for which class.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contextseg.conventions import IGNORE
from contextseg.data import cocostuff
from contextseg.data.images import IMAGE_SUFFIXES, relative_name, walk_files, without_pillow_limit
from contextseg.data.label_space import LabelSpace
from contextseg.errors import DataError

_N_SHOWN = 3
_UNKNOWN = -1
# Pillow spreads grey PNGs of 2 and 4 bits over 0-255; labels need the stored values back.
_GREY_STEP = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class LabelledItem:
    """An image file and its label file.

    Attributes:
        image: the image file.
        label: the label file, a PNG of the same height and width.
        name: path of the image below the root of the data set, with forward slashes.
    """

    image: Path
    label: Path
    name: str


@dataclass(frozen=True)
class LabelledImages:
    """A data set with labels.

    Attributes:
        root: its folder.
        layout: its name in `LAYOUTS`.
        items: sorted by name.
        space: the classes.
        class_of_value: value in a label file -> class id or `IGNORE`; other values are errors.
    """

    root: Path
    layout: str
    items: tuple[LabelledItem, ...]
    space: LabelSpace
    class_of_value: Mapping[int, int]

    def __len__(self) -> int:
        return len(self.items)

    def read_label(self, i: int) -> NDArray[np.uint8]:
        """Read a label map.

        Args:
            i: index into `items`.

        Returns:
            (H, W) uint8: class ids, or `IGNORE`.

        Raises:
            DataError: the file cannot be read, is no map of ids, or holds a value that stands for no class.
        """
        path = self.items[i].label
        values = _read_values(path)
        table = np.full(IGNORE + 2, _UNKNOWN, np.int16)
        for value, class_id in self.class_of_value.items():
            table[value] = class_id
        classes = table[np.clip(values, 0, IGNORE + 1)]
        unknown = values[(classes == _UNKNOWN) | (values < 0)]
        if unknown.size:
            known = sorted(set(self.class_of_value) - {IGNORE})
            raise DataError(
                f"{path}: holds the label {_some(np.unique(unknown).tolist())}, expected {known[0]} to "
                f"{known[-1]} for the {self.space.n_classes} classes, or {IGNORE} for ignored pixels"
            )
        return classes.astype(np.uint8)


def open_labelled(root: Path, split: str | None = None) -> LabelledImages:
    """Open a data set with labels in whichever layout it lies.

    * cocostuff: see `contextseg.data.cocostuff`; splits are "train" and "val".
    * folder: `images/**` and `labels/**` with the same relative paths, labels as PNG of class ids with 255
      for ignored pixels. `classes.txt` names the classes, one a line, the first is class 0; without it there
      are as many classes as the labels of all splits use. A split is a folder right below `images/`.

    Args:
        root: the folder of the data set.
        split: None takes all splits.

    Raises:
        DataError: no layout fits, the split is unknown, or images and labels do not pair up.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a data set with images/ and labels/")
    for detect, open_layout in LAYOUTS.values():
        if detect(root):
            return open_layout(root, split)
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    raise DataError(
        f"{root}: no labelled data set (its folders: {_some(there)}); expected images/ and labels/ with the "
        "same file names, or COCO-Stuff's images/train2017 and annotations/train2017"
    )


def _open_folder(root: Path, split: str | None) -> LabelledImages:
    images, labels = root / "images", root / "labels"
    subset = Path() if split is None else Path(split)
    if split is not None:
        splits = sorted(entry.name for entry in images.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if split not in splits:
            raise DataError(f"{root}: no split '{split}'; there are: {', '.join(splits) or 'none'}")
    items = _pair(root, images / subset, labels / subset)
    space = LabelSpace(root.resolve().name, _class_names(root))
    class_of_value = {i: i for i in range(space.n_classes)} | {IGNORE: IGNORE}
    return LabelledImages(root, "folder", items, space, class_of_value)


def _open_cocostuff(root: Path, split: str | None) -> LabelledImages:
    items: list[LabelledItem] = []
    for folder in cocostuff.split_folders(root, split):
        curated = cocostuff.curated_names(root, folder)
        items += _pair(root, root / "images" / folder, root / "annotations" / folder, curated)
    return LabelledImages(root, "cocostuff", tuple(items), cocostuff.SPACE, cocostuff.CLASS_OF_VALUE)


Detector = Callable[[Path], bool]
Opener = Callable[[Path, str | None], LabelledImages]

LAYOUTS: dict[str, tuple[Detector, Opener]] = {
    "cocostuff": (cocostuff.is_cocostuff, _open_cocostuff),
    "folder": (lambda root: (root / "images").is_dir() and (root / "labels").is_dir(), _open_folder),
}
"""Name of a layout -> whether a folder has it, and how it is opened. The first that fits is taken."""


def _pair(root: Path, images: Path, labels: Path, names: set[str] | None = None) -> tuple[LabelledItem, ...]:
    """Pair images and labels by their path without suffix; `names` restricts both to some of them."""
    image_of = _by_stem(images, IMAGE_SUFFIXES)
    label_of = _by_stem(labels, {".png"})
    if names is not None:
        if absent := sorted(names - image_of.keys()):
            raise DataError(f"{images}: {len(absent)} listed images are not there: {_some(absent)}")
        image_of = {name: path for name, path in image_of.items() if name in names}
        label_of = {name: path for name, path in label_of.items() if name in names}
    if not image_of:
        raise DataError(f"{images}: no images found; expected files ending in {' '.join(sorted(IMAGE_SUFFIXES))}")
    for have, other, what in (
        (image_of, label_of, f"images have no label in {labels} (a .png of the same name)"),
        (label_of, image_of, f"labels have no image in {images}"),
    ):
        if alone := sorted(have.keys() - other.keys()):
            raise DataError(f"{root}: {len(alone)} {what}: {_some([have[name].name for name in alone])}")
    return tuple(LabelledItem(image, label_of[name], relative_name(image, root)) for name, image in image_of.items())


def _by_stem(folder: Path, suffixes: Iterable[str]) -> dict[str, Path]:
    """Return the files below a folder by their relative path without suffix, in order."""
    files: dict[str, Path] = {}
    if not folder.is_dir():
        return files
    for path in walk_files(folder, set(suffixes)):
        stem = path.relative_to(folder).with_suffix("").as_posix()
        if stem in files:
            raise DataError(f"{folder}: {files[stem].name} and {path.name} would share one label; rename one of them")
        files[stem] = path
    return files


def _class_names(root: Path) -> tuple[str, ...]:
    """Return the lines of classes.txt, or "class 0" and so on up to the largest id in the labels."""
    path = root / "classes.txt"
    if not path.exists():
        largest = max((_largest_id(label) for label in walk_files(root / "labels", {".png"})), default=-1)
        if largest < 0:
            raise DataError(f"{root}: the labels hold ignored pixels ({IGNORE}) only; expected class ids from 0")
        return tuple(f"class {i}" for i in range(largest + 1))
    try:
        names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as class names, one a line: {error}") from error
    return tuple(name.strip() for name in names)


def _largest_id(label: Path) -> int:
    values = _read_values(label)
    largest = int(values.max(initial=-1, where=values != IGNORE))
    if largest > IGNORE:
        raise DataError(f"{label}: holds the label {largest}, expected class ids from 0 to {IGNORE - 1}")
    return largest


def _read_values(path: Path) -> NDArray[np.int64]:
    """Read the values (H, W) of a label file as they are stored: palette indices, not colours."""
    try:
        with without_pillow_limit(), Image.open(path, formats=("PNG",)) as image:
            step = _GREY_STEP.get(str(image.tile[0][3]), 1) if image.tile else 1
            mode = image.mode
            values = np.asarray(image)
    except Exception as error:
        # Decoders raise whatever damaged bytes lead them to; see read_image.
        raise DataError(f"{path}: the label cannot be read: {error}") from error
    if values.ndim != 2 or values.dtype.kind not in "bui":
        raise DataError(
            f"{path}: the label is an image of mode {mode}, expected a single-channel PNG of class ids "
            "(mode L or P); if its colours stand for classes, convert them to ids first"
        )
    return values.astype(np.int64) // step


def _some(things: list[int] | list[str]) -> str:
    shown = ", ".join(str(thing) for thing in things[:_N_SHOWN])
    return f"{shown}, ..." if len(things) > _N_SHOWN else shown or "none"
