"""What input do weights expect? Their batch-norm statistics tell, and files of `contextseg pretrain` say so themselves.

A file of weights seldom says how the images were scaled in its training, nor how the convolutions were padded. The
wrong guess costs dearly: k-means on the features of one MobileNetV2 fell from 42 to 28 mIoU on MSRC-21. But the file
does hold the mean and the variance that each batch-norm layer saw, and with the right convention the user's own images
give nearly the same. This is ours; no label is read.

Shape legend: B images, C channels, H W pixels.
"""

import itertools
import json
from dataclasses import dataclass
from typing import Any

import timm
import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, IMAGENET_INCEPTION_MEAN
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from contextseg.errors import WeightsError
from contextseg.models.backbone import Backbone, create_net
from contextseg.settings import FROM_RANDOM, BackboneSettings

Scaling = tuple[tuple[float, float, float], tuple[float, float, float]]

_SCALINGS: tuple[Scaling, ...] = (
    (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD),
    (IMAGENET_INCEPTION_MEAN, IMAGENET_INCEPTION_MEAN),  # 0.5 and 0.5: TensorFlow's models
    ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
)
_METADATA = "contextseg"  # key of our statements in the metadata of a safetensors file
_CLEARLY_BETTER = 0.9  # another convention is taken when its misfit is under this fraction of the network's own


@dataclass(frozen=True)
class InputConvention:
    """How images are given to a network.

    Attributes:
        settings: the backbone's settings with mean, std and padding filled in.
        misfit: of the batch-norm statistics, see `batch_norm_misfit`.
        own_misfit: with what timm states for a network of that name.
    """

    settings: BackboneSettings
    misfit: float
    own_misfit: float


def metadata_of(backbone: Backbone, settings: BackboneSettings, start: str) -> dict[str, str]:
    """Return what a file of weights is to say of itself: the input they expect, what they were trained on and from."""
    mean, std = ([round(value, 6) for value in buffer.flatten().tolist()] for buffer in (backbone.mean, backbone.std))
    stated = {_METADATA: json.dumps({"mean": mean, "std": std, "options": settings.options, "start": start})}
    return stated | ({FROM_RANDOM: "true"} if settings.knows_little() else {})


def with_metadata(settings: BackboneSettings) -> BackboneSettings:
    """Fill in what the weights' file says of itself, where the settings leave it open.

    Raises:
        WeightsError: what it says makes no sense.
    """
    if settings.weights is None:
        return settings
    try:
        with safe_open(settings.weights, framework="pt") as file:
            text = (file.metadata() or {}).get(_METADATA, "{}")
    except (OSError, SafetensorError):  # of another format; or it cannot be read, which is said where it is loaded
        return settings
    try:
        stated = TypeAdapter(dict[str, Any]).validate_json(text)
        options = {**stated.get("options", {}), **settings.options}
        return BackboneSettings.model_validate({**stated, **settings.model_dump(exclude_none=True), "options": options})
    except (ValueError, TypeError, RecursionError) as error:
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise WeightsError(f"{settings.weights}: its metadata '{_METADATA}' cannot be used: {reason}") from error


def is_stated(settings: BackboneSettings) -> bool:
    """Return whether the input is known: by the settings, by timm's public weights, or as there are no weights."""
    named = settings.mean is not None or settings.std is not None or "pad_type" in settings.options
    return settings.weights is None or named


def find_input_convention(settings: BackboneSettings, image_B3HW: Tensor) -> InputConvention | None:
    """Find the scaling and the padding whose activations fit the weights' batch-norm statistics best.

    Args:
        settings: with the weights' path, and neither mean, std nor padding.
        image_B3HW: RGB in 0-1 of some unlabelled images; H and W multiples of 32.

    Returns:
        What fits best, or None where the network has no batch-norm statistics to compare with.

    Raises:
        SettingsError: timm has no network of that name.
        WeightsError: the weights do not fit the network.
    """
    pretrained_cfg = create_net(settings, pretrained=False).pretrained_cfg
    own: Scaling = (tuple(pretrained_cfg["mean"]), tuple(pretrained_cfg["std"]))
    paddings = ({}, {"pad_type": "same"}) if _takes_padding(settings) else ({},)
    found = []
    for options, (mean, std) in itertools.product(paddings, dict.fromkeys((own, *_SCALINGS))):
        candidate = settings.model_copy(update={"mean": mean, "std": std, "options": {**settings.options, **options}})
        misfit = batch_norm_misfit(Backbone(candidate).net.eval(), _scaled(image_B3HW, mean, std))
        if misfit is None:
            return None
        found.append((misfit, candidate))
    own_misfit, own_settings = found[0]
    misfit, best = min(found, key=lambda pair: pair[0])
    if misfit >= _CLEARLY_BETTER * own_misfit:
        misfit, best = own_misfit, own_settings
    return InputConvention(best, misfit, own_misfit)


@torch.no_grad()
def batch_norm_misfit(net: nn.Module, input_B3HW: Tensor) -> float | None:
    """Return how far the activations lie from the statistics that the batch-norm layers hold.

    The Kullback-Leibler divergence of the normal distribution with a channel's mean and variance over this batch from
    the one with its running statistics, averaged over the channels of each layer and over the layers.

    Args:
        net: in evaluation mode.
        input_B3HW: as the network takes it.

    Returns:
        The divergence in nats, 0 where they agree; None for a network without running statistics.
    """
    misfits: list[float] = []

    def compare(layer: nn.BatchNorm2d, inputs: tuple[Tensor, ...], _output: Tensor) -> None:
        assert layer.running_mean is not None
        assert layer.running_var is not None
        variance, mean = torch.var_mean(inputs[0].float(), dim=(0, 2, 3))
        expected = layer.running_var + layer.eps
        ratio = (variance + layer.eps) / expected
        misfits.append(float((ratio + (mean - layer.running_mean).square() / expected - 1 - ratio.log()).mean() / 2))

    hooks: list[RemovableHandle] = [
        layer.register_forward_hook(compare)
        for layer in net.modules()
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None
    ]
    if not hooks:
        return None
    net(input_B3HW)
    for hook in hooks:
        hook.remove()
    return sum(misfits) / len(misfits)


def _takes_padding(settings: BackboneSettings) -> bool:
    try:
        timm.create_model(settings.name, num_classes=0, **settings.options, pad_type="same")
    except TypeError:
        return False
    return True


def _scaled(image_B3HW: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (image_B3HW - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
