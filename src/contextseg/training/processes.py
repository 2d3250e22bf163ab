"""Several processes: torchrun starts them, Fabric joins them."""

import inspect
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from contextseg.collectives import rank, world_size
from contextseg.errors import ProcessError
from contextseg.precision import usable_device

TIMEOUT = timedelta(minutes=30)
"""How long a process waits for the others in one exchange before the run ends with an error."""

# PyTorch 2.14 renames the option and warns of the old name.
_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")
    if name in inspect.signature(DistributedDataParallel).parameters
)


def start_fabric(accelerator: str, precision: str = "32-true") -> Fabric:
    """Return the engine of this process, joined with the others that torchrun has started, if any.

    Args:
        accelerator: cpu (the processes then talk by gloo) or cuda (NCCL; each process has a GPU of its own).
        precision: Fabric's name of it.
    """
    if not TorchElasticEnvironment.detect():
        return Fabric(accelerator=accelerator, devices=1, precision=precision)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it tells each process's number otherwise
    n_here, n_all = int(os.environ["LOCAL_WORLD_SIZE"]), int(os.environ["WORLD_SIZE"])
    # The methods keep their buffers (centres, labels, counts) equal themselves, and some are large.
    buffers = {_SYNC_BUFFERS: False}
    # The graph is the same in each step: parameters that a network never uses are found out in the first.
    strategy = DDPStrategy(timeout=TIMEOUT, static_graph=True, **buffers)
    fabric = Fabric(
        accelerator=accelerator, devices=n_here, num_nodes=n_all // n_here, strategy=strategy, precision=precision
    )
    fabric.launch()
    return fabric


def own_device(device: str) -> torch.device:
    """Return the device of this process: that of the name, or where torchrun has started several, its own GPU."""
    if not TorchElasticEnvironment.detect():
        return usable_device(device)
    own: torch.device = start_fabric(torch.device(device).type).device
    return own


@contextmanager
def process_errors() -> Iterator[None]:
    """Say in words that an exchange between the processes has failed, as it does in all others where one has ended.

    Raises:
        ProcessError: for a RuntimeError in the body, which is what PyTorch raises then, where there are several.
    """
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1:
            raise
        raise ProcessError(
            f"process {rank()} of {world_size()} (from 0) cannot go on; where another has ended or hangs, the reason "
            f"is there. A run that was training goes on from its last checkpoint with --resume. {error}"
        ) from error
