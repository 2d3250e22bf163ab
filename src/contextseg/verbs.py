"""The verbs on files: `fit`, `predict` and `evaluate`, the same here and on the command line."""

import collections
from pathlib import Path

import numpy as np
from rich.console import Console

from contextseg.data.images import list_images, read_image
from contextseg.data.labelled import open_labelled
from contextseg.errors import DataError, ImageError
from contextseg.evaluation.counts import ConfusionCounts
from contextseg.evaluation.scores import Scores, score
from contextseg.export.indexed_png import write_confidence, write_mask
from contextseg.predictor import Predictor
from contextseg.run_folder import RunFolder
from contextseg.training.fit import fit
from contextseg.training.progress import progress

__all__ = ["evaluate", "fit", "predict"]


def predict(
    run: Path,
    images: Path,
    out: Path,
    *,
    confidence: bool = False,
    device: str = "cpu",
    console: Console | None = None,
) -> list[tuple[str, str]]:
    """Write a mask for each image of a folder.

    A mask is an indexed PNG of its image's size whose values are class ids, at the image's place below `out` with the
    suffix .png; images that differ in their suffix alone keep it (``a.jpg.png``). An image that cannot be read is left
    out.

    Args:
        run: a finished run.
        images: a folder that is searched with its subfolders, or one image.
        out: where the masks go, with a copy of the run's classes.json; made if need be.
        confidence: write ``out/confidence/*.png`` too, 8-bit, 255 is certain.
        device: where the network runs.
        console: where progress is shown; nowhere by default.

    Returns:
        Name and reason of each image that was left out.

    Raises:
        RunError: the run is not finished.
        DataError: there are no images.
    """
    folder = RunFolder.open(run)
    predictor = Predictor.load(folder, device=device)
    classes = folder.read_json("classes.json")
    colours = np.array([entry["colour"] for entry in classes], np.uint8)
    targets = _mask_names(list_images(images), images)
    left_out: list[tuple[str, str]] = []
    out.mkdir(parents=True, exist_ok=True)
    RunFolder(out).write_json("classes.json", classes)
    with progress(console or Console(quiet=True), "predicting", len(targets)) as advance:
        for path, name in targets.items():
            try:
                prediction = predictor.predict(read_image(path, max_pixels=predictor.settings.data.max_pixels))
            except ImageError as error:
                left_out.append((str(path), error.reason))
            else:
                write_mask(out / name, prediction.clusters, colours)
                if confidence:
                    write_confidence(out / "confidence" / name, prediction.confidence)
            advance(1)
    return left_out


def evaluate(
    run: Path,
    data: Path,
    *,
    split: str | None = None,
    data_set: str | None = None,
    device: str = "cpu",
    console: Console | None = None,
) -> Scores:
    """Score a run on a labelled set; the labels are read here and nowhere before.

    One K x C matrix is counted over the whole set at the labels' own resolution. Clusters are matched to classes one to
    one; the pixels of surplus clusters count as wrong. Writes ``scores.json`` into the run.

    Args:
        run: a finished run.
        data: a folder in one of the layouts of `contextseg.data.labelled.DATA_SETS`.
        split: one split of it, such as "val"; all by default.
        data_set: its name in `DATA_SETS`; by default the first that fits the folder.
        device: where the network runs.
        console: where progress, and what is evaluated, is shown; nowhere by default.

    Raises:
        RunError: the run is not finished.
        DataError: the set or one of its labels cannot be used.
    """
    folder = RunFolder.open(run)
    predictor = Predictor.load(folder, device=device)
    labelled = open_labelled(data, split, data_set)
    console = console or Console(quiet=True)
    console.print(f"evaluating on {labelled}", highlight=False)
    settings = predictor.settings
    counts = ConfusionCounts(settings.n_classes, labelled.space.n_classes)
    with progress(console, "evaluating", len(labelled.items)) as advance:
        for index, item in enumerate(labelled.items):
            prediction = predictor.predict(read_image(item.image, max_pixels=settings.data.max_pixels))
            labels = labelled.read_label(index)
            if labels.shape != prediction.clusters.shape:
                raise DataError(
                    f"{item.label}: is {labels.shape[1]} x {labels.shape[0]} pixels, its image "
                    f"{item.image.name} is {prediction.clusters.shape[1]} x {prediction.clusters.shape[0]}"
                )
            counts.update(prediction.clusters, labels)
            advance(1)
    result = score(
        counts.matrix_,
        labelled.space.names,
        n_images=len(labelled.items),
        context={
            "data": labelled.space.name,
            "split": labelled.split,
            "method": settings.method,
            "start": folder.read_json("meta.json")["start"],
            "backbone": settings.backbone.name,
            "image_px": settings.data.image_px,
            "epochs": settings.training.epochs,
            "seed": settings.seed,
            "matching": "one-to-one",
        },
    )
    result.write(run / "scores.json")
    return result


def _mask_names(paths: list[Path], images: Path) -> dict[Path, Path]:
    """Return the name of each image's mask, relative to the folder of masks."""
    root = images if images.is_dir() else images.parent
    if (root / "images").is_dir() and all(path.is_relative_to(root / "images") for path in paths):
        root = root / "images"
    names = {path: path.relative_to(root) for path in paths}
    n_same = collections.Counter(name.with_suffix("") for name in names.values())
    # a.jpg and a.png become a.jpg.png and a.png.png, any other a.jpg becomes a.png
    return {
        path: name.with_suffix(".png" if n_same[name.with_suffix("")] == 1 else f"{name.suffix}.png")
        for path, name in names.items()
    }
