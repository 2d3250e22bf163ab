"""The verbs on files, the same here and on the command line; `naming` and `exporting` hold further ones.

Where torchrun has started several processes, each predicts its share of the images.
"""

import functools
import hashlib
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from contextseg.classes import Classes
from contextseg.collectives import first_does, gather, rank, share, world_size
from contextseg.conventions import IGNORE_16
from contextseg.cores import map_looks
from contextseg.data.image_files import check_some_used, list_images
from contextseg.data.labelled import LabelledImages, open_labelled
from contextseg.data.threads import map_ahead, read_ahead
from contextseg.errors import DataError, ImageError, RunError, SettingsError
from contextseg.evaluation.boundaries import BoundaryCounts
from contextseg.evaluation.counts import ConfusionCounts
from contextseg.evaluation.scores import Scores, score
from contextseg.export.indexed_png import PngWriter, is_written, write_confidence
from contextseg.export.names import mask_names
from contextseg.exporting import export
from contextseg.files import write_atomically, write_errors
from contextseg.fresh_clusters import cluster_afresh
from contextseg.naming import hide, merge, name
from contextseg.pixel_clusters import best_cluster, best_ids
from contextseg.predictor import Predictor
from contextseg.probes import PARAMETERS, fit_probe
from contextseg.progress import progress, tell
from contextseg.refinement import REFINEMENT, Scorer, flip_averaged, refined
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings
from contextseg.training.fit import fit, pretrain
from contextseg.training.processes import own_device, process_errors

_CLUSTERS = ".clusters"  # beside masks: tells the clusters that they are of, for `resume`

__all__ = ["evaluate", "export", "fit", "hide", "merge", "name", "predict", "pretrain"]


class _Image(NamedTuple):
    """An image that was read, at the size that it is looked at in, and its own size, (H, W)."""

    path: Path
    resized_3HW: Tensor
    size: tuple[int, int]


@process_errors()
def predict(
    run: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    confidence: bool = False,
    raw: bool = False,
    resume: bool = False,
    half: bool = False,
    device: str = "cpu",
    console: Console | None = None,
) -> list[tuple[str, str]]:
    """Write a mask for each image of a folder.

    A mask is an indexed PNG of its image's size whose values are class ids, at the image's place below `out` with the
    suffix .png; images that differ in their suffix alone keep it (``a.jpg.png``). Merged classes have one id, hidden
    ones are 255 (ignored). An image that cannot be read is left out.

    Args:
        run: a finished run.
        images: a folder that is searched with its subfolders, or one image.
        out: where the masks go, with a copy of the run's classes.json; made if need be. A hidden file tells the
            clusters that the masks are of.
        confidence: write ``out/confidence/*.png`` too, 8-bit, 255 is certain.
        raw: write the clusters as they were found: nothing merged, nothing hidden.
        resume: leave the masks that are there as they are, and write those that are missing.
        half: the network computes in half precision: faster, and about one pixel in a hundred gets another class.
        device: where the network runs.
        console: where progress is shown; nowhere by default.

    Returns:
        Name and reason of each image that was left out.

    Raises:
        RunError: the run is not finished, `out` is a file, the run's folder or that of the images, or a mask would
            replace an image; or with `resume`, the masks are of another run, or classes were merged or hidden since.
        ClassesError: its classes.json is malformed.
        DataError: there are no images, none of them can be used, or two of them would have one mask.
        SettingsError: there is no such device, or it does not multiply in half precision.
    """
    run, images, out = Path(run), Path(images), Path(out)
    folder = RunFolder.open(run)
    predictor = Predictor.load(folder, device=own_device(device), half=half)
    targets = mask_names(list_images(images), images)
    n_classes = predictor.settings.n_classes
    classes = Classes.numbered(n_classes) if raw else Classes.read(folder.classes, n_classes)
    clusters = hashlib.sha256(predictor.centers.cpu().numpy().tobytes()).hexdigest()
    _check_out(out, folder, images, targets, confidence=confidence)
    n_images = len(targets)
    if resume:
        first_does(lambda: _check_same_meaning(out, classes, clusters))
    else:
        first_does(lambda: _remove_masks_of_others(out, clusters, targets))
    masks = first_does(lambda: PngWriter(out, classes))  # it writes classes.json
    first_does(lambda: write_atomically(out / _CLUSTERS, clusters.encode()))
    if resume:  # asked by one process, before any of them writes
        kinds = (out, out / "confidence") if confidence else (out,)
        targets = first_does(
            lambda: {
                path: target for path, target in targets.items() if not all(is_written(kind / target) for kind in kinds)
            }
        )
    own = share(list(targets))
    left_out: list[tuple[str, str]] = []

    def read(path: Path) -> _Image:
        image, size = predictor.read(path)
        return _Image(path, predictor.resized(image), size)

    def found() -> Iterator[_Image]:
        for path, image in zip(own, read_ahead(read, own), strict=True):
            if isinstance(image, ImageError):
                left_out.append((str(path), image.reason))
                advance(world_size())
            else:
                yield image

    def look(some: list[_Image]) -> Iterable[tuple[_Image, Tensor]]:
        return zip(some, predictor.score_together([image.resized_3HW for image in some]), strict=True)

    def write(scored: Iterable[tuple[_Image, Tensor]]) -> None:
        for image, scores_Khw in scored:
            target = targets[image.path]
            if confidence:
                prediction = best_cluster(scores_Khw, image.size)
                write_confidence(out / "confidence" / target, prediction.confidence)
            # last: `resume` takes it as the sign that all is there
            masks.add(image.path, target, prediction.clusters if confidence else best_ids(scores_Khw, image.size))
            advance(world_size())

    with progress(console or Console(quiet=True), "predicting", len(targets)) as advance:
        alike = predictor.alike(found(), lambda image: image.resized_3HW)
        with closing(map_looks(look, write, alike, predictor.centers.device.type)) as done:
            for _ in done:
                pass
    all_left_out = list(itertools.chain(*gather(left_out)))
    check_some_used(all_left_out, n_images)
    return all_left_out


def _check_out(out: Path, run: RunFolder, images: Path, targets: Mapping[Path, Path], *, confidence: bool) -> None:
    """Refuse a folder where masks would replace images, lie among them or replace the names that a person has given."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file; give a folder, which the masks are written to")
    if out.resolve() == run.path.resolve():
        raise RunError(f"{out}: is the run itself; give another folder, so that its classes.json stays as it is")
    if out.resolve() == (images if images.is_dir() else images.parent).resolve():
        raise RunError(f"{out}: holds the images, and a mask is not to be taken for one; give another folder")
    written = [out / target for target in targets.values()]
    if confidence:
        maps = [out / "confidence" / target for target in targets.values()]
        if both := set(written) & set(maps):
            raise DataError(
                f"{min(both)}: would be a mask and a confidence map; rename the folder 'confidence' of images"
            )
        written += maps
    there = {path.resolve(): path for path in written if path.exists()}
    if lost := there.keys() & ({path.resolve() for path in targets} if there else set()):
        raise RunError(f"{there[min(lost)]}: is one of the images, and a mask would replace it; give another folder")


def _check_same_meaning(masks: Path, classes: Classes, clusters: str) -> None:
    """Refuse to add masks to some of other clusters, or that were written before classes were merged or hidden."""
    if _are_of_others(masks, clusters):
        raise RunError(
            f"{masks}: its masks are of another run; give another folder, or leave out --resume to write all masks "
            "again"
        )
    if (masks / "classes.json").exists():
        before = Classes.read(masks / "classes.json", len(classes.entries))
        if not np.array_equal(before.values(background=IGNORE_16), classes.values(background=IGNORE_16)):
            raise RunError(
                f"{masks}: its masks were written before classes were merged or hidden; give another folder, or leave "
                "out --resume to write all masks again"
            )


def _remove_masks_of_others(masks: Path, clusters: str, targets: Mapping[Path, Path]) -> None:
    """Remove what will be replaced: broken off and resumed, masks of other clusters would pass for those of these."""
    if _are_of_others(masks, clusters):
        images = {path.resolve() for path in targets}
        for folder, target in itertools.product((masks, masks / "confidence"), targets.values()):
            if (folder / target).resolve() not in images:
                with write_errors(folder / target):
                    (folder / target).unlink(missing_ok=True)


def _are_of_others(masks: Path, clusters: str) -> bool:
    told = masks / _CLUSTERS
    return told.exists() and told.read_bytes() != clusters.encode()


@process_errors()
def evaluate(
    run: str | Path,
    data: str | Path,
    *,
    split: str | None = None,
    data_set: str | None = None,
    probe: str | None = None,
    probe_split: str | None = None,
    fresh_clusters: str | Path | None = None,
    flip: bool = False,
    refine: bool = False,
    merged: bool = False,
    device: str = "cpu",
    console: Console | None = None,
) -> Scores:
    """Score a run on a labelled set; the labels are read here and nowhere before.

    One K x C matrix, and the boundary pixels of the same pairs, are counted over the whole set at the labels' own
    resolution. Clusters are matched to classes one to one; the pixels of surplus clusters count as wrong. Writes
    ``scores.json`` into the run. Every option stands in the context of the scores.

    A **probe reads the labels** of another split, and is no unsupervised result: its scores, whose rows are classes and
    are not matched, go to ``scores-PROBE.json``.

    Args:
        run: a finished run.
        data: a folder in one of the layouts of `contextseg.data.labelled.DATA_SETS`.
        split: one split of it, such as "val"; all by default.
        data_set: its name in `DATA_SETS`; by default the first that fits the folder.
        probe: instead of the clusters, a classifier on the frozen embeddings: a name in `contextseg.probes.PROBES`.
        probe_split: the split whose labels the probe reads; "train" by default.
        fresh_clusters: a folder of images, such as the training images, whose embeddings are clustered afresh by
            k-means, as PiCIE does; the clusters of the run are not used and stay as they are.
        flip: average the scores with those of the mirrored image.
        refine: filter the scores along the edges of the image.
        merged: count the classes as a person has merged them. By default the clusters count as they were found: a
            run's score does not change when somebody merges, and tables of methods compare what was learnt.
        device: where the network runs.
        console: where progress, and what is evaluated, is shown; nowhere by default.

    Raises:
        RunError: the run is not finished.
        DataError: the set or one of its labels cannot be used.
        SettingsError: there is no such probe, it would be scored on labels that it has read, or two options exclude
            each other.
    """
    _check_options(probe, probe_split, fresh_clusters, merged)
    run, data, probe_split = Path(run), Path(data), probe_split or "train"
    console = console or Console(quiet=True)
    folder = RunFolder.open(run)
    predictor = Predictor.load(folder, device=own_device(device))
    labelled = open_labelled(data, split, data_set)
    tell(console, f"evaluating on {labelled}")
    settings, space = predictor.settings, labelled.space
    scorer: Scorer = predictor.score
    n_rows = settings.n_classes
    if fresh_clusters is not None:
        predictor.centers = cluster_afresh(predictor, Path(fresh_clusters), console)
    if probe is not None:
        train = open_labelled(data, probe_split, data_set)
        _check_apart(train, labelled)
        scorer, n_rows = fit_probe(probe, predictor, train, console), space.n_classes
    if flip:
        scorer = flip_averaged(scorer)
    if refine:
        scorer = refined(scorer)
    row_of_K = Classes.read(folder.classes, n_rows).survivors() if merged else np.arange(n_rows)
    counts, boundaries = _count(labelled, predictor, scorer, row_of_K, console)
    options = {
        "probe": None if probe is None else {"kind": probe, "labels_read": probe_split} | PARAMETERS[probe],
        "fresh_clusters": None if fresh_clusters is None else {"images": str(fresh_clusters)},
        "flip": flip,
        "refine": REFINEMENT if refine else None,
        "merged": merged,
    }
    result = score(
        counts.matrix_,
        space.names,
        matching="one-to-one" if probe is None else "identity",
        groups=space.groups,
        boundaries=boundaries,
        n_images=len(labelled),
        context={"data": space.name, "split": labelled.split} | _described(folder, settings) | options,
    )
    if rank() == 0:
        result.write(run / ("scores.json" if probe is None else f"scores-{probe}.json"))
    return result


def _check_options(probe: str | None, probe_split: str | None, fresh_clusters: str | Path | None, merged: bool) -> None:
    if probe_split is not None and probe is None:
        raise SettingsError(f"probe_split={probe_split} says whose labels a probe reads, and there is none; set probe")
    if probe is not None and fresh_clusters is not None:
        raise SettingsError(f"probe={probe} uses no clusters, so fresh_clusters has no effect; leave one of them out")
    if merged and (other := "probe" if probe is not None else "fresh_clusters" if fresh_clusters is not None else None):
        raise SettingsError(f"merged joins clusters of the run, which {other} does not use; leave one of them out")


def _count(
    labelled: LabelledImages, predictor: Predictor, scorer: Scorer, row_of_K: NDArray[np.int64], console: Console
) -> tuple[ConfusionCounts, BoundaryCounts]:
    """Count the pixels of a labelled set by the row of their best cluster; several processes share the images."""
    shape = len(row_of_K), labelled.space.n_classes
    counts, boundaries = ConfusionCounts(*shape), BoundaryCounts(*shape)

    def read(index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        data = predictor.settings.data
        return labelled.read(index, shorter_px=data.image_px, max_pixels=data.max_pixels)

    def scored(one: tuple[NDArray[np.uint8], NDArray[np.uint8]]) -> tuple[Tensor, NDArray[np.uint8]]:
        image, labels_HW = one
        return scorer(image), labels_HW

    def counted(one: tuple[Tensor, NDArray[np.uint8]]) -> tuple[ConfusionCounts, BoundaryCounts]:
        scores_Khw, labels_HW = one
        rows_HW = row_of_K[best_ids(scores_Khw, (labels_HW.shape[0], labels_HW.shape[1]))]
        own = ConfusionCounts(*shape), BoundaryCounts(*shape)
        for count in own:
            count.update(rows_HW, labels_HW)
        return own

    pairs = map_ahead(read, share(range(len(labelled))))
    found = map_looks(scored, counted, pairs, predictor.centers.device.type)
    with progress(console, "evaluating", len(labelled)) as advance, closing(found):
        for own_counts, own_boundaries in found:
            counts += own_counts
            boundaries += own_boundaries
            advance(world_size())
    all_counts, all_boundaries = zip(*gather((counts, boundaries)), strict=True)
    return functools.reduce(operator.iadd, all_counts), functools.reduce(operator.iadd, all_boundaries)


def _described(run: RunFolder, settings: Settings) -> dict[str, Any]:
    """Return what the scores say of the run."""
    return {
        "method": settings.method,
        "start": run.meta()["start"],
        "backbone": settings.backbone.name,
        "image_px": settings.data.image_px,
        "epochs": settings.training.epochs,
        "seed": settings.seed,
    }


def _check_apart(train: LabelledImages, evaluated: LabelledImages) -> None:
    """Refuse to score a probe on images whose labels it reads."""
    if {item.name for item in train.items} & {item.name for item in evaluated.items}:
        raise SettingsError(
            f"the probe reads the labels of the split '{train.split}', so it must be scored on another: "
            "give one, such as split=val"
        )
