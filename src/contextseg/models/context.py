"""The Context-Aware Embedding (CAE): deep features, fused with global, geometric and appearance context.

Published (abstract): a module that "fuses global features with low-level geometrical and appearance representations".
Everything below is **our reconstruction**, and each part is a switch:

1. *Projection*: the decoder starts as the leading principal components, whitened in part, of the start's own deep
   features on the user's images, and its finer levels at zero: global features, since a deep one sees much of the
   image. So the first clusters are those of the start, not of random numbers.
2. *Global*: the mean of the deepest map, or the class token of a ViT, scales and shifts the features (FiLM), from 1
   and 0 at the start.
3. *Geometry*: y and x in the uncropped image, with Fourier pairs; of some images nothing is told while learning, so
   that position helps but is not leant on. *Context*: the neighbours of a cell that are close in
   space, in appearance and in feature. Both are added to the features, F' = F + W [geometry; context], W zero at the
   start.
4. *Appearance*: Lab colour and the gradient of L, as a vector a of unit length whose products are a Gaussian kernel of
   the difference in looks. Fuse: e = norm([norm(F'); w a]), so that the likeness of two cells is that of what they are,
   plus w^2 times that of how they look. While it is learnt what there is, w is so small that centres take the looks of
   their cells along and nothing hangs on them, or pixels would gather by colour; it is larger when it is told where
   things end.

A fifth part needs the centres, and stands in `contextseg.clustering.own_centers`: what a class is in this very image.

Shape legend: B images, D dimensions, C E channels, h w cells (h = H / 4), n neighbours.
"""

import math
from collections.abc import Iterable

import kornia
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.conventions import STRIDE_PX
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import TopDownDecoder, on_cells
from contextseg.settings import EmbeddingSettings

_LEAST_VARIANCE = 1e-4  # of the largest: axes with less are noise, and not drawn out further
_FOURIER = (1.0, 2.0, 4.0)  # half turns over the image
_DILATIONS = (1, 2, 4)
_OFFSETS = [(d * y, d * x) for d in _DILATIONS for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
N_LOOKS = 4  # channels of `appearance`
_FREQUENCIES = 32  # random Fourier features of the appearance
_WIDTH = 5 / 3  # of the Gaussian, in standard deviations of the appearance over the images
_LOOKS_LEARNING = 0.05  # length of what a cell looks like, beside what it is with length 1, while that is learnt
_LOOKS_LEARNT = 0.8  # the same afterwards
_LEAST_DEVIATION = 0.02  # of the appearance: where images vary less, as grey ones in colour, it is noise
_GEOMETRY = 2 + 4 * len(_FOURIER)  # channels of `_fourier`
_CONTEXT = 16  # channels of the bilateral context


def deep_features(backbone: Backbone, image_B3HW: Tensor) -> Tensor:
    """Return the deep maps of an image, each of unit length, joined at the finest one's stride: (B, C, h', w')."""
    deep = [level.float() for level in backbone(image_B3HW)[-backbone.n_deep :]]
    size = deep[0].shape[-2:]
    return torch.cat([_resize(F.normalize(level, dim=1), size) for level in deep], dim=1)


class ContextEmbedding(nn.Module):
    """Backbone, decoder and Context-Aware Embedding: unit-length embeddings.

    Args:
        backbone: gives the feature maps.
        settings: which parts there are.
    """

    looks_length: Tensor

    def __init__(self, backbone: Backbone, settings: EmbeddingSettings) -> None:
        super().__init__()
        self.backbone = backbone
        self.settings = settings
        self.decoder = TopDownDecoder(backbone.channels, settings.dim)
        deepest, dim = backbone.channels[-1], settings.dim
        self.film = nn.Linear(deepest, 2 * dim) if settings.global_context else None
        self.context = BilateralContext(dim, _CONTEXT) if settings.bilateral else None
        self.looks = Looks() if settings.appearance else None
        self.register_buffer("looks_length", torch.tensor(_LOOKS_LEARNING))
        self.n_channels = dim + 2 * _FREQUENCIES * settings.appearance
        n_fused = _GEOMETRY * settings.geometry + _CONTEXT * settings.bilateral
        self.fuse = nn.Conv2d(n_fused, dim, 1) if n_fused else None
        for layer in (self.film, self.fuse):
            if layer is not None:  # so that the embedding starts as the plain decoder
                for parameter in layer.parameters():
                    nn.init.zeros_(parameter)

    @torch.no_grad()
    def start_from(self, mean_C: Tensor, covariance_CC: Tensor, whitening: float) -> None:
        """Let the decoder begin as a projection of the deep features, and its finer levels at zero.

        The features are centred, projected on their leading axes and whitened in part, and scaled to unit length on
        average. Otherwise their cosines are ruled by what all places have in common, and by the few axes on which they
        vary most.

        Args:
            mean_C: float64, mean of `deep_features`, or zeros to leave them as they are.
            covariance_CC: float64, their mean products about that.
            whitening: power of the axes' standard deviations that they are divided by; 1 would make all axes alike.
        """
        variances_C, axes_CC = torch.linalg.eigh(covariance_CC)
        variances_D = variances_C.flip(0)[: self.settings.dim].clamp(min=float(variances_C[-1]) * _LEAST_VARIANCE)
        scale_D = variances_D ** (-whitening / 2)
        scale_D = scale_D / (scale_D.square() * variances_D).sum().sqrt()
        projection_DC = scale_D[:, None] * axes_CC.flip(1)[:, : self.settings.dim].T
        for parameter in self.decoder.parameters():
            parameter.zero_()
        offset = 0
        for lateral in self.decoder.laterals[-self.backbone.n_deep :]:
            assert isinstance(lateral, nn.Conv2d)
            assert lateral.bias is not None
            level = slice(offset, offset + lateral.in_channels)
            lateral.weight[: len(scale_D)] = projection_DC[:, level, None, None].to(lateral.weight)
            lateral.bias[: len(scale_D)] = -(projection_DC[:, level] @ mean_C[level]).to(lateral.bias)
            offset += lateral.in_channels

    def semantics(self, image_B3HW: Tensor, whole_1C: Tensor | None = None) -> Tensor:
        """Return the features before anything low-level is fused, (B, D, h, w): what, without where or which colour."""
        found, class_token_BC = self.backbone.with_class_token(image_B3HW)
        maps = [F.normalize(level.float(), dim=1) for level in found]
        features = on_cells(self.decoder(maps), image_B3HW)
        if self.film is not None:
            whole_BC = _whole(maps, class_token_BC) if whole_1C is None else whole_1C
            scale, shift = self.film(whole_BC)[:, :, None, None].chunk(2, dim=1)
            features = torch.addcmul(shift, features, 1 + scale)
        return features

    def whole(self, tiles_13HW: Iterable[Tensor]) -> Tensor | None:
        """Return what an image says as a whole, (1, C): the mean over tiles of it; None where nothing asks for it."""
        if self.film is None:
            return None
        found = [self.backbone.with_class_token(tile) for tile in tiles_13HW]
        wholes = [_whole([F.normalize(maps[-1].float(), dim=1)], token) for maps, token in found]
        return torch.cat(wholes).mean(0, keepdim=True)

    @torch.no_grad()
    def finish(self, centers_KD: Tensor) -> Tensor:
        """Let looks have their say from now on, since it is learnt what there is, and return the centres to match."""
        if self.looks is None:
            return centers_KD
        grown = _LOOKS_LEARNT / self.looks_length
        self.looks_length *= grown
        dim = self.settings.dim
        return F.normalize(torch.cat([centers_KD[:, :dim], grown * centers_KD[:, dim:]], dim=1), dim=1)

    def forward(self, image_B3HW: Tensor, coordinates_B2hw: Tensor, whole_1C: Tensor | None = None) -> Tensor:
        """Return the embeddings of cells, (B, n_channels, h, w) float32 of unit length.

        Args:
            image_B3HW: RGB in 0-1.
            coordinates_B2hw: y and x of the cells in 0-1.
            whole_1C: what the image says as a whole, where this is but a tile of it; see `whole`.
        """
        parts = self.settings
        if parts.shuffled:
            places = torch.randperm(coordinates_B2hw[0, 0].numel(), device=coordinates_B2hw.device)
            coordinates_B2hw = coordinates_B2hw.flatten(2)[..., places].view_as(coordinates_B2hw)
        features = self.semantics(image_B3HW, whole_1C)
        looks_BChw = appearance(image_B3HW) if parts.appearance or parts.bilateral else None
        fused = (
            self._where(coordinates_B2hw) if parts.geometry else None,
            self.context(features, looks_BChw) if self.context is not None else None,
        )
        if self.fuse is not None:
            features = features + self.fuse(torch.cat([cells for cells in fused if cells is not None], dim=1))
        embedded_BDhw = F.normalize(features.float(), dim=1)
        if self.looks is not None:
            assert looks_BChw is not None
            both = torch.cat([embedded_BDhw, self.looks_length * self.looks(looks_BChw)], dim=1)
            embedded_BDhw = both / (1 + self.looks_length**2).sqrt()  # of unit length again
        return embedded_BDhw

    def _where(self, coordinates_B2hw: Tensor) -> Tensor:
        """Return the Fourier pairs of the cells' positions; zeros for images that are left out while learning."""
        fourier_BChw = _fourier(coordinates_B2hw)
        if not self.training:
            return fourier_BChw
        told_B = torch.rand(len(fourier_BChw), device=fourier_BChw.device) >= self.settings.geometry_dropout
        return fourier_BChw * told_B[:, None, None, None]


class Looks(nn.Module):
    """What a cell looks like, as a unit vector whose products fall off with the difference like a Gaussian.

    Random Fourier features (Rahimi and Recht, NeurIPS 2007) of the appearance, whitened by how it varies within the
    user's images: a difference counts by how rare it is there.
    """

    whitening_CC: Tensor
    frequencies_MC: Tensor

    def __init__(self) -> None:
        super().__init__()
        drawn = torch.Generator().manual_seed(0)
        self.register_buffer("whitening_CC", torch.eye(N_LOOKS))
        self.register_buffer("frequencies_MC", torch.randn(_FREQUENCIES, N_LOOKS, generator=drawn) / _WIDTH)

    @torch.no_grad()
    def start_from(self, covariance_CC: Tensor) -> None:
        """Take over how the appearance varies: (C, C) float64, mean products about the mean of each image."""
        variances_C, axes_CC = torch.linalg.eigh(covariance_CC)
        deviations_C = variances_C.clamp(min=_LEAST_DEVIATION**2).sqrt()
        self.whitening_CC.copy_(axes_CC / deviations_C @ axes_CC.T)

    def forward(self, appearance_BChw: Tensor) -> Tensor:
        """Return unit vectors, (B, 2 * frequencies, h, w) float32."""
        with torch.autocast(appearance_BChw.device.type, enabled=False):  # a turn must not be rounded
            weights_MC = self.frequencies_MC @ self.whitening_CC
            turns = F.conv2d(appearance_BChw, weights_MC[..., None, None])
        return torch.cat([turns.sin(), turns.cos()], dim=1) / math.sqrt(_FREQUENCIES)

    def within_image(self, image_B3HW: Tensor) -> Tensor:
        """Return the same of how cells differ from the mean of their image, whatever its light."""
        looks_BChw: Tensor = self(differences(image_B3HW))
        return looks_BChw


class BilateralContext(nn.Module):
    """Neighbours of each cell, weighed by their nearness in space, in appearance and in feature, at half resolution.

    The weights are a softmax over the 3 x 3 neighbours at each of the dilations 1, 2 and 4 of minus half the squared
    distances in space and in appearance, each over a learnt variance, plus the product of the features over a learnt
    temperature. Features and values are a projection to few dimensions, which is what keeps it cheap.

    Args:
        dim: of the features.
        inner: of the projection.
    """

    def __init__(self, dim: int, inner: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(dim, inner, 1)
        self.log_inverse_variance = nn.Parameter(torch.tensor([math.log(1 / 4**2), math.log(1 / 0.1**2)]))
        self.log_inverse_temperature = nn.Parameter(torch.tensor(math.log(5.0)))

    def forward(self, features_BDhw: Tensor, appearance_BChw: Tensor) -> Tensor:
        """Return the weighed means of the neighbours' projections, (B, E, h, w)."""
        space, looks = self.log_inverse_variance.exp()
        reduced_BEhw = F.avg_pool2d(self.reduce(features_BDhw).float(), 2)  # in this order it costs less
        looks_BChw = F.avg_pool2d(appearance_BChw, 2)
        neighbours_BEnhw = _neighbours(reduced_BEhw)
        like_Bnhw = (neighbours_BEnhw * reduced_BEhw[:, :, None]).sum(1) * self.log_inverse_temperature.exp()
        unlike_Bnhw = (_neighbours(looks_BChw) - looks_BChw[:, :, None]).square().sum(1)
        far_n11 = torch.tensor([dy * dy + dx * dx for dy, dx in _OFFSETS], device=space.device)[:, None, None]
        weights_Bnhw = (like_Bnhw - (space * far_n11 + looks * unlike_Bnhw) / 2).softmax(1)
        mean_BEhw = (neighbours_BEnhw * weights_Bnhw[:, None]).sum(2)
        return _resize(mean_BEhw, features_BDhw.shape[-2:])


def _neighbours(cells_BChw: Tensor) -> Tensor:
    """Return the neighbour of each cell at each of the offsets, (B, C, n, h, w); the nearest cell beyond the edge."""
    planes_P1hw = cells_BChw.flatten(0, 1)[:, None]
    pick_8133 = torch.eye(9, device=cells_BChw.device)[[0, 1, 2, 3, 5, 6, 7, 8]].view(8, 1, 3, 3)
    picked = [
        F.conv2d(F.pad(planes_P1hw, (dilation,) * 4, mode="replicate"), pick_8133, dilation=dilation)
        for dilation in _DILATIONS
    ]
    neighbours: Tensor = torch.cat(picked, dim=1).unflatten(0, cells_BChw.shape[:2])
    return neighbours


def _whole(maps: list[Tensor], class_token_BC: Tensor | None) -> Tensor:
    """Return what the deepest map, of unit vectors, or the class token says of the whole image, (B, C)."""
    return maps[-1].mean((2, 3)) if class_token_BC is None else F.normalize(class_token_BC.float(), dim=1)


def appearance(image_B3HW: Tensor) -> Tensor:
    """Return Lab / 100 of each cell's mean colour, and the Sobel gradient of its L: (B, 4, h, w) float32."""
    with torch.autocast(image_B3HW.device.type, enabled=False):  # half precision rounds small differences away
        lab = kornia.color.rgb_to_lab(F.avg_pool2d(image_B3HW.float(), STRIDE_PX)) / 100
        looks_BChw = torch.cat([lab, kornia.filters.sobel(lab[:, :1])], dim=1)
        return looks_BChw.contiguous(memory_format=torch.channels_last)  # as what it is joined to


def differences(image_B3HW: Tensor) -> Tensor:
    """Return the appearance of the cells less its mean over the image, (B, 4, h, w)."""
    looks_BChw = appearance(image_B3HW)
    return looks_BChw - looks_BChw.mean((2, 3), keepdim=True)


def _fourier(coordinates_B2hw: Tensor) -> Tensor:
    """Return y and x in -1 to 1 with the sines and cosines of their Fourier pairs: (B, 2 + 4 * pairs, h, w)."""
    centred = 2 * coordinates_B2hw - 1
    waves = [wave(math.pi * frequency * centred) for frequency in _FOURIER for wave in (torch.sin, torch.cos)]
    return torch.cat([centred, *waves], dim=1)


def _resize(cells: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(cells, size=size, mode="bilinear", align_corners=False)
