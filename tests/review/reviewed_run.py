"""A run under review, made by hand: three images of 6 x 8 pixels, four clusters."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from contextseg.classes import Classes
from contextseg.export.indexed_png import write_confidence, write_mask
from contextseg.run_folder import RunFolder
from contextseg.settings import make_settings

N_CLUSTERS = 4
# Of cluster 0 there are two parts that touch at a corner alone; 1 and 2 lie side by side.
HALVES = np.array([[0, 0, 0, 0, 1, 1, 2, 2]] * 3 + [[3, 3, 3, 3, 0, 0, 0, 0]] * 3, np.uint8)
FLAT = np.full((6, 8), 3, np.uint8)
STRIPES = np.repeat(np.array([[0], [1], [2], [0], [1], [2]], np.uint8), 8, axis=1)
MASKS = {"a/halves.png": (HALVES, 0.5), "flat.png": (FLAT, 0.9), "stripes.png": (STRIPES, 0.25)}


def write_case(root: Path, masks: dict[str, tuple[NDArray[np.uint8], float]]) -> tuple[Path, Path]:
    """Write a run with its masks and the images; return the folders of both."""
    run = RunFolder.create(root / "run", make_settings({"n_classes": N_CLUSTERS, "method": "lab"}))
    classes = Classes.numbered(N_CLUSTERS)
    classes.write(run.classes)
    rng = np.random.default_rng(0)
    for name, (clusters, confidence) in masks.items():
        image = (root / "photos" / name).with_suffix(".bmp" if name == "stripes.png" else ".png")
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (*clusters.shape, 3), np.uint8)).save(image)
        write_mask(run.path / "review/masks" / name, clusters, classes.colours_K3)
        write_confidence(run.path / "review/masks/confidence" / name, np.full(clusters.shape, confidence))
    return run.path, root / "photos"
