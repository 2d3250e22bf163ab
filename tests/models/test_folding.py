"""Folded batch norms: the same maps from fewer layers, or nothing is changed."""

import pytest
import torch
from torch import nn

from contextseg.models import folding
from contextseg.models.backbone import Backbone
from contextseg.models.folding import fold_batch_norms
from contextseg.settings import BackboneSettings


def shaken(name, **options):
    """Batch-norm statistics and weights that differ from those of any fresh network, so that a norm does something."""
    backbone = Backbone(BackboneSettings(name=name, options=options), to_the_end=True).eval()
    drawn = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for value in backbone.net.state_dict().values():
            if value.is_floating_point():
                value.mul_(1 + 0.3 * torch.rand(value.shape, generator=drawn)).add_(
                    0.05 * torch.rand(value.shape, generator=drawn)
                )
    return backbone


def norms(backbone):
    return sum(isinstance(layer, nn.BatchNorm2d) for layer in backbone.modules())


@torch.no_grad()
def maps(backbone):
    return backbone(torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(2)))


@pytest.mark.parametrize(
    ("name", "options", "left"),
    [
        ("test_resnet", {}, 0),
        ("test_efficientnet", {}, 0),  # whose norms hold their activation
        ("mobilenetv2_035", {"pad_type": "same"}, 0),  # whose convolutions are timm's own
        ("resnet10t", {}, 0),  # three convolutions at its beginning, and pooling before those of its short cuts
        ("densenet121", {"growth_rate": 4, "block_config": [2, 2, 2, 2]}, 12),  # norms of joined maps
        ("test_convnext", {}, 0),  # without any
    ],
)
def test_maps_are_the_same_without_the_norms_that_follow_a_convolution(name, options, left):
    backbone = shaken(name, **options)
    before, had = maps(backbone), norms(backbone)
    fold_batch_norms(backbone)
    assert norms(backbone) == left < max(had, 1)
    for own, other in zip(maps(backbone), before, strict=True):
        assert (own - other).abs().max() < 1e-4 * other.abs().max()


def test_a_network_that_would_not_be_the_same_stays_as_it_was(monkeypatch):
    """Here a convolution is believed to be followed by the norm of another one."""
    backbone = shaken("test_resnet")
    before, had = maps(backbone), norms(backbone)
    net, found = backbone.net, folding._pairs
    channels = {name: layer.num_features for name, layer in net.named_modules() if isinstance(layer, nn.BatchNorm2d)}

    def wrong(*args):
        pairs = found(*args)
        (first, one), (_, other) = next(
            (a, b) for a in pairs for b in pairs if a[1] != b[1] and channels[a[1]] == channels[b[1]]
        )
        assert one != other
        return [(first, other)]

    monkeypatch.setattr(folding, "_pairs", wrong)
    fold_batch_norms(backbone)
    assert norms(backbone) == had
    for own, other in zip(maps(backbone), before, strict=True):
        assert torch.equal(own, other)


def test_layers_that_are_used_twice_are_left():
    backbone = shaken("test_resnet")
    block = backbone.net.layer2[0]
    block.bn2 = block.bn1
    had = norms(backbone)
    before = maps(backbone)
    fold_batch_norms(backbone)
    assert 0 < norms(backbone) < had
    for own, other in zip(maps(backbone), before, strict=True):
        assert (own - other).abs().max() < 1e-4 * other.abs().max()
