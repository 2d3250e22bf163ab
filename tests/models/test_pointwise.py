"""Convolutions of one pixel each: the same by either way, and the faster one where it is one."""

import pytest
import torch
from torch import Tensor, nn

from contextseg.models.pointwise import hasten_pointwise


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def small_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(8, 8, 1, groups=2, bias=False),
        nn.Conv2d(8, 6, 1, stride=2),
        nn.Conv2d(6, 6, 1, padding=1),
        nn.Conv2d(6, 4, 3, padding=1),
    ).eval()


def dilations(monkeypatch: pytest.MonkeyPatch, net: nn.Module, maps: Tensor) -> list[int]:
    """Return the dilation of each of the hastened convolutions."""
    found: list[int] = []
    convolve = nn.functional.conv2d
    with monkeypatch.context() as patch:
        patch.setattr(
            "contextseg.models.pointwise.F.conv2d",
            lambda *maps, dilation=1, **options: (
                found.append(dilation) or convolve(*maps, dilation=dilation, **options)
            ),
        )
        net(maps)
    return found


@pytest.mark.parametrize("size", [(1, 3, 5, 7), (5, 3, 20, 30), (1, 3, 40, 40)])
@torch.inference_mode()
def test_the_maps_are_the_same(size: tuple[int, ...]) -> None:
    plain, hastened = small_net(), small_net()
    hasten_pointwise(hastened)
    maps = torch.randn(size)
    torch.testing.assert_close(hastened(maps), plain(maps))
    assert [isinstance(layer, nn.Conv2d) for layer in hastened] == [False, False, True, True, True]


@torch.inference_mode()
def test_the_other_way_is_taken_for_many_cells_on_one_core_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 1)).eval()
    hasten_pointwise(net)
    few, many = torch.randn(9, 3, 11, 10), torch.randn(10, 3, 10, 10)
    assert dilations(monkeypatch, net, few) == [1]
    assert dilations(monkeypatch, net, many) == [2]
    with torch.autocast("cpu", torch.bfloat16):
        assert dilations(monkeypatch, net, many) == [1]
    torch.set_num_threads(2)
    assert dilations(monkeypatch, net, many) == [1]


def test_it_is_exported_for_any_size() -> None:
    net = small_net()[:2]
    hasten_pointwise(net)
    sides = {2: torch.export.Dim("high", min=2, max=4096), 3: torch.export.Dim("wide", min=2, max=4096)}
    exported = torch.export.export(net, (torch.randn(1, 3, 6, 8),), dynamic_shapes=({**sides},)).module()
    for size in ((3, 5), (50, 60)):
        maps = torch.randn(1, 3, *size)
        torch.testing.assert_close(exported(maps), net(maps))
