"""Datumaro's "Common Semantic Segmentation": images/, masks/ and dataset_meta.json.

Datumaro looks for masks by their bare name, so sub-folders become part of it: ``may/a.jpg`` is ``may__a.jpg`` there.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextseg.classes import Classes, looked_up
from contextseg.errors import DataError
from contextseg.export.colour_masks import BACKGROUND, background_first
from contextseg.export.indexed_png import write_mask
from contextseg.files import write_atomically


class DatumaroWriter:
    """Writes images, masks and the names of the classes; see `MaskWriter`."""

    def __init__(self, out: Path, classes: Classes) -> None:
        self.out = out
        self.colours = background_first(classes, "Datumaro's format")
        self.values_K = classes.values(first=1, background=0)
        self.stems: set[str] = set()
        meta = {
            "label_map": {"0": BACKGROUND} | {str(entry.id + 1): entry.name for entry in classes.shown()},
            "segmentation_colors": self.colours.tolist(),
            "background_label": "0",
        }
        write_atomically(out / "dataset_meta.json", json.dumps(meta, indent=1, ensure_ascii=False).encode())

    def add(self, image: Path, name: Path, clusters_HW: NDArray[np.unsignedinteger[Any]]) -> None:
        """Copy one image and write its mask."""
        stem = "__".join(name.with_suffix("").parts)
        if stem in self.stems:
            raise DataError(f"{image}: would be the second image named {stem}; rename it or its folder")
        self.stems.add(stem)
        write_mask(self.out / "masks" / f"{stem}.png", looked_up(self.values_K, clusters_HW), self.colours)
        (self.out / "images").mkdir(exist_ok=True)
        shutil.copyfile(image, self.out / "images" / f"{stem}{image.suffix}")

    def finish(self) -> None:
        """There is nothing left to write."""
