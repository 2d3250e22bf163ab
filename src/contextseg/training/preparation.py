"""What a run has before it trains: its folder, locked; its images, decoded; its settings, complete."""

import json
import platform
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import contextseg
from contextseg.conventions import SIZE_MULTIPLE_PX
from contextseg.data.cache import ImageCache
from contextseg.data.image_files import list_images
from contextseg.errors import ContextsegError, RunError, TrainingError
from contextseg.extras import import_extra
from contextseg.methods import METHODS
from contextseg.models.input_convention import find_input_convention, is_stated, with_metadata
from contextseg.progress import progress, tell, tell_left_out
from contextseg.randomness import keyed_rng
from contextseg.run_folder import FORMAT, RunFolder, check_empty
from contextseg.settings import Settings
from contextseg.training.images import to_tensor

_INPUT_SAMPLE = 16  # images whose activations are compared with the weights' batch-norm statistics
_SHOWN = 10  # files left out that are named on the screen; meta.json has them all


def prepare(
    images: Path, out: Path, settings: Settings, resume: bool, console: Console, held: ExitStack
) -> tuple[RunFolder, ImageCache, Settings, dict[str, Any]]:
    """Open the run folder and lock it for as long as `held`, decode the images and complete the settings."""
    if settings.start == "pretrain":
        import_extra("lightly", "pretrain")  # rather now than after the images have been read
    if resume:
        settings = _with_what_was_found(out, settings)
    else:
        check_empty(out)
        backbone = with_metadata(settings.backbone)
        METHODS[settings.method](settings.model_copy(update={"backbone": backbone}))  # refuses weights that do not fit
    paths = list_images(images)
    held.enter_context(RunFolder(out).locked())
    run = _resumed(out, settings) if resume else RunFolder.create(out, settings)
    try:
        cache = _decoded(run, paths, images, settings, console)
        settings = _input_resolved(run, cache, settings, console)
    except ContextsegError:
        if not resume:
            run.discard()
        raise
    if settings.describe_start() == "random":
        tell(console, "starting from random weights, which know nothing of the world yet; --weights gives better ones")
    meta = _meta(cache, settings)
    _same_data(run, meta)
    run.write_json("meta.json", meta)
    return run, cache, settings, meta


def _decoded(run: RunFolder, paths: list[Path], images: Path, settings: Settings, console: Console) -> ImageCache:
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
        lower = " or lower n_classes" if n_least > 2 else ""
        raise TrainingError(f"{images}: {len(cache)} usable images; at least {n_least} are needed: add images{lower}")
    return cache


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


def _resumed(out: Path, settings: Settings) -> RunFolder:
    run = RunFolder.open(out)
    before, now = (json.loads(s.model_dump_json()) for s in (run.settings(), settings))
    if now["training"]["epochs"] >= before["training"]["epochs"]:
        before["training"]["epochs"] = now["training"]["epochs"]
    if before != now:
        changed = ", ".join(sorted(_differences(before, now)))
        raise RunError(f"{out}: the run was started with other settings ({changed}); resume with the same ones")
    if (trained := run.trained_epochs()) is not None and trained >= settings.training.epochs:
        raise RunError(f"{out}: this run is finished; give more epochs or a new folder")
    if trained is not None and "split" in run.meta():
        raise RunError(
            f"{out}: was made by `contextseg split`, which leaves no checkpoint to go on from; start a new run"
        )
    run.write_settings(settings)
    return run


def _differences(before: Any, now: Any, key: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in before.keys() | now.keys():
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield f"{key}: {before} then, {now} now"


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
        tell(
            console,
            f"{settings.backbone.weights}: its batch-norm statistics fit these images best with "
            f"mean {found.settings.mean}, std {found.settings.std}"
            f"{' and padding same' if found.settings.options.get('pad_type') else ''} "
            f"(misfit {found.misfit:.2f}; {found.own_misfit:.2f} with timm's for this name), so these are used",
        )
    settings = settings.model_copy(update={"backbone": found.settings})
    run.write_settings(settings)
    return settings


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


def _same_data(run: RunFolder, meta: dict[str, Any]) -> None:
    begun = run.checkpoint, run.path / "pretraining", run.path / "choosing.json"
    if any(path.exists() for path in begun) and (before := run.meta()["data"]) != meta["data"]:
        raise RunError(
            f"{run.path}: the images have changed since this run began ({before['n_images']} then, "
            f"{meta['data']['n_images']} now, or other contents); start a new run"
        )


def _tell_left_out(cache: ImageCache, console: Console) -> None:
    tell_left_out(console, cache.left_out[:_SHOWN])
    if len(cache.left_out) > _SHOWN:
        console.print(f"[yellow]left out[/] {len(cache.left_out) - _SHOWN} more; meta.json names them all")
