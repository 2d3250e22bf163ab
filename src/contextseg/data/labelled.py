"""Images with labels, for evaluation and probes alone: training never comes here.

Each data set has a file of its own in this folder, that says where its files lie and what its labels stand for;
`DATA_SETS` lists them.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contextseg.conventions import MAX_PIXELS
from contextseg.data import camvid, cityscapes, cocostuff, folder, potsdam, voc
from contextseg.data.data_set import DataSet, folders_in
from contextseg.data.image_files import relative_name
from contextseg.data.images import read_to_look_at
from contextseg.data.label_files import LabelCode, read_classes
from contextseg.data.label_space import LabelSpace
from contextseg.errors import DataError

DATA_SETS: dict[str, DataSet] = {
    "cocostuff27": cocostuff.COCOSTUFF27,
    "cocostuff15": cocostuff.COCOSTUFF15,
    "cocostuff3": cocostuff.COCOSTUFF3,
    "cocostuff171": cocostuff.COCOSTUFF171,
    "cityscapes27": cityscapes.CITYSCAPES27,
    "cityscapes19": cityscapes.CITYSCAPES19,
    "voc2012": voc.VOC2012,
    "folder": folder.FOLDER,
    "camvid11": camvid.CAMVID11,
    "potsdam3": potsdam.POTSDAM3,
}
"""Name of a data set -> what it is. Where none is named, the first that fits the folder is taken."""


@dataclass(frozen=True)
class LabelledItem:
    """An image file and its label file.

    Attributes:
        image: the image file.
        label: the label file, of the same height and width.
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
        data_set: its name in `DATA_SETS`.
        split: the splits that were taken, such as "train+val"; a name says how its images were chosen.
        items: sorted by split, then by name.
        code: what the labels stand for.
    """

    root: Path
    data_set: str
    split: str
    items: tuple[LabelledItem, ...]
    code: LabelCode

    def __len__(self) -> int:
        return len(self.items)

    def __str__(self) -> str:
        return f"{self.space.name}, {self.split}: {len(self):,} images"

    @property
    def space(self) -> LabelSpace:
        """The classes."""
        return self.code.space

    def read_label(self, i: int) -> NDArray[np.uint8]:
        """Read a label map.

        Args:
            i: index into `items`.

        Returns:
            (H, W) uint8: class ids, or `IGNORE`.

        Raises:
            DataError: the file cannot be read, is no map of ids, or holds a value that stands for no class.
        """
        return read_classes(self.items[i].label, self.code)

    def read(
        self, i: int, *, shorter_px: int, max_pixels: int = MAX_PIXELS
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read an image and its label map.

        Args:
            i: index into `items`.
            shorter_px: at which the image is looked at; it may be read smaller than it is, see `read_to_look_at`.
            max_pixels: an image or a label with more pixels is refused.

        Returns:
            (h, w, 3) uint8 RGB, and (H, W) uint8 as from `read_label`.

        Raises:
            DataError: a file cannot be read, or they are of different sizes.
        """
        item = self.items[i]
        image, size = read_to_look_at(item.image, shorter_px=shorter_px, max_pixels=max_pixels)
        label = read_classes(item.label, self.code, max_pixels=max_pixels)
        if label.shape != size:
            raise DataError(
                f"{item.label}: is {label.shape[1]} x {label.shape[0]} pixels, its image "
                f"{item.image.name} is {size[1]} x {size[0]}"
            )
        return image, label


def open_labelled(root: Path, split: str | None = None, data_set: str | None = None) -> LabelledImages:
    """Open a data set with labels.

    Args:
        root: its folder, in the layout that `DATA_SETS` gives.
        split: None takes all splits.
        data_set: its name in `DATA_SETS`; by default the first that fits the folder.

    Raises:
        DataError: the data set is unknown, the folder is not laid out like it, the split is unknown, or images and
            labels do not pair up.
    """
    name = _recognise(root) if data_set is None else data_set
    chosen = named_data_set(name)
    items: list[LabelledItem] = []
    splits = []
    for files in chosen.files(root, split):
        if faults := files.faults():
            raise DataError(f"{root}: {faults[0]}. {chosen.expected}")
        splits.append(files.name)
        items += [
            LabelledItem(image, files.labels[shared], relative_name(image, root))
            for shared, image in files.images.items()
        ]
    return LabelledImages(root, name, "+".join(splits), tuple(items), chosen.code_of(root))


def named_data_set(name: str) -> DataSet:
    """Return a data set by its name.

    Raises:
        DataError: there is none of that name.
    """
    if name not in DATA_SETS:
        raise DataError(f"no data set '{name}'; there are: {', '.join(DATA_SETS)}")
    return DATA_SETS[name]


def _recognise(root: Path) -> str:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a data set with images/ and labels/")
    for name, data_set in DATA_SETS.items():
        if data_set.fits(root):
            return name
    raise DataError(
        f"{root}: no labelled data set ({folders_in(root)}); expected images/ and labels/ with the same file names, or "
        "one of the layouts that `contextseg datasets` shows"
    )
