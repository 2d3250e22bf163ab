"""A folder that FiftyOne imports as an ImageSegmentationDirectory: data/, labels/ and the names of the values.

A value is the class id + 1; 0 is FiftyOne's background. Masks are grey: FiftyOne would take the palette of an indexed
PNG for colours.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contextseg.classes import Classes, looked_up
from contextseg.export.indexed_png import save_png
from contextseg.files import write_atomically


class FiftyOneWriter:
    """Writes images, grey masks and mask_targets.json; see `MaskWriter`."""

    def __init__(self, out: Path, classes: Classes) -> None:
        self.out = out
        self.values_K = classes.values(first=1, background=0)
        targets = {str(entry.id + 1): entry.name for entry in classes.shown()}
        write_atomically(out / "mask_targets.json", json.dumps(targets, indent=1, ensure_ascii=False).encode())

    def add(self, image: Path, name: Path, clusters_HW: NDArray[np.unsignedinteger[Any]]) -> None:
        """Copy one image and write its mask."""
        save_png(self.out / "labels" / name, Image.fromarray(looked_up(self.values_K, clusters_HW)))
        copy = self.out / "data" / name.with_name(name.stem + image.suffix)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(image, copy)

    def finish(self) -> None:
        """There is nothing left to write."""
