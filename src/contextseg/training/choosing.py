"""The number of classes, chosen before a run begins; the run then is as if it had been given."""

import torch
from rich.console import Console

from contextseg.clustering.choosing import RULE, choose_n_classes, tried
from contextseg.collectives import first_does
from contextseg.methods.context import Context
from contextseg.progress import progress
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings
from contextseg.training.images import SiameseSource


@torch.no_grad()
def choose_classes(images: SiameseSource, settings: Settings, run: RunFolder, console: Console) -> int:
    """Choose the number of classes from the places that the classes of `context` are made of.

    Writes ``choosing.json``, which says what was chosen by which rule from which curve.

    Args:
        images: of the run.
        settings: of the run, with the weights that it starts from; ``n_classes`` is the largest number that is tried.
        run: gets the file.
        console: is told the number.

    Raises:
        TrainingError: there are too few images.
    """
    torch.manual_seed(settings.seed)
    at_most = min(settings.n_classes, images.n_images)
    method = Context(settings).to(images.device).to(memory_format=torch.channels_last).eval()
    with progress(console, "choosing the number of classes", len(tried(at_most))) as advance:
        choice = choose_n_classes(
            method.places(images), at_most=at_most, seed=settings.seed, on_progress=lambda done, total: advance(1)
        )
    found = {"chosen": choice.chosen, "rule": RULE, "n_classes": choice.n_classes, "stability": choice.stability}
    first_does(lambda: run.write_json("choosing.json", found))
    console.print(f"chosen: {choice.chosen} classes, of at most {at_most}", highlight=False)
    return choice.chosen
