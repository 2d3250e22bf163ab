"""The state of an optimiser of any kind is in the checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from lightning_fabric.plugins import MixedPrecision, Precision
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from contextseg.errors import RunError
from contextseg.training.checkpoint import Position, load_checkpoint, save_checkpoint


def two_rates(net: nn.Sequential) -> Optimizer:
    return Adam([{"params": net[0].parameters()}, {"params": net[1].parameters(), "lr": 0.1}], lr=0.01)


@pytest.mark.parametrize(
    "make",
    [
        lambda net: Adam(net.parameters(), lr=0.01),
        lambda net: SGD(net.parameters(), lr=0.01, momentum=0.9, weight_decay=1e-4),
        lambda net: SGD(net.parameters(), lr=0.01),
        two_rates,
    ],
    ids=["Adam", "SGD with momentum", "SGD", "two rates"],
)
def test_steps_go_on_as_if_nothing_had_happened(tmp_path: Path, make: Callable[[nn.Module], Optimizer]) -> None:
    def step(net: nn.Module, optimizer: Optimizer, number: int) -> None:
        optimizer.zero_grad()
        net(torch.randn(5, 3, generator=torch.Generator().manual_seed(number))).square().sum().backward()
        optimizer.step()

    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    optimizer = make(net)
    for number in range(3):
        step(net, optimizer, number)
    save_checkpoint(tmp_path / "c.safetensors", net, optimizer, Precision(), Position(1, 3, 0.5))
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    other_optimizer = make(other)
    assert load_checkpoint(tmp_path / "c.safetensors", other, other_optimizer, Precision()) == Position(1, 3, 0.5)
    for number in range(3, 6):
        step(net, optimizer, number)
        step(other, other_optimizer, number)
    assert all(torch.equal(one, two) for one, two in zip(net.parameters(), other.parameters(), strict=True))


def test_the_scale_of_the_gradients_goes_on(tmp_path: Path) -> None:
    def halve(precision: MixedPrecision) -> None:  # by a gradient that is too large for half precision
        precision.backward(net.weight.sum() * torch.inf, None)
        precision.optimizer_step(optimizer)

    net = nn.Linear(2, 1)
    before = net.weight.detach().clone()
    optimizer = SGD(net.parameters(), lr=0.1)
    precision, fresh = (MixedPrecision("16-mixed", "cpu") for _ in range(2))
    halve(precision)
    assert torch.equal(net.weight, before)
    save_checkpoint(tmp_path / "c.safetensors", net, optimizer, precision, Position())
    load_checkpoint(tmp_path / "c.safetensors", net, optimizer, fresh)
    assert fresh.state_dict() == precision.state_dict()
    assert fresh.state_dict()["scale"] == MixedPrecision("16-mixed", "cpu").state_dict()["scale"] / 2
    for scaled in (precision, fresh):
        halve(scaled)
    assert fresh.state_dict() == precision.state_dict()


def test_a_checkpoint_without_a_scale_does_not_fit_half_precision(tmp_path: Path) -> None:
    net = nn.Linear(2, 1)
    optimizer = SGD(net.parameters(), lr=0.1)
    save_checkpoint(tmp_path / "c.safetensors", net, optimizer, Precision(), Position())
    with pytest.raises(RunError, match=r"c\.safetensors: does not fit the settings of this run"):
        load_checkpoint(tmp_path / "c.safetensors", net, optimizer, MixedPrecision("16-mixed", "cpu"))
