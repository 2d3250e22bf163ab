"""The state of an optimiser of any kind is in the checkpoint."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

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
    save_checkpoint(tmp_path / "c.safetensors", net, optimizer, Position(1, 3, 0.5))
    other = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    other_optimizer = make(other)
    assert load_checkpoint(tmp_path / "c.safetensors", other, other_optimizer) == Position(1, 3, 0.5)
    for number in range(3, 6):
        step(net, optimizer, number)
        step(other, other_optimizer, number)
    assert all(torch.equal(one, two) for one, two in zip(net.parameters(), other.parameters(), strict=True))
