"""The state of training in one safetensors file: loading it never runs code."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import safetensors
import torch
from lightning_fabric.plugins import Precision
from pydantic import TypeAdapter
from safetensors.torch import save
from torch import Tensor, nn

from contextseg.errors import RunError
from contextseg.files import write_atomically

FORMAT = "1"


@dataclass(frozen=True)
class Position:
    """Where training stands.

    Attributes:
        epoch: the epoch that runs, from 0.
        step: steps of it that are done; 0 is its start, before its clustering.
        loss_sum: sum of the losses of those steps.
    """

    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0


def save_checkpoint(
    path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision, position: Position
) -> None:
    """Write the method, the optimiser, how its gradients are scaled and the position, whole or not at all."""
    state = {f"method/{name}": value for name, value in method.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        state |= {f"optimizer/{index}/{name}": torch.as_tensor(value) for name, value in moments.items()}
    metadata = {
        "format": FORMAT,
        "position": json.dumps(asdict(position)),
        "precision": json.dumps(precision.state_dict()),
    }
    write_atomically(path, save({name: value.contiguous() for name, value in state.items()}, metadata))


def load_checkpoint(path: Path, method: nn.Module, optimizer: torch.optim.Optimizer, precision: Precision) -> Position:
    """Bring a method, an optimiser and the scale of its gradients to a stored state, in place.

    Raises:
        RunError: the file is broken, of another format, or of another method.
    """
    metadata, state = _read(path)
    if metadata.get("format") != FORMAT:
        raise RunError(f"{path}: is of format {metadata.get('format')}, this version reads {FORMAT}")
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        position = TypeAdapter(Position).validate_json(metadata["position"])
        for name, value in state.items():
            kind, _, rest = name.partition("/")
            if kind == "optimizer":
                index, _, moment = rest.partition("/")
                moments.setdefault(int(index), {})[moment] = value
        method.load_state_dict(
            {name.removeprefix("method/"): v for name, v in state.items() if name.startswith("method/")}
        )
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
        _lay_out_moments(optimizer)
        precision.load_state_dict(TypeAdapter(dict[str, int | float]).validate_json(metadata.get("precision", "{}")))
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(f"{path}: does not fit the settings of this run: {error}") from error
    return position


def _lay_out_moments(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the memory layout of their parameter: a fused step pairs them as they lie in memory, unchecked.

    Raises:
        ValueError: a moment is not of its parameter's shape.
    """
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.ndim > 0:
                if value.shape != parameter.shape:
                    raise ValueError(f"{name} is {tuple(value.shape)}, its parameter {tuple(parameter.shape)}")
                moments[name] = torch.empty_like(parameter).copy_(value)


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {}), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError) as error:
        raise RunError(f"{path}: cannot be read as a checkpoint: {error}") from error
