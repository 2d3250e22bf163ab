"""Pixel embeddings: image in, one vector for each cell of the stride-4 grid out.

Every embedding takes the image and the coordinates of its cells in the uncropped image, (B, 2, h, w) float32 y and x in
0-1; most do not look at the latter.

Shape legend: B images, D dimensions, H W pixels, h w cells (h = H / 4).
"""

import kornia
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.conventions import STRIDE_PX
from contextseg.errors import SettingsError
from contextseg.models.backbone import Backbone


def on_cells(map_BChw: Tensor, image_B3HW: Tensor) -> Tensor:
    """Bring a map to the stride-4 grid of its image, (B, C, H / 4, W / 4), where it does not lie on it."""
    size = tuple(side // STRIDE_PX for side in image_B3HW.shape[-2:])
    if map_BChw.shape[-2:] == size:
        return map_BChw
    return F.interpolate(map_BChw, size=size, mode="bilinear", align_corners=False)


class TopDownDecoder(nn.Module):
    """PiCIE's decoder: a 1x1 projection of each map, summed from coarse to fine with bilinear upsampling.

    No 3x3 convolution, no norm and no non-linearity, as in the released code of PiCIE (CVPR 2021).

    Args:
        channels: channels of the maps, finest first.
        dim: channels of the result.
    """

    def __init__(self, channels: tuple[int, ...], dim: int) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(count, dim, 1) for count in channels)

    def reset(self) -> None:
        """Draw the weights anew; the biases are 0, since they would outweigh maps of unit length."""
        for lateral in self.laterals:
            assert isinstance(lateral, nn.Conv2d)
            assert lateral.bias is not None
            lateral.reset_parameters()
            nn.init.zeros_(lateral.bias)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return (B, dim, h, w) at the stride of the first map."""
        *finer, coarsest = [lateral(level) for lateral, level in zip(self.laterals, maps, strict=True)]
        result: Tensor = coarsest
        for level in reversed(finer):
            result = level + F.interpolate(result, size=level.shape[-2:], mode="bilinear", align_corners=False)
        return result


class PixelFeatures(nn.Module):
    """Backbone and decoder: features of any length that are trained.

    Args:
        backbone: gives the feature maps.
        dim: dimensions of a feature.
    """

    def __init__(self, backbone: Backbone, dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = TopDownDecoder(backbone.channels, dim)

    def forward(self, image_B3HW: Tensor, _coordinates_B2hw: Tensor) -> Tensor:
        """Return (B, D, h, w) float32 for RGB in 0-1."""
        return on_cells(self.decoder(self.backbone(image_B3HW)).float(), image_B3HW)


class PixelEmbedding(PixelFeatures):
    """Pixel features at unit length."""

    def forward(self, image_B3HW: Tensor, coordinates_B2hw: Tensor) -> Tensor:
        """Return (B, D, h, w) float32 unit vectors for RGB in 0-1."""
        return F.normalize(super().forward(image_B3HW, coordinates_B2hw), dim=1)


class ClusterScores(nn.Module):
    """A head that has learnt the clusters itself: the score of each of them for each cell.

    The centres of these embeddings are the axes, (1, 0, ..), (0, 1, ..), ..: the nearest is that of the largest score.

    Args:
        features: pixel features.
        head: (B, D, h, w) to the scores, (B, K, h, w).
    """

    def __init__(self, features: PixelFeatures, head: nn.Module) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, image_B3HW: Tensor, coordinates_B2hw: Tensor) -> Tensor:
        """Return (B, K, h, w) float32 for RGB in 0-1."""
        scores: Tensor = self.head(self.features(image_B3HW, coordinates_B2hw)).float()
        return scores


class BackboneFeatures(nn.Module):
    """The backbone's own feature maps, each brought to unit length and joined: nothing here is trained.

    Args:
        backbone: gives the feature maps.
        strides: of the maps that are joined; the deep ones by default.

    Raises:
        SettingsError: the backbone has no map at one of these strides.
    """

    def __init__(self, backbone: Backbone, strides: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        own = backbone.strides
        if strides is None:
            self.levels = list(range(len(own)))[-backbone.n_deep :]
        elif set(strides) <= set(own):
            self.levels = [level for stride in strides for level in range(len(own)) if own[level] == stride]
        else:
            raise SettingsError(
                f"strides {list(strides)}: the backbone has maps at {sorted(set(own))}; "
                "where no strides are set, its two deepest maps are joined"
            )

    def forward(self, image_B3HW: Tensor, _coordinates_B2hw: Tensor) -> Tensor:
        """Return (B, D, h, w) float32 unit vectors for RGB in 0-1; D is the sum of the maps' channels."""
        maps = self.backbone(image_B3HW)
        joined = [on_cells(F.normalize(maps[level].float(), dim=1), image_B3HW) for level in self.levels]
        return F.normalize(torch.cat(joined, dim=1), dim=1)


class LabPosition(nn.Module):
    """Colour and position: CIE Lab / 100 averaged over each cell, and weighted y and x in 0-1.

    Args:
        position_weight: factor of y and x.
    """

    def __init__(self, position_weight: float) -> None:
        super().__init__()
        self.position_weight = position_weight

    def forward(self, image_B3HW: Tensor, coordinates_B2hw: Tensor) -> Tensor:
        """Return (B, 5, h, w) float32, not of unit length, for RGB in 0-1."""
        lab = F.avg_pool2d(kornia.color.rgb_to_lab(image_B3HW.float()) / 100, STRIDE_PX)
        return torch.cat([lab, coordinates_B2hw * self.position_weight], dim=1)
