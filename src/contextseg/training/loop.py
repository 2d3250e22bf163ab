"""The training loop: one, for every method, in sight."""

import itertools
import math
import time

import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import Tensor

from contextseg.collectives import all_sum, any_of_all, first_does, follow_first, gather, rank, world_size
from contextseg.errors import TrainingError
from contextseg.methods.method import Method
from contextseg.progress import progress
from contextseg.randomness import keyed_rng
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, TrainingSettings
from contextseg.training.batch_norm import synchronise_batch_norm
from contextseg.training.checkpoint import Position, load_checkpoint, save_checkpoint
from contextseg.training.images import SiameseSource
from contextseg.training.stopping import Watched, stop_if, stop_signals

LOW_HEALTH = 0.5
"""A run warns when what its method watches, such as the cluster use, falls under this fraction: it is collapsing."""


def train(
    fabric: Fabric,
    method: Method,
    source: SiameseSource,
    settings: Settings,
    run: RunFolder,
    console: Console,
) -> None:
    """Train a method, from the run's checkpoint where there is one.

    Args:
        fabric: device, precision and processes.
        method: what is trained, in place.
        source: the images.
        settings: of the run.
        run: where checkpoints and metrics go.
        console: where progress is shown.

    Raises:
        TrainingError: the loss is not finite, before it reaches the weights.
        InterruptedRunError: Ctrl-C or SIGTERM; the state has been saved.
        SettingsError: several processes cannot train it with these settings.
    """
    method.allocate(source.n_images)
    method.train()
    synchronise_batch_norm(method, fabric.device)
    optimizer = method.optimizer()
    full_rates = [group["lr"] for group in optimizer.param_groups]
    wrapped, wrapped_optimizer = fabric.setup(method, optimizer)
    resumed = first_does(run.checkpoint.exists)
    precision = fabric.strategy.precision
    at = load_checkpoint(run.checkpoint, method, optimizer, precision) if resumed else Position()
    if rank() == 0:
        run.keep_metrics_before(at.epoch, at.step)

    def save(position: Position) -> float:
        if rank() == 0:
            save_checkpoint(run.checkpoint, method, optimizer, precision, position)
        fabric.barrier()
        stop_if(any_of_all(stopped.is_set()))  # here and nowhere else between steps, so that none is lost
        return time.perf_counter()

    with stop_signals() as stopped:
        while at.epoch < settings.training.epochs:
            title = f"epoch {at.epoch + 1}/{settings.training.epochs}"
            if at.step == 0:
                save(at)
                torch.manual_seed(step_seed(settings.seed, at))
                clustering = progress(console, f"{title} clustering", source.n_images)
                with torch.no_grad(), fabric.autocast(), clustering as advance:
                    method.begin_epoch(at.epoch, Watched(source, stopped, advance))
                follow_first(method.state_dict().values())  # processors differ in how they round
            first_step, began = at.step, time.perf_counter()
            saved = began
            n_trained, done = source.n_steps * source.batch_size, at.step * source.batch_size
            with progress(console, f"{title} training", n_trained, done) as advance:
                for batch in source.batches(at.epoch, at.step):
                    if partners := method.partners(batch.indices, at.epoch):
                        batch.partners = source.views(partners, at.epoch)
                    torch.manual_seed(step_seed(settings.seed, at))
                    losses = wrapped(batch)
                    values = _means(losses)
                    _check_finite(values["loss"], at, [source.cache.names[index] for index in batch.indices])
                    fabric.backward(losses["loss"])
                    for group, full_rate in zip(optimizer.param_groups, full_rates, strict=True):
                        group["lr"] = full_rate * learning_rate_share(at, source.n_steps, settings.training)
                    wrapped_optimizer.step()
                    wrapped_optimizer.zero_grad()
                    if rank() == 0:
                        run.log(epoch=at.epoch, step=at.step, **values)
                    at = Position(at.epoch, at.step + 1, at.loss_sum + values["loss"])
                    advance(source.batch_size)
                    due = time.perf_counter() - saved > settings.training.checkpoint_every_s
                    # not after the last, so that a run that goes on in an epoch has a step, and its rate, to report
                    if at.step < source.n_steps and any_of_all(due or stopped.is_set()):
                        saved = save(at)
            rate = (at.step - first_step) * source.batch_size / (time.perf_counter() - began)
            if rank() == 0:
                _report_epoch(method, optimizer, at, rate, run, console)
            at = Position(at.epoch + 1)
        save(at)


def _report_epoch(
    method: Method,
    optimizer: torch.optim.Optimizer,
    at: Position,
    rate: float,
    run: RunFolder,
    console: Console,
) -> None:
    """Write and show what an epoch came to, and warn of a collapse."""
    loss, health, watched = at.loss_sum / at.step, method.health(), method.watched
    learning_rate = optimizer.param_groups[0]["lr"]
    run.log(epoch=at.epoch, loss=loss, **{watched: health}, learning_rate=learning_rate, images_per_s=rate)
    said = f"{watched.replace('_', ' ')} {health:.2f}"
    console.print(f"epoch {at.epoch + 1}: loss {loss:.4f}, {said}, {rate:.1f} images/s")
    if health < LOW_HEALTH:
        console.print(f"[yellow]warning:[/] {said} is under {LOW_HEALTH}: {method.collapse}")


def learning_rate_share(at: Position, n_steps: int, settings: TrainingSettings) -> float:
    """Return the share of the learning rate that a step has: 1, and over the last part of training evenly less.

    Args:
        at: the step.
        n_steps: of an epoch.
        settings: how many epochs there are, and how large that part is.
    """
    done = (at.epoch + at.step / n_steps) / settings.epochs
    return min(1.0, (1 - done) / settings.decay) if settings.decay else 1.0


def step_seed(seed: int, at: Position) -> int:
    """Return the seed of what the network itself draws (dropout), so that a resumed run draws the same.

    Each process has its own, as its images are others.
    """
    return int(keyed_rng(seed, "network", at.epoch, at.step).integers(2**62, size=world_size())[rank()])


def _means(losses: dict[str, Tensor]) -> dict[str, float]:
    """Return the parts of the loss of the whole batch."""
    means = all_sum(torch.stack([value.detach() for value in losses.values()])) / world_size()
    return dict(zip(losses, means.tolist(), strict=True))


def _check_finite(loss: float, at: Position, own_names: list[str]) -> None:
    if not math.isfinite(loss):
        names = itertools.chain(*gather(own_names))
        raise TrainingError(
            f"the loss is {loss} at epoch {at.epoch}, step {at.step} (images {', '.join(names)}); "
            "it has not touched the weights. Try a lower training.learning_rate, or training.precision=32-true"
        )
