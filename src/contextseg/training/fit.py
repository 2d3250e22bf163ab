"""`fit`: from images to a run folder with a network and its clusters. `pretrain`: to the weights of a backbone."""

import json
import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

import contextseg
from contextseg.classes import Classes
from contextseg.clustering.sampling import points_per_image, sample_cells
from contextseg.collectives import first_does, gather_stream, rank, world_size
from contextseg.conventions import SIZE_MULTIPLE_PX
from contextseg.data.cache import ImageCache
from contextseg.data.images import list_images
from contextseg.errors import RunError, TrainingError
from contextseg.extras import import_extra
from contextseg.files import write_atomically, write_errors
from contextseg.methods import METHODS
from contextseg.methods.method import Method
from contextseg.models.input_convention import find_input_convention, is_stated, with_metadata
from contextseg.progress import progress, tell_left_out
from contextseg.randomness import keyed_rng
from contextseg.run_folder import FORMAT, RunFolder, check_empty
from contextseg.settings import Settings
from contextseg.training.choosing import choose_classes
from contextseg.training.images import SiameseSource, to_tensor, whole_images
from contextseg.training.loop import train
from contextseg.training.precision import choose_precision
from contextseg.training.pretraining import pretrain_backbone
from contextseg.training.processes import process_errors, start_fabric

_INPUT_SAMPLE = 16  # images whose activations are compared with the weights' batch-norm statistics
_SHOWN = 10  # files left out that are named on the screen; meta.json has them all


@process_errors()
def fit(
    images: Path, out: Path, settings: Settings, *, resume: bool = False, console: Console | None = None
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
    console, fabric = console or Console(quiet=True), _fabric(settings)
    with ExitStack() as held:
        run, cache, settings, meta = first_does(lambda: _prepared(images, out, settings, resume, console, held))
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
    images: Path, out: Path, settings: Settings, *, resume: bool = False, console: Console | None = None
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
    if out.exists() or out.suffix != ".safetensors":
        raise RunError(f"{out}: must be the name of a new file that ends in .safetensors")
    console, fabric = console or Console(quiet=True), _fabric(settings)
    folder = out.with_suffix(".pretraining")
    with ExitStack() as held:
        run, cache, settings, _ = first_does(lambda: _prepared(images, folder, settings, resume, console, held))
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


def _prepared(
    images: Path, out: Path, settings: Settings, resume: bool, console: Console, held: ExitStack
) -> tuple[RunFolder, ImageCache, Settings, dict[str, Any]]:
    """Open the run folder and lock it for as long as `held`, decode the images and complete the settings."""
    if settings.start == "pretrain":
        import_extra("lightly", "pretrain")  # rather now than after the images have been read
    if resume:
        settings = _with_what_was_found(out, settings)
    else:
        check_empty(out)
    paths = list_images(images)
    held.enter_context(RunFolder(out).locked())
    run = _resumed(out, settings) if resume else RunFolder.create(out, settings)
    with progress(console, "reading images", len(paths)) as advance:
        cache = ImageCache.build(
            paths,
            images,
            run.path / "cache",
            shorter_px=settings.data.image_px,
            multiple=SIZE_MULTIPLE_PX,
            max_pixels=settings.data.max_pixels,
            max_bytes=settings.data.cache_bytes,
            on_progress=lambda done, total: advance(1),
        )
    _tell_left_out(cache, console)
    n_least = 2 if settings.choose_n_classes else settings.n_classes
    if len(cache) < n_least:
        raise TrainingError(
            f"{images}: {len(cache)} usable images cannot make {n_least} classes; add images or lower n_classes"
        )
    settings = _input_resolved(run, cache, settings, console)
    meta = _meta(cache, settings)
    _same_data(run, meta)
    run.write_json("meta.json", meta)
    return run, cache, settings, meta


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
    run.write_json("meta.json", meta)
    # last, since a run that has them is finished
    network = {f"embedding.{name}": value.cpu().contiguous() for name, value in method.embedding.state_dict().items()}
    learnt = {**network, "centers": centers.cpu().contiguous()}
    write_atomically(run.weights, save(learnt, {"epochs": str(method.settings.training.epochs)}))


def _set_decisions_aside(run: RunFolder, undecided: Classes, console: Console) -> None:
    """Rename what a person has said of the clusters of earlier weights, so that it is not taken for the new ones."""
    if (epochs := _trained_epochs(run)) is None:
        return
    named = run.classes.exists() and run.classes.read_text(encoding="utf-8") != undecided.to_json() + "\n"
    for path in (run.classes, run.path / "review") if named else (run.path / "review",):
        kept = path.with_name(f"{path.stem}-{epochs}-epochs{path.suffix}")
        if path.exists() and not kept.exists():  # it is there where a run was killed after this
            with write_errors(kept):
                os.replace(path, kept)
            console.print(
                f"the clusters were made afresh, so {path.name} of those before is now {kept}", highlight=False
            )


def peak_memory_mib() -> float:
    """Return the most memory that this process has held, in MiB."""
    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def _meta(cache: ImageCache, settings: Settings) -> dict[str, Any]:
    packages = ("torch", "timm", "kornia", "lightning-fabric")
    return {
        "format": FORMAT,
        "contextseg": contextseg.__version__,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in packages},
        "method": settings.method,
        "seed": settings.seed,
        "start": settings.describe_start(),
        "data": {"n_images": len(cache), "fingerprint": cache.fingerprint},
        "left_out": [{"file": name, "reason": reason} for name, reason in cache.left_out],
    }


def _input_resolved(run: RunFolder, cache: ImageCache, settings: Settings, console: Console) -> Settings:
    """Fill in how the starting weights expect their input, where nobody says; the run keeps what was found."""
    if settings.method == "lab":
        return settings
    stated = with_metadata(settings.backbone)
    if is_stated(stated):
        settings = settings.model_copy(update={"backbone": stated})
        run.write_settings(settings)
        return settings
    largest = max(cache.by_shape().values(), key=len)
    sample = keyed_rng(settings.seed, "input").permutation(largest)[:_INPUT_SAMPLE].tolist()
    images = torch.stack([to_tensor(cache[index], torch.device("cpu")) for index in sample]).float() / 255
    found = find_input_convention(settings.backbone, images)
    if found is None:
        return settings
    if found.misfit < found.own_misfit:
        console.print(
            f"{settings.backbone.weights}: its batch-norm statistics fit these images best with "
            f"mean {found.settings.mean}, std {found.settings.std}"
            f"{' and padding same' if found.settings.options.get('pad_type') else ''} "
            f"(misfit {found.misfit:.2f}; {found.own_misfit:.2f} with timm's for this name), so these are used",
            highlight=False,
        )
    settings = settings.model_copy(update={"backbone": found.settings})
    run.write_settings(settings)
    return settings


def _with_what_was_found(out: Path, settings: Settings) -> Settings:
    """Take the number of classes, and the input that the run has found for its weights, where nobody says otherwise."""
    run = RunFolder.open(out).settings()
    if settings.choose_n_classes and not run.choose_n_classes:
        settings = settings.model_copy(update={"n_classes": run.n_classes, "choose_n_classes": False})
    before = run.backbone
    if is_stated(settings.backbone) or before.weights != settings.backbone.weights or not is_stated(before):
        return settings
    found = {"mean": before.mean, "std": before.std, "options": before.options, "start": before.start}
    return settings.model_copy(update={"backbone": settings.backbone.model_copy(update=found)})


def _same_data(run: RunFolder, meta: dict[str, Any]) -> None:
    if run.checkpoint.exists() and (before := run.meta()["data"]) != meta["data"]:
        raise RunError(
            f"{run.path}: the images have changed since this run began ({before['n_images']} then, "
            f"{meta['data']['n_images']} now, or other contents); start a new run"
        )


def _resumed(out: Path, settings: Settings) -> RunFolder:
    run = RunFolder.open(out)
    before, now = (json.loads(s.model_dump_json()) for s in (run.settings(), settings))
    if now["training"]["epochs"] >= before["training"]["epochs"]:
        before["training"]["epochs"] = now["training"]["epochs"]
    if before != now:
        changed = ", ".join(sorted(_differences(before, now)))
        raise RunError(f"{out}: the run was started with other settings ({changed}); resume with the same ones")
    if (trained := _trained_epochs(run)) is not None and trained >= settings.training.epochs:
        raise RunError(f"{out}: this run is finished; give more epochs or a new folder")
    if trained is not None and "split" in run.meta():
        raise RunError(
            f"{out}: was made by `contextseg split`, which leaves no checkpoint to go on from; start a new run"
        )
    run.write_settings(settings)
    return run


def _trained_epochs(run: RunFolder) -> int | None:
    """Return the epochs behind the weights, None where there are none; a run that goes on has those of fewer epochs."""
    if not run.weights.exists():
        return None
    try:
        with safe_open(run.weights, framework="pt") as file:
            return int((file.metadata() or {}).get("epochs", run.settings().training.epochs))
    except (OSError, SafetensorError) as error:
        raise RunError(f"{run.weights}: is damaged: {error}; delete it, and --resume makes it again") from error


def _differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before.keys() | now.keys():
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield f"{key}: {before} then, {now} now"


def _tell_left_out(cache: ImageCache, console: Console) -> None:
    tell_left_out(console, cache.left_out[:_SHOWN])
    if len(cache.left_out) > _SHOWN:
        console.print(f"[yellow]left out[/] {len(cache.left_out) - _SHOWN} more; meta.json names them all")
