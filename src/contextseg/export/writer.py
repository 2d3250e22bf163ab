"""What the writers of masks have in common.

Shape suffixes: H, W image height and width in pixels; K clusters.
"""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from contextseg.classes import Classes


class MaskWriter(Protocol):
    """Writes a folder of masks in one format, image by image, so that memory does not grow with their number.

    Args:
        out: an empty folder.
        classes: names, colours, merges and hidden classes.

    Raises:
        LibraryError: a library that the format needs is not installed.
        DataError: the format cannot hold these classes.
    """

    def __init__(self, out: Path, classes: Classes) -> None: ...

    def add(self, image: Path, name: Path, clusters_HW: NDArray[np.unsignedinteger[Any]]) -> None:
        """Write what belongs to one image.

        Args:
            image: the image file.
            name: of its mask: a relative path that ends in ".png" and is no other image's.
            clusters_HW: (H, W), the cluster of each pixel, before merging and hiding.
        """

    def finish(self) -> None:
        """Write what belongs to all images."""


def file_name(image: Path, name: Path) -> str:
    """Return the path of an image below the folder that the masks' names are relative to, with forward slashes."""
    return (name.parent / image.name).as_posix()
