"""Batch-norm where several processes train: its statistics are those of the whole batch, as with one process."""

import torch
from timm.layers import convert_sync_batchnorm
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from contextseg.collectives import world_size
from contextseg.errors import SettingsError


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> None:
    """Let the batch-norm layers of a network take their statistics from the batch of all processes, in place.

    Args:
        network: in training mode.
        device: what it runs on.

    Raises:
        SettingsError: there are several processes on CPUs, for which PyTorch has no synchronised batch-norm, and a
            layer that is not frozen.
    """
    if world_size() == 1:
        return
    if device.type == "cuda":
        convert_sync_batchnorm(network)
    elif any(isinstance(layer, _BatchNorm) and layer.training for layer in network.modules()):
        raise SettingsError(
            "backbone.batch_norm=batch: several processes share batch-norm statistics on GPUs alone; on CPUs give "
            "backbone.batch_norm=frozen, and no method with batch-norm of its own (densesiam, pre-training)"
        )
