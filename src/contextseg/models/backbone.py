"""The backbone: any timm network with feature maps at strides 4, 8, 16 and 32, and its weights from a local file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from contextseg.errors import SettingsError, WeightsError
from contextseg.settings import BackboneSettings

STRIDES = (4, 8, 16, 32)
_CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "student", "net")


class Backbone(nn.Module):
    """A timm network that returns its feature maps, finest first.

    Attributes:
        strides: pixels of the image per position of each map.
        channels: channels of each map.

    Args:
        settings: which network, and what it starts from.
        load_start: read the weights that the settings name; off where a trained run is loaded afterwards.

    Raises:
        SettingsError: timm has no network of that name, or it has no maps at those strides.
        WeightsError: the weights file does not fit the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: BackboneSettings, *, load_start: bool = True) -> None:
        super().__init__()
        self.net = create_net(settings, pretrained=settings.pretrained and load_start)
        if settings.weights is not None and load_start:
            load_weights(self.net, settings.weights)
        info = {level["reduction"]: (index, level["num_chs"]) for index, level in enumerate(self.net.feature_info)}
        if not set(STRIDES) <= set(info):
            raise SettingsError(
                f"backbone.name={settings.name}: has feature maps at strides {sorted(info)}, needs {list(STRIDES)}; "
                "'resnet18', 'mobilenetv2_100' or 'convnext_atto' have them"
            )
        self.strides = STRIDES
        self.channels = tuple(info[stride][1] for stride in STRIDES)
        self._indices = [info[stride][0] for stride in STRIDES]
        self.net.prune_intermediate_layers(self._indices, prune_norm=False, prune_head=True)
        normalisation = self.net.pretrained_cfg
        for name, given in (("mean", settings.mean), ("std", settings.std)):
            values = torch.tensor(given or normalisation[name], dtype=torch.float32)
            self.register_buffer(name, values.view(1, 3, 1, 1), persistent=False)

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Return the feature maps.

        Args:
            image_B3HW: RGB in 0-1; H and W multiples of 32.

        Returns:
            For each stride s, finest first: (B, channels, H / s, W / s).
        """
        maps: list[Tensor] = self.net.forward_intermediates(
            (image_B3HW - self.mean) / self.std,
            indices=self._indices,
            intermediates_only=True,
            output_fmt="NCHW",
        )
        return maps


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a local checkpoint into a network, in place.

    Safetensors files and torch files (read with ``weights_only=True``: loading never runs code) in the layout of timm
    or of torchvision. Weights that lie under a prefix (``module.encoder_q.`` of MoCo v2, ``module.`` of SwAV) are found
    by the names of the network's own. What the file has beyond the network (a classifier, a projector) is left out.

    Raises:
        WeightsError: the file cannot be read, lacks a weight of the network, or has one of another shape.
    """
    stored = _read(path)
    wanted = net.state_dict()
    prefix = _prefix(stored, wanted)
    found = {name: stored[prefix + name] for name in wanted if prefix + name in stored}
    # PyTorch's count of batches is bookkeeping that older checkpoints lack
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(
            f"{path}: lacks {len(missing)} of the network's {len(wanted)} weights, such as '{missing[0]}'; "
            f"it holds {len(stored)}, such as '{next(iter(stored), '')}'. Is it a checkpoint of another network?"
        )
    for name, value in found.items():
        if value.shape != wanted[name].shape:
            raise WeightsError(
                f"{path}: '{name}' is {tuple(value.shape)}, the network's is {tuple(wanted[name].shape)}"
            )
    net.load_state_dict(found, strict=False)


def create_net(settings: BackboneSettings, *, pretrained: bool) -> Any:
    """Return the bare timm network, without a classifier.

    Raises:
        SettingsError: timm has no network of that name or those options, or it gives no feature maps.
    """
    if not timm.is_model(settings.name):
        near = timm.list_models(f"*{settings.name.split('_')[0]}*")[:5] or ["resnet18", "mobilenetv2_100"]
        raise SettingsError(f"backbone.name={settings.name}: timm has no such network; near names: {', '.join(near)}")
    try:
        net = timm.create_model(settings.name, pretrained=pretrained, num_classes=0, **settings.options)
    except TypeError as error:
        raise SettingsError(f"backbone.options={settings.options}: {error}") from error
    if not hasattr(net, "forward_intermediates") or not hasattr(net, "feature_info"):
        raise SettingsError(f"backbone.name={settings.name}: gives no feature maps; 'resnet18' does")
    return net


def _read(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such file; expected a .safetensors file or a torch checkpoint")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise WeightsError(f"{path}: cannot be read as weights: {error}") from error
    except Exception as error:  # torch.load raises pickle.UnpicklingError, KeyError and more for a bad file
        raise WeightsError(
            f"{path}: is not a torch file of plain tensors, and other kinds are not loaded: {error}"
        ) from error
    while isinstance(content, Mapping) and (
        inner := next((k for k in _CONTAINERS if isinstance(content.get(k), Mapping)), None)
    ):
        content = content[inner]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path}: holds {type(content).__name__}, expected a mapping from names to tensors")
    return {name: value for name, value in content.items() if isinstance(value, Tensor)}


def _prefix(stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> str:
    """Return what stands before the network's own names in the file: the prefix that finds most of them.

    Of several that find as many it is the first in the file: MoCo's encoder_q, which is trained, before its encoder_k.
    """
    first = next(iter(wanted))
    prefixes = [name.removesuffix(first) for name in stored if name == first or name.endswith("." + first)] or [""]
    return max(prefixes, key=lambda prefix: sum(prefix + name in stored for name in wanted))
