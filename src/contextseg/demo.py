"""`contextseg demo`: generated scenes, classes learnt from them without a label, and a picture that shows both."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

from contextseg import verbs
from contextseg.colours import palette
from contextseg.data.images import read_image
from contextseg.data.labelled import open_labelled
from contextseg.data.scenes import CLASSES, write_scenes
from contextseg.errors import RunError
from contextseg.evaluation.scores import Scores
from contextseg.evaluation.table import percent
from contextseg.export.contact_sheet import contact_sheet
from contextseg.export.indexed_png import colourise
from contextseg.progress import tell
from contextseg.settings import make_settings

VIEWS: dict[str, Any] = {
    "frame_px": 128,
    "min_scale": 0.7,
    # In these scenes colour is drawn at random for each image, so the views change it far more than PiCIE's do: what
    # stays the same in both views, and can be clustered, is texture.
    "brightness": (0.4, 1.6),
    "contrast": (0.5, 1.5),
    "saturation": (0.0, 2.0),
    "hue": (-0.5, 0.5),
    "grey_p": 0.5,
    "blur_p": 0.0,
}
SCHEDULE: dict[str, Any] = {
    "backbone": {"name": "test_resnet"},
    "training": {"epochs": 10, "batch_size": 8, "learning_rate": 3e-4},
}
OWN: dict[str, dict[str, Any]] = {
    # For the same reason the embedding is given neither colour nor position: the viewpoint is drawn at random too.
    "context": {"embedding": {"appearance": False, "geometry": False}},
    "picie": {},
}
LAB_POSITION_WEIGHTS = (0.25, 0.5, 1.0)
_ROWS = 8


def run_demo(out: Path, *, n_images: int, seed: int, console: Console) -> dict[str, Scores]:
    """Run the demo in a new folder.

    Args:
        out: gets ``scenes/``, ``context/``, ``picie/``, ``lab-*/``, ``masks/`` and ``demo.png``.
        n_images: scenes to generate and to learn from.
        seed: of the scenes and of the runs.
        console: where progress and scores are shown.

    Returns:
        The scores of "context", of "PiCIE" on the same schedule, and of "Lab + position": the best of three k-means on
        colour and position.

    Raises:
        RunError: the folder is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise RunError(f"{out}: is not empty; remove it, or give another folder with -o")
    scenes = out / "scenes"
    tell(console, f"generating {n_images} scenes in {scenes}")
    write_scenes(scenes, n_images, seed=seed)
    console.print("k-means on Lab colour + position, three weightings")
    floors = [
        _scored(out / f"lab-{weight}", scenes, seed, {"method": "lab", "lab": {"position_weight": weight}})
        for weight in LAB_POSITION_WEIGHTS
    ]
    found = {}
    for name in ("context", "PiCIE"):
        console.print(f"{name}, from random weights: no label and no other image is used")
        began = time.perf_counter()
        method = name.lower()
        own = {"method": method, method: OWN[method]}
        found[name] = _scored(out / method, scenes, seed, own | SCHEDULE, console)
        console.print(f"trained and scored in {time.perf_counter() - began:.0f} s")
    found["Lab + position"] = max(floors, key=lambda scores: scores.miou)
    verbs.predict(out / "context", scenes, out / "masks", console=console)
    _picture(out, scenes, found["context"])
    console.print(_side_by_side(found))
    tell(console, f"images, masks and truth side by side: {out / 'demo.png'}")
    return found


def _scored(run: Path, scenes: Path, seed: int, settings: dict[str, Any], console: Console | None = None) -> Scores:
    values = {"n_classes": len(CLASSES), "seed": seed, "data": {"image_px": 128}, "views": VIEWS, **settings}
    verbs.fit(scenes, run, make_settings(values), console=console)
    return verbs.evaluate(run, scenes)


def _picture(out: Path, scenes: Path, scores: Scores) -> None:
    """Write demo.png; a cluster has the colour of the class that it was matched to."""
    labelled, colours = open_labelled(scenes), palette(len(CLASSES))
    rows = []
    for index, item in enumerate(labelled.items[:_ROWS]):
        with Image.open(out / "masks" / f"{item.image.stem}.png") as mask:
            classes = scores.cluster_to_class[np.asarray(mask)]
        rows.append(
            [
                read_image(item.image),
                colourise(classes, colours),
                colourise(labelled.read_label(index), colours),
            ]
        )
    contact_sheet(rows, ["image", "learnt without labels", "truth"], out / "demo.png")


def _side_by_side(found: dict[str, Scores]) -> Table:
    table = Table("class", *(f"{name}, IoU %" for name in found), title="scenes")
    for name in CLASSES:
        table.add_row(name, *(percent(scores.per_class[name]["iou"]) for scores in found.values()))
    table.add_section()
    table.add_row("mean IoU", *(percent(scores.miou) for scores in found.values()))
    table.add_row("accuracy", *(percent(scores.accuracy) for scores in found.values()))
    return table
