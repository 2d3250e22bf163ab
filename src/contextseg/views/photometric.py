"""Photometric views: brightness, contrast, saturation, hue, grey and blur, each drawn per image.

The parameters are PiCIE's (CVPR 2021); its released code never turned an image grey, because one file wrote 'grey'
and another tested for 'gray'. Here `grey_p` works. The arithmetic is kornia's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import kornia
import numpy as np
import torch
from torch import Tensor

from contextseg.settings import ViewSettings


@dataclass(frozen=True)
class PhotometricView:
    """One draw, for one image; the defaults leave the image as it is.

    Attributes:
        brightness: factor of all values.
        contrast: factor of the distance from the image's mean grey.
        saturation: factor of the distance from the pixel's own grey.
        hue: shift, in turns of the colour circle.
        grey: the colours are dropped.
        blur_sigma_px: standard deviation of the Gaussian blur in pixels; 0 is none.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    grey: bool = False
    blur_sigma_px: float = 0.0


def draw_photometric(rng: np.random.Generator, settings: ViewSettings) -> PhotometricView:
    """Draw the photometric view of one image."""

    def jitter(limits: tuple[float, float], neutral: float) -> float:
        value, chance = rng.uniform(*limits), rng.random()
        return value if chance < settings.jitter_p else neutral

    return PhotometricView(
        brightness=jitter(settings.brightness, 1.0),
        contrast=jitter(settings.contrast, 1.0),
        saturation=jitter(settings.saturation, 1.0),
        hue=jitter(settings.hue, 0.0),
        grey=bool(rng.random() < settings.grey_p),
        blur_sigma_px=rng.uniform(*settings.blur_sigma_px) if rng.random() < settings.blur_p else 0.0,
    )


def apply_photometric(images_B3HW: Tensor, draws: Sequence[PhotometricView]) -> Tensor:
    """Apply one draw to each image of a batch.

    Args:
        images_B3HW: float32 RGB in 0-1.
        draws: B draws.

    Returns:
        (B, 3, H, W) float32 in 0-1.
    """
    images = images_B3HW

    def column(name: str) -> Tensor:
        return torch.tensor([getattr(draw, name) for draw in draws], dtype=images.dtype, device=images.device)

    images = kornia.enhance.adjust_brightness_accumulative(images, column("brightness"))
    images = kornia.enhance.adjust_contrast_with_mean_subtraction(images, column("contrast"))
    images = kornia.enhance.adjust_saturation_with_gray_subtraction(images, column("saturation"))
    hue, blur = column("hue"), column("blur_sigma_px")
    images = _change(images, hue != 0, lambda some, of: kornia.enhance.adjust_hue(some, 2 * math.pi * hue[of]))
    images = _change(images, column("grey") != 0, lambda some, _: kornia.color.rgb_to_grayscale(some))
    images = _change(images, blur > 0, lambda some, of: _blur(some, blur[of]))
    return images.clamp(0, 1)


def _change(images: Tensor, chosen: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Apply `change(images, their indices)` to the chosen images alone: half of the draws need no blur, for one."""
    of = chosen.nonzero()[:, 0]
    return images.index_copy(0, of, change(images[of], of).expand(-1, 3, -1, -1)) if len(of) else images


def _blur(images: Tensor, sigma_px: Tensor) -> Tensor:
    radius = math.ceil(3 * float(sigma_px.max()))  # beyond three deviations the kernel is below 1 %
    radius = min(radius, min(images.shape[-2:]) - 1)  # kornia's reflecting border needs a larger image
    offset = torch.arange(-radius, radius + 1, device=images.device)
    kernel = torch.exp(-(offset**2) / (2 * sigma_px[:, None] ** 2))
    # each ends at its own three deviations, so that the widest blur of a batch does not change the others
    kernel = kernel * (offset.abs() <= (3 * sigma_px[:, None]).ceil())
    kernel = kernel / kernel.sum(1, keepdim=True)
    blurred: Tensor = kornia.filters.filter2d_separable(images, kernel, kernel)
    return blurred
