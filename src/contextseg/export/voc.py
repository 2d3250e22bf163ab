"""PASCAL VOC's segmentation folders, which CVAT imports as "Segmentation mask 1.1".

labelmap.txt                       name:r,g,b:: of each class
ImageSets/Segmentation/default.txt the images, one a line, without suffix
SegmentationClass/*.png            the colour says the class
SegmentationObject/*.png           one object for each class: without these, CVAT makes objects of the background too
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextseg.classes import Classes, looked_up
from contextseg.errors import DataError
from contextseg.export.colour_masks import BACKGROUND, background_first
from contextseg.export.indexed_png import write_mask
from contextseg.files import write_atomically


class VocWriter:
    """Writes VOC's folders; see `MaskWriter`."""

    def __init__(self, out: Path, classes: Classes) -> None:
        self.out = out
        self.colours = background_first(classes, "VOC")
        self.values_K = classes.values(first=1, background=0)
        self.stems: list[str] = []
        lines = [f"{BACKGROUND}:0,0,0::"]
        for entry in classes.shown():
            if ":" in entry.name or entry.name.startswith("#"):
                raise DataError(
                    f"class {entry.id}: the name '{entry.name}' holds ':' or begins with '#', as no VOC name may"
                )
            lines.append(f"{entry.name}:{','.join(map(str, entry.colour))}::")
        write_atomically(out / "labelmap.txt", "\n".join([*lines, ""]).encode())

    def add(self, image: Path, name: Path, clusters_HW: NDArray[np.unsignedinteger[Any]]) -> None:
        """Write the two masks of one image."""
        values_HW = looked_up(self.values_K, clusters_HW)
        write_mask(self.out / "SegmentationClass" / name, values_HW, self.colours)
        write_mask(self.out / "SegmentationObject" / name, values_HW, _voc_colours())
        self.stems.append(name.with_suffix("").as_posix())

    def finish(self) -> None:
        """Write the list of images."""
        path = self.out / "ImageSets" / "Segmentation" / "default.txt"
        write_atomically(path, "".join(f"{stem}\n" for stem in self.stems).encode())


def _voc_colours() -> NDArray[np.uint8]:
    """Return VOC's colours of the objects 0 to 254, (255, 3): the bits of the number, dealt to red, green and blue."""
    number = np.arange(255)
    colours = np.zeros((255, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colours[:, channel] |= (((number >> (3 * bit + channel)) & 1) << (7 - bit)).astype(np.uint8)
    return colours
