"""`fit`: from images to a run folder with a network and its clusters. `pretrain`: to the weights of a backbone."""

import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from safetensors.torch import save
from torch import Tensor

from contextseg.classes import Classes
from contextseg.clustering.sampling import points_per_image, sample_cells
from contextseg.collectives import first_does, gather_stream, rank, world_size
from contextseg.data.cache import ImageCache
from contextseg.errors import RunError
from contextseg.files import write_atomically, write_errors
from contextseg.methods import METHODS
from contextseg.methods.method import Method
from contextseg.precision import choose_precision
from contextseg.progress import progress, tell
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings
from contextseg.training.choosing import choose_classes
from contextseg.training.images import SiameseSource, whole_images
from contextseg.training.loop import train
from contextseg.training.preparation import prepare
from contextseg.training.pretraining import pretrain_backbone
from contextseg.training.processes import process_errors, start_fabric


@process_errors()
def fit(
    images: str | Path, out: str | Path, settings: Settings, *, resume: bool = False, console: Console | None = None
) -> RunFolder:
    """Learn classes from unlabelled images; where torchrun has started several processes, in all of them together.

    Args:
        images: a folder that is searched for images with its subfolders, or one image. No label is read.
        out: the run folder, new or empty; with `resume`, the folder of a run that was broken off.
        settings: of the run. A resumed run must have the same ones, but for more epochs.
        resume: go on where the run in `out` stopped; its results are those of an unbroken run.
        console: where progress is shown; nowhere by default.

    Returns:
        The finished run.

    Raises:
        DataError: there are no images.
        TrainingError: fewer usable images than classes, or training cannot go on.
        RunError: `out` is not fit for this, or another process is training there.
        WeightsError: the starting weights do not fit the network.
        LibraryError: the run starts with pre-training, and lightly is not installed.
        SettingsError: several processes cannot train with these settings.
        ProcessError: of several processes, another has ended or does not answer.
        WriteError: the run cannot be written; once it can, `resume` goes on.
    """
    images, out = Path(images), Path(out)
    console, fabric = console or Console(quiet=True), _fabric(settings)
    with ExitStack() as held:
        run, cache, settings, meta = first_does(lambda: prepare(images, out, settings, resume, console, held))
        began, start = time.perf_counter(), settings
        if settings.start == "pretrain":
            pretrained = pretrain_backbone(fabric, cache, settings, RunFolder(run.path / "pretraining"), console)
            backbone = settings.backbone.model_copy(update={"weights": pretrained, "pretrained": False})
            start = settings.model_copy(update={"backbone": backbone})
        if settings.choose_n_classes:
            n_classes = choose_classes(SiameseSource(cache, settings, fabric.device), start, run, console)
            chosen = {"n_classes": n_classes, "choose_n_classes": False}
            settings, start = settings.model_copy(update=chosen), start.model_copy(update=chosen)
            first_does(lambda: run.write_settings(settings))
        fabric.seed_everything(settings.seed, verbose=False)
        method = METHODS[settings.method](start).to(fabric.device).to(memory_format=torch.channels_last)
        if method.trained:
            train(fabric, method, SiameseSource(cache, settings, fabric.device), settings, run, console)
        centers = final_clusters(fabric, method, cache, settings, console)
        if rank() == 0:
            measured = {
                "finished": datetime.now(UTC).isoformat(timespec="minutes"),
                "n_processes": world_size(),
                "train_s": time.perf_counter() - began,
            }
            cache.delete()
            _write(run, method, centers, meta | measured | {"peak_memory_mib": peak_memory_mib()}, console)
        fabric.barrier()
        return run


@process_errors()
def pretrain(
    images: str | Path, out: str | Path, settings: Settings, *, resume: bool = False, console: Console | None = None
) -> Path:
    """Train a backbone on unlabelled images by self-supervision, for runs to start from.

    Args:
        images: a folder that is searched for images with its subfolders, or one image. No label is read.
        out: the file of weights, new, ending in .safetensors. Its state while it is trained, and its figures for good,
            lie beside it in a folder of the same name that ends in .pretraining.
        settings: of a run, with ``start`` "pretrain"; nothing of its method is read.
        resume: go on where pre-training for `out` stopped.
        console: where progress is shown; nowhere by default.

    Returns:
        `out`.

    Raises:
        DataError: there are no images.
        RunError: `out` is there already, or is not such a file.
        TrainingError: fewer than two usable images, or training cannot go on.
        LibraryError: lightly is not installed.
        SettingsError: several processes cannot train with these settings.
        ProcessError: of several processes, another has ended or does not answer.
    """
    images, out = Path(images), Path(out)
    if out.exists() or out.suffix != ".safetensors":
        raise RunError(f"{out}: must be the name of a new file that ends in .safetensors")
    console, fabric = console or Console(quiet=True), _fabric(settings)
    folder = out.with_suffix(".pretraining")
    with ExitStack() as held:
        run, cache, settings, _ = first_does(lambda: prepare(images, folder, settings, resume, console, held))
        weights = pretrain_backbone(fabric, cache, settings, run, console)
        if rank() == 0:
            os.replace(weights, out)
            cache.delete()
        fabric.barrier()
    return out


def _fabric(settings: Settings) -> Fabric:
    accelerator = settings.training.accelerator
    if accelerator == "auto":  # Fabric's own "auto" would take mps, which lacks the float64 of the k-means sums
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    return start_fabric(accelerator, choose_precision(settings.training.precision, torch.device(accelerator)))


def final_clusters(fabric: Fabric, method: Method, cache: ImageCache, settings: Settings, console: Console) -> Tensor:
    """Return the clusters that a method reports: of a fresh clustering of the whole images, or those it has learnt.

    Each process embeds its share of the images; the points that are drawn from them go to all, in one process's order.

    Returns:
        (K, D) float32 centres.
    """
    per_image = points_per_image(settings.clustering.max_points, len(cache))
    method.eval()

    def points(advance: Any) -> Iterator[Tensor]:
        for indices, images, coordinates in whole_images(cache, fabric.device):
            with torch.no_grad():  # in full precision, as predictions are
                embedded = method.embedding(images, coordinates)
            yield sample_cells(embedded, indices, (settings.seed, "final cells", 0), per_image)
            advance(len(indices) * world_size())

    with progress(console, "final clusters", len(cache)) as advance:
        return method.final_centers(gather_stream(points(advance)))


def _write(run: RunFolder, method: Method, centers: Tensor, meta: dict[str, Any], console: Console) -> None:
    """Write what makes a run a finished one; what a person has decided stays where its clusters do."""
    numbered = Classes.numbered(len(centers))
    if not method.lasting_clusters:
        _set_decisions_aside(run, numbered, console)
    if not run.classes.exists():
        numbered.write(run.classes)
    shutil.rmtree(run.path / "review" / "masks", ignore_errors=True)  # of earlier weights; `review` makes them again
    for stale in (*run.path.glob("scores*.json"), run.path / "report.html"):
        stale.unlink(missing_ok=True)
    run.write_json("meta.json", meta)
    # last, since a run that has them is finished
    network = {f"embedding.{name}": value.cpu().contiguous() for name, value in method.embedding.state_dict().items()}
    learnt = {**network, "centers": centers.cpu().contiguous()}
    write_atomically(run.weights, save(learnt, {"epochs": str(method.settings.training.epochs)}))


def _set_decisions_aside(run: RunFolder, undecided: Classes, console: Console) -> None:
    """Rename what a person has said of the clusters of earlier weights, so that it is not taken for the new ones."""
    if (epochs := run.trained_epochs()) is None:
        return
    named = run.classes.exists() and run.classes.read_text(encoding="utf-8") != undecided.to_json() + "\n"
    for path in (run.classes, run.path / "review") if named else (run.path / "review",):
        kept = path.with_name(f"{path.stem}-{epochs}-epochs{path.suffix}")
        if path.exists() and not kept.exists():  # it is there where a run was killed after this
            with write_errors(kept):
                os.replace(path, kept)
            tell(console, f"the clusters were made afresh, so {path.name} of those before is now {kept}")


def peak_memory_mib() -> float:
    """Return the most memory that this process has held, in MiB."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
