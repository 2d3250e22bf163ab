"""The self-supervised start: a backbone is trained on the run's own images, before classes are learnt."""

from pathlib import Path

import torch
from lightning_fabric import Fabric
from rich.console import Console
from safetensors.torch import save

from contextseg.collectives import first_does, rank
from contextseg.data.cache import ImageCache
from contextseg.files import write_atomically
from contextseg.models.input_convention import metadata_of
from contextseg.progress import tell
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings
from contextseg.training.images import SiameseSource
from contextseg.training.loop import train
from contextseg.training.objectives import OBJECTIVES


def pretrain_backbone(
    fabric: Fabric, cache: ImageCache, settings: Settings, folder: RunFolder, console: Console
) -> Path:
    """Train a backbone without labels; what has been finished is not done again, what was broken off goes on.

    Args:
        fabric: device, precision and processes.
        cache: the images.
        settings: of the run.
        folder: gets ``metrics.jsonl``, the checkpoint while it is trained, and the weights.
        console: where progress is shown.

    Returns:
        The file of weights, in timm's layout; it says itself what input they expect and what they were trained on.

    Raises:
        LibraryError: lightly is not installed.
        TrainingError: training cannot go on, or the user has stopped it.
    """
    if first_does(folder.weights.exists):
        return folder.weights
    own = settings.pretraining
    settings = settings.model_copy(update={"training": settings.training.model_copy(update=own.schedule())})
    tell(console, f"pre-training {settings.backbone.name} by {own.method} on {len(cache)} images")
    fabric.seed_everything(settings.seed, verbose=False)
    objective = OBJECTIVES[own.method](settings).to(fabric.device).to(memory_format=torch.channels_last)
    folder.path.mkdir(parents=True, exist_ok=True)
    train(fabric, objective, SiameseSource(cache, settings, fabric.device), settings, folder, console)
    if rank() == 0:
        start = settings.describe_start(f"{len(cache)} images")
        backbone = objective.embedding
        state = {name: value.cpu().contiguous() for name, value in backbone.net.state_dict().items()}
        write_atomically(folder.weights, save(state, metadata_of(backbone, settings.backbone, start)))
        folder.checkpoint.unlink()
    fabric.barrier()
    return folder.weights
