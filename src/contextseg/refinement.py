"""What can be laid around the scores of an image before its best clusters are taken: options of `evaluate`.

Shape suffixes: K clusters or classes; H, W image height and width in pixels; h, w cells.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from kornia.filters import guided_blur
from numpy.typing import NDArray
from torch import Tensor

from contextseg.conventions import STRIDE_PX
from contextseg.data.images import resize

Scorer = Callable[[NDArray[np.uint8]], Tensor]
"""(H, W, 3) uint8 RGB to (K, h, w) float32: scores on a grid that is stretched over the image."""

KERNEL_PX = 65
"""Side of the guided filter's window, in pixels of the image as the network saw it."""
EPS = 1e-4
"""Variance of the guide, RGB in 0-1, below which the filter smooths rather than follows an edge."""
REFINEMENT: dict[str, object] = {"filter": "guided", "kernel_px": KERNEL_PX, "eps": EPS}
"""The filter in words, for the context of the scores."""


def flip_averaged(scorer: Scorer) -> Scorer:
    """Return the mean of an image's scores and of its mirror image's, mirrored back; STEGO evaluates so."""

    def score(image: NDArray[np.uint8]) -> Tensor:
        return (scorer(image) + scorer(np.ascontiguousarray(image[:, ::-1])).flip(-1)) / 2

    return score


def refined(scorer: Scorer) -> Scorer:
    """Return the scores at four times their grid, filtered so that they change where the image has edges.

    Guided filter (He et al., TPAMI 2013): within each window the scores become a linear function of the image's colour.
    The functions are found at one pixel of each cell (fast guided filter, He and Sun 2015). The guide is the image at
    the size that the network saw, so that the filter costs the same for images of any size.
    """

    def score(image: NDArray[np.uint8]) -> Tensor:
        scores_Khw = scorer(image)
        height, width = (STRIDE_PX * side for side in scores_Khw.shape[1:])
        guide_3HW = torch.from_numpy(resize(image, height, width).copy()).movedim(-1, 0).float() / 255
        scores_KHW = F.interpolate(scores_Khw[None], size=(height, width), mode="bilinear", align_corners=False)[0]
        filtered_1KHW: Tensor = guided_blur(
            guide_3HW[None], scores_KHW[None], KERNEL_PX, EPS, border_type="replicate", subsample=STRIDE_PX
        )
        return filtered_1KHW[0]

    return score
