"""The backbone: any timm network as feature maps, and its weights from a local file.

A ConvNet gives maps at strides 4, 8, 16 and 32. Some, such as MobileNetV2 and EfficientNet, have one more layer before
their classifier; what that makes is a fifth map where it is asked for. A ViT gives the patch tokens of its last four
blocks, each through the final norm, as maps at the stride of its patches, and its class token; its position embeddings
are resampled to the image by timm. The images of a run have sides that are multiples of 32: patches of 8 and 16 pixels
cover them, and for others, such as the 14 of DINOv2, the image is resized here to the nearest whole number of patches.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import safetensors
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from contextseg.conventions import SIZE_MULTIPLE_PX
from contextseg.errors import SettingsError, WeightsError
from contextseg.settings import BackboneSettings

STRIDES = (4, 8, 16, 32)
"""Pixels per position of the maps of a ConvNet."""
N_DEEP = 2
"""So many of the last maps say what a place is: strides 16 and 32 of a ConvNet, the last two blocks of a ViT; besides
what the classifier sees."""
_IF_IT_ENDS_BEFORE = " One of the feature maps alone will do with context.embedding.to_the_end=false."
_VIT_BLOCKS = 4
_DYNAMIC = {"dynamic_img_size": True}
_ANY_SIZE: tuple[dict[str, bool], ...] = (_DYNAMIC | {"strict_img_size": False}, _DYNAMIC, {})
"""How timm is told that images may have any size: a Swin, a ViT, and ConvNets, which take them anyway."""
_CONTAINERS = ("state_dict", "model_state_dict", "model", "teacher", "student", "net")


class Backbone(nn.Module):
    """A timm network that returns its feature maps, finest first.

    Attributes:
        strides: pixels of the image per position of each map; of the resized image where patches do not cover it.
        channels: channels of each map.
        n_deep: how many of the last maps say what a place is.
        frozen: whether the weights and the batch-norm statistics stay as they are.

    Args:
        settings: which network, what it starts from, and whether it is trained.
        load_start: read the weights that the settings name; off where a trained run is loaded afterwards.
        to_the_end: with what the classifier of a ConvNet sees as one more map, where that is not the last anyway.

    Raises:
        SettingsError: timm has no network of that name, or it has no such maps.
        WeightsError: the weights file does not fit the network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, settings: BackboneSettings, *, load_start: bool = True, to_the_end: bool = False) -> None:
        super().__init__()
        self.net = create_net(settings, pretrained=settings.pretrained and load_start)
        _fix_padding(self.net)
        self._indices, self.strides, self.channels = zip(*_levels(settings.name, self.net), strict=True)
        self._is_vit = len(set(self.strides)) == 1
        self._has_class_token = self._is_vit and getattr(self.net, "cls_token", None) is not None
        self._to_the_end = to_the_end and not self._is_vit and self.net.num_features != self.channels[-1]
        self.n_deep = N_DEEP + self._to_the_end
        self.net.prune_intermediate_layers(list(self._indices), prune_norm=False, prune_head=not self._to_the_end)
        if self._to_the_end:
            self.strides, self.channels = (*self.strides, self.strides[-1]), (*self.channels, self.net.num_features)
        if settings.weights is not None and load_start:
            load_weights(self.net, settings.weights, _IF_IT_ENDS_BEFORE if self._to_the_end else "")
        self.frozen, self._batch_norm_frozen = settings.frozen, settings.batch_norm == "frozen"
        if self.frozen:
            self.requires_grad_(False)
        normalisation = self.net.pretrained_cfg
        for name, given in (("mean", settings.mean), ("std", settings.std)):
            values = torch.tensor(given or normalisation[name], dtype=torch.float32)
            self.register_buffer(name, values.view(1, 3, 1, 1), persistent=False)

    def train(self, mode: bool = True) -> Self:
        """Set the mode; what is frozen, the network or its batch-norm alone, stays in evaluation mode."""
        super().train(mode and not self.frozen)
        if self._batch_norm_frozen:
            for layer in self.modules():
                if isinstance(layer, _BatchNorm):
                    layer.eval()
        return self

    def forward(self, image_B3HW: Tensor) -> list[Tensor]:
        """Return the feature maps.

        Args:
            image_B3HW: RGB in 0-1; H and W multiples of 32.

        Returns:
            For each of the strides s, finest first: (B, channels, H / s, W / s).
        """
        return self.with_class_token(image_B3HW)[0]

    def with_class_token(self, image_B3HW: Tensor) -> tuple[list[Tensor], Tensor | None]:
        """Return the feature maps, and what a ViT says of the whole image.

        Args:
            image_B3HW: RGB in 0-1; H and W multiples of 32.

        Returns:
            the maps, as `forward` does, and the class token of the last block, (B, channels); None for a network
            without one.
        """
        found = self.net.forward_intermediates(
            (self._in_patches(image_B3HW) - self.mean) / self.std,
            indices=list(self._indices),
            intermediates_only=not self._to_the_end,
            output_fmt="NCHW",
            **({"norm": True, "return_prefix_tokens": self._has_class_token} if self._is_vit else {}),
        )
        if self._to_the_end:
            end, found = found
            return [*found, end], None
        if not self._has_class_token:
            return found, None
        maps, prefixes = zip(*found, strict=True)
        return list(maps), prefixes[-1][:, 0]

    def _in_patches(self, image_B3HW: Tensor) -> Tensor:
        """Resize an image that a ViT's patches do not cover."""
        patch = self.strides[-1]
        if SIZE_MULTIPLE_PX % patch == 0:
            return image_B3HW
        size = [(2 * side + patch) // (2 * patch) * patch for side in image_B3HW.shape[-2:]]  # to the nearest
        return F.interpolate(image_B3HW, size, mode="bilinear", align_corners=False, antialias=True)


class _PaddedConv2d(nn.Conv2d):
    """timm's "same" convolution for maps whose sides are multiples of its stride: there the padding is always alike.

    All maps are such here. timm asks each map for its size, which takes `torch.onnx.export` many minutes.

    Args:
        same: the convolution to stand for; the weights are shared.
    """

    def __init__(self, same: Conv2dSame) -> None:
        super().__init__(
            same.in_channels,
            same.out_channels,
            same.kernel_size,
            same.stride,
            dilation=same.dilation,
            groups=same.groups,
            bias=same.bias is not None,
            device="meta",  # nothing is drawn
        )
        self.weight, self.bias = same.weight, same.bias
        sides = zip(self.kernel_size[::-1], self.stride[::-1], self.dilation[::-1], strict=True)
        both = [max(0, (kernel - 1) * dilation + 1 - stride) for kernel, stride, dilation in sides]
        self.edges = [pad for total in both for pad in (total // 2, total - total // 2)]

    def forward(self, maps: Tensor) -> Tensor:
        """Return what timm's "same" convolution does."""
        return super().forward(F.pad(maps, self.edges))


def _fix_padding(net: nn.Module) -> None:
    for name, layer in list(net.named_modules()):
        if isinstance(layer, Conv2dSame):
            net.set_submodule(name, _PaddedConv2d(layer))


def load_weights(net: nn.Module, path: Path, advice: str = "") -> None:
    """Load a local checkpoint into a network, in place.

    Safetensors files and torch files (read with ``weights_only=True``: loading never runs code) in the layout of timm,
    of torchvision, or of those originals that timm knows (DINO, DINOv2 and DINOv3 ViTs, ConvNeXt); timm resamples
    position embeddings of another grid. Weights that lie under a prefix (``module.encoder_q.`` of MoCo v2, ``module.``
    of SwAV) are found by the names of the network's own. What the file has beyond the network (a classifier, a
    projector) is left out.

    Args:
        net: a timm network.
        path: the checkpoint.
        advice: what may help, where the file lacks weights.

    Raises:
        WeightsError: the file cannot be read, lacks a weight of the network, or has one of another shape.
    """
    stored = _read(path)
    wanted = net.state_dict()
    prefix = _prefix(stored, wanted)
    own = {name.removeprefix(prefix): value for name, value in stored.items() if name.startswith(prefix)}
    # each family of networks in timm that has other layouts has a function of this name, which brings them to its own
    to_timm = getattr(sys.modules[type(net).__module__], "checkpoint_filter_fn", None)
    renamed = to_timm(own, net) if to_timm else own
    found = {name: renamed[name] for name in wanted if name in renamed}
    # PyTorch's count of batches is bookkeeping that older checkpoints lack
    missing = [name for name in wanted if name not in found and not name.endswith("num_batches_tracked")]
    if missing:
        raise WeightsError(
            f"{path}: lacks {len(missing)} of the network's {len(wanted)} weights, such as '{missing[0]}'; "
            f"it holds {len(stored)}, such as '{next(iter(stored), '')}'. Is it a checkpoint of another network?"
            + advice
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
    options = {"pretrained": pretrained, "num_classes": 0, **settings.options}
    for any_size in _ANY_SIZE:
        try:
            net = timm.create_model(settings.name, **{**any_size, **options})
            break
        except TypeError as error:
            refused = error
    else:
        raise SettingsError(f"backbone.options={settings.options}: {refused}") from refused
    if not hasattr(net, "forward_intermediates") or not hasattr(net, "feature_info"):
        raise SettingsError(f"backbone.name={settings.name}: gives no feature maps; 'resnet18' does")
    return net


def _levels(name: str, net: Any) -> list[tuple[int, int, int]]:
    """Return timm's index, the stride and the channels of each map."""
    levels = [(index, level["reduction"], level["num_chs"]) for index, level in enumerate(net.feature_info)]
    by_stride = {level[1]: level for level in levels}
    if set(STRIDES) <= by_stride.keys():
        return [by_stride[stride] for stride in STRIDES]
    if len(by_stride) == 1 and getattr(net, "dynamic_img_size", False):
        return levels[-_VIT_BLOCKS:]
    raise SettingsError(
        f"backbone.name={name}: has feature maps at strides {sorted(by_stride)}; needs {list(STRIDES)}, or a ViT "
        "for images of any size; 'resnet18', 'mobilenetv2_100', 'convnext_atto' and 'vit_small_patch8_224.dino' will do"
    )


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
