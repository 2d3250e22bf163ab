"""Masks with all that can happen to classes, written by any of the writers."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from exported_masks import CLASSES, NAME_OF_CLUSTER, Exported
from PIL import Image

from contextseg.export.writer import MaskWriter


@pytest.fixture
def exported(tmp_path: Path, rng: np.random.Generator) -> Callable[[type[MaskWriter]], Exported]:
    clusters = {
        "a.jpg": rng.integers(0, 6, (37, 53), np.uint8),
        "may/b.png": np.repeat(rng.integers(2, 5, (8, 3), np.uint8), 7, axis=1),
        "may/deep down/ü.tif": np.full((5, 9), 1, np.uint8),  # hidden from edge to edge
        "one.png": np.full((1, 1), 3, np.uint8),
    }
    for name, map_HW in clusters.items():
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*map_HW.shape, 3), np.uint8)).save(path)

    def write(writer_class: type[MaskWriter]) -> Exported:
        writer = writer_class(tmp_path / "out", CLASSES)
        for name, map_HW in clusters.items():
            writer.add(tmp_path / "images" / name, Path(name).with_suffix(".png"), map_HW)
        writer.finish()
        names = {name: NAME_OF_CLUSTER[map_HW] for name, map_HW in clusters.items()}
        return Exported(tmp_path / "out", names, tmp_path / "images")

    return write
