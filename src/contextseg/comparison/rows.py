"""The rows of a comparison: settings to run, one folder for each seed, and what those folders say afterwards.

A row's runs lie in ``OUT/ROW/seed-N``. A finished run is never run again, and it is scored again only if its scores are
of other images or with an option; one that was broken off is resumed. So a comparison goes on where it stopped, and a
longer one takes over the runs of a shorter.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from contextseg import verbs
from contextseg.data.labelled import LabelledImages
from contextseg.errors import RunError
from contextseg.evaluation.scores import Scores, read_scores
from contextseg.progress import tell
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings


@dataclass(frozen=True)
class Row:
    """One method or setting, over its seeds.

    Attributes:
        name: as the user gave it.
        settings: of the first seed's run.
        seeds: those that have scores.
        scores: of each of these.
        cluster_use: the least entropy of cluster use at the end of training, as a fraction of log K; None where nothing
            is trained.
        images_per_s: median over all epochs of training; None where nothing is trained.
    """

    name: str
    settings: Settings
    seeds: list[int]
    scores: list[Scores]
    cluster_use: float | None
    images_per_s: float | None

    def percent(self, score: str) -> list[float]:
        """Return "accuracy" or "miou" of each seed, in percent."""
        return [100 * getattr(scores, score) for scores in self.scores]


def run_row(
    name: str,
    values: Mapping[str, Any],
    seed: int,
    *,
    images: Path,
    labelled: LabelledImages,
    out: Path,
    split: str | None = None,
    console: Console | None = None,
) -> None:
    """Train one seed of a row on the images, and score it on the labelled set, unless that is done.

    Args:
        name: of the row; names its folder.
        values: nested settings, without the seed.
        seed: of the run.
        images: a folder of images; no label is read there.
        labelled: the labelled set.
        out: folder of the comparison.
        split: the split that `labelled` was opened with.
        console: where progress is shown; nowhere by default.

    Raises:
        RunError: the run in the folder was made with other settings.
    """
    console, folder = console or Console(quiet=True), run_folder(out, name, seed)
    settings = make_settings({**values, "seed": seed})
    begun = (folder / "settings.yaml").exists()
    if begun:
        _check_same(RunFolder(folder), settings)
    if (folder / "scores.json").exists() and _are_plain(read_scores(folder / "scores.json"), labelled):
        return
    tell(console, f", seed {seed}", name, "bold")
    if not (folder / "weights.safetensors").exists():
        verbs.fit(images, folder, settings, resume=begun, console=console)
    scores = verbs.evaluate(folder, labelled.root, split=split, data_set=labelled.data_set, console=console)
    tell(console, f"{name}, seed {seed}: accuracy {100 * scores.accuracy:.1f}, mIoU {100 * scores.miou:.1f}")


def collect(out: Path, names: Sequence[str], n_seeds: int) -> list[Row]:
    """Read the rows that have at least one finished run."""
    return [row for name in names if (row := _collect_row(out, name, n_seeds)) is not None]


def run_folder(out: Path, name: str, seed: int) -> Path:
    """Return the folder of one run."""
    return out / name / f"seed-{seed}"


def mean_std(values: Sequence[float]) -> str:
    """Return mean and sample standard deviation with one decimal, and their number.

    >>> mean_std([20.0, 22.0, 24.0])
    '22.0 ± 2.0 (n=3)'
    >>> mean_std([20.04])
    '20.0 (n=1)'
    """
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} (n={len(values)})"


def _collect_row(out: Path, name: str, n_seeds: int) -> Row | None:
    finished = [seed for seed in range(n_seeds) if (run_folder(out, name, seed) / "scores.json").exists()]
    if not finished:
        return None
    runs = [RunFolder.open(run_folder(out, name, seed)) for seed in finished]
    epochs = [[line for line in run.metrics() if "images_per_s" in line] for run in runs]
    last = [lines[-1]["cluster_use"] for lines in epochs if lines]
    rates = [line["images_per_s"] for lines in epochs for line in lines]
    return Row(
        name=name,
        settings=runs[0].settings(),
        seeds=finished,
        scores=[read_scores(run.path / "scores.json") for run in runs],
        cluster_use=min(last) if last else None,
        images_per_s=statistics.median(rates) if rates else None,
    )


def _are_plain(scores: Scores, labelled: LabelledImages) -> bool:
    """Return whether scores are of these labelled images, with no option on."""
    of = scores.context.get("data"), scores.context.get("split"), scores.n_images
    return not scores.options and of == (labelled.space.name, labelled.split, len(labelled))


def _check_same(run: RunFolder, settings: Settings) -> None:
    """Refuse to take a run for one of other settings; what a run finds out about weights and classes is its own."""
    own = run.settings()
    if settings.choose_n_classes and not own.choose_n_classes and (run.path / "choosing.json").exists():
        settings = settings.model_copy(update={"n_classes": own.n_classes, "choose_n_classes": False})
    before, now = (
        one.model_dump(mode="json", exclude={"backbone": {"mean", "std", "options", "start"}})
        for one in (own, settings)
    )
    if before != now:
        raise RunError(f"{run.path}: was run with other settings than are asked for now; give another folder with -o")
