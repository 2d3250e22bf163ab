"""The input of unknown weights is told from their batch-norm statistics."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from contextseg.models.backbone import Backbone, create_net
from contextseg.models.input_convention import batch_norm_misfit, find_input_convention, is_stated
from contextseg.settings import BackboneSettings


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(8, 3, 64, 64, generator=torch.Generator().manual_seed(0)) ** 2


def trained_with(path: Path, images: torch.Tensor, mean: float, std: float, **options: object) -> BackboneSettings:
    """Write weights whose statistics were taken from images of this scaling; the settings do not say so."""
    torch.manual_seed(1)
    net = create_net(BackboneSettings(name="mobilenetv2_035", options=options), pretrained=False)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain average
            layer.reset_running_stats()
    with torch.no_grad():
        for _ in range(2):
            net.train()((images - mean) / std)
    save_file(net.state_dict(), path)
    return BackboneSettings(name="mobilenetv2_035", weights=path)


@pytest.mark.parametrize("options", [{}, {"pad_type": "same"}], ids=["padding of torch", "padding same"])
def test_scaling_and_padding_are_found(tmp_path: Path, images: torch.Tensor, options: dict[str, str]) -> None:
    found = find_input_convention(trained_with(tmp_path / "w.safetensors", images, 0.5, 0.5, **options), images)
    assert found is not None
    assert found.settings.mean == found.settings.std == (0.5, 0.5, 0.5)
    assert found.settings.options == options
    assert found.misfit < 0.9 * found.own_misfit
    assert is_stated(found.settings)


def test_what_timm_states_is_kept_where_it_fits(tmp_path: Path, images: torch.Tensor) -> None:
    stated = create_net(BackboneSettings(name="mobilenetv2_035"), pretrained=False).pretrained_cfg
    mean, std = (torch.tensor(stated[name]).view(3, 1, 1) for name in ("mean", "std"))
    settings = trained_with(tmp_path / "w.safetensors", (images - mean) / std, 0.0, 1.0)
    found = find_input_convention(settings, images)
    assert found is not None
    assert found.settings.mean == tuple(stated["mean"])
    assert found.settings.options == {}
    assert found.misfit == found.own_misfit


def test_misfit_by_hand() -> None:
    # mean 1 and variance 4 against 0 and 1: (4/1 + 1/1 - 1 - log 4) / 2 nats
    layer = nn.BatchNorm2d(1, eps=0.0).eval()
    batch = torch.tensor([-1.0, 3.0]).view(1, 1, 1, 2)
    batch = (batch - 1) / batch.std() * 2 + 1
    misfit = batch_norm_misfit(nn.Sequential(layer), batch)
    assert misfit == pytest.approx((4 - torch.tensor(4.0).log().item()) / 2, rel=1e-4)
    assert batch_norm_misfit(nn.Sequential(nn.Conv2d(1, 1, 1)), batch) is None


def test_a_network_without_statistics_tells_nothing(tmp_path: Path, images: torch.Tensor) -> None:
    net = create_net(BackboneSettings(name="test_convnext"), pretrained=False)
    save_file(net.state_dict(), tmp_path / "w.safetensors")
    settings = BackboneSettings(name="test_convnext", weights=tmp_path / "w.safetensors")
    assert find_input_convention(settings, images) is None


def test_what_is_stated_is_not_looked_for(tmp_path: Path) -> None:
    assert is_stated(BackboneSettings())
    assert not is_stated(BackboneSettings(weights=tmp_path / "w.safetensors"))
    assert is_stated(BackboneSettings(weights=tmp_path / "w.safetensors", mean=(0.5, 0.5, 0.5)))
    assert is_stated(BackboneSettings(weights=tmp_path / "w.safetensors", options={"pad_type": "same"}))


def test_weights_that_end_before_the_classifiers_last_layer_do(tmp_path: Path, images: torch.Tensor) -> None:
    path = tmp_path / "maps.safetensors"
    save_file(Backbone(BackboneSettings(name="test_efficientnet")).net.state_dict(), path)
    assert find_input_convention(BackboneSettings(name="test_efficientnet", weights=path), images) is not None
