"""From RGB images of any size to cluster maps of the same size.

An image is resized as in training (its shorter side to ``data.image_px``), embedded in overlapping tiles where it is
longer than a tile, scored against the centres, and the scores are brought back to the image's own size before the
best cluster is taken (see `pixel_clusters`).
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from contextseg.conventions import SIZE_MULTIPLE_PX, STRIDE_PX, pixels_at_once
from contextseg.data.images import read_to_look_at, resize, training_size
from contextseg.errors import DataError, RunError
from contextseg.methods import METHODS
from contextseg.methods.method import Method
from contextseg.models.backbone import Backbone
from contextseg.models.context import ContextEmbedding
from contextseg.models.folding import fold_batch_norms
from contextseg.models.pointwise import hasten_pointwise
from contextseg.pixel_clusters import Prediction, best_cluster
from contextseg.precision import half_precision, usable_device
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings
from contextseg.tiling import Tiling
from contextseg.views.geometry import whole_coordinates

LONGEST_STRIP = 16
"""Strips that are longer than this many times their width are not enlarged along their length."""

_Image = TypeVar("_Image")

SampledTile = tuple[Tensor, Tensor, Tensor]
"""(3, H, W) uint8 pixels of a tile, (2, h, w) coordinates of its cells in 0-1, and which of these stand for all."""


@dataclass(frozen=True)
class Whole:
    """What tiles have in common that are parts of one image.

    Attributes:
        features_1C: what the image says as a whole, see `ContextEmbedding.whole`; None where nothing asks for it.
        centers_1KD: by which its cells are told.
    """

    features_1C: Tensor | None
    centers_1KD: Tensor


class Predictor:
    """Predicts with the network and the clusters of a finished run.

    Args:
        method: in evaluation mode from here on.
        centers: (K, D).
        settings: of the run.
        device: where the network runs.
        tile_px: longest side that is embedded at once, after the resize; a multiple of 32.
        overlap_px: pixels that neighbouring tiles share; their scores fade into each other there. A multiple of 32,
            at most half of `tile_px`.
        half: the network computes in half precision: faster, and about one pixel in a hundred gets another class.

    Raises:
        ValueError: the tile or the overlap is not such a multiple.
        SettingsError: there is no such device, or it does not multiply in half precision.
    """

    def __init__(
        self,
        method: Method,
        centers: Tensor,
        settings: Settings,
        *,
        device: str | torch.device = "cpu",
        tile_px: int = 1024,
        overlap_px: int = 128,
        half: bool = False,
    ) -> None:
        self.tiling = Tiling(tile_px, overlap_px)
        device = usable_device(device)
        self.method = method.to(device).eval()
        self.embedding = method.embedding.to(memory_format=torch.channels_last)
        self.spherical = method.spherical
        self.centers = centers.to(device)
        self.settings = settings
        self.half_dtype = half_precision(self.centers.device) if half else None

    @classmethod
    def load(cls, run: RunFolder, **options: Any) -> Self:
        """Load a finished run; `options` are the arguments of the constructor.

        Raises:
            RunError: the run is not finished, or its weights are broken.
        """
        if not run.weights.is_file():
            raise RunError(
                f"{run.path}: has no weights.safetensors; its training has not ended: go on with fit --resume"
            )
        settings = run.settings()
        method = METHODS[settings.method](settings, load_start=False)
        try:
            stored = load_file(run.weights)
            centers = stored.pop("centers")
            if centers.ndim != 2 or len(centers) != settings.n_classes or not centers.isfinite().all():
                raise ValueError(f"centers are {tuple(centers.shape)}, expected {settings.n_classes} finite rows")
            method.embedding.load_state_dict({name.removeprefix("embedding."): value for name, value in stored.items()})
        except (OSError, SafetensorError, RuntimeError, KeyError, ValueError) as error:
            raise RunError(f"{run.weights}: does not hold the network of this run: {error}") from error
        for part in list(method.modules()):
            if isinstance(part, Backbone):
                fold_batch_norms(part)
        hasten_pointwise(method)
        return cls(method, centers, settings, **options)

    def read(self, path: Path) -> tuple[NDArray[np.uint8], tuple[int, int]]:
        """Read an image file at no more than it takes to look at it, and its own size: see `read_to_look_at`."""
        data = self.settings.data
        return read_to_look_at(path, shorter_px=data.image_px, max_pixels=data.max_pixels)

    def predict(self, image: NDArray[np.uint8]) -> Prediction:
        """Predict one image.

        Args:
            image: (H, W, 3) uint8 RGB of any size.

        Raises:
            DataError: it is not such an array.
        """
        return best_cluster(self.score(checked(image)), (image.shape[0], image.shape[1]))

    def score(self, image: NDArray[np.uint8]) -> Tensor:
        """Return the scores of an image's cells for the clusters, (K, h, w) float32, on the resized image's grid."""
        return self.score_together([self.resized(image)])[0]

    def alike(self, images: Iterable[_Image], resized: Callable[[_Image], Tensor]) -> Iterator[list[_Image]]:
        """Yield those of one size in a row, as many as are looked at together; `resized` gives their pixels."""
        most_px = pixels_at_once(self.centers.device.type)
        for (_, *size), of_one_size in groupby(images, lambda image: resized(image).shape):
            at_once = max(1, most_px // math.prod(size)) if not self.tiling.is_needed(size) else 1
            while together := list(islice(of_one_size, at_once)):
                yield together

    @torch.inference_mode()
    def score_together(self, resized: Sequence[Tensor]) -> Tensor:
        """Return the scores of a few images of one size, (B, K, h, w) float32, each as `score` does.

        Args:
            resized: as `resized` returns them; only one, where that is longer than a tile.
        """
        pixels_B3HW = torch.stack([image.movedim(0, -1) for image in resized]).movedim(-1, 1)  # in channels-last
        long = self.tiling.is_needed(pixels_B3HW.shape[2:])
        whole = self.whole(self._tiles_that_stand_for(pixels_B3HW[0])) if long else None
        return self._over_tiles(pixels_B3HW, len(self.centers), functools.partial(self.score_tile, whole=whole))

    def resized(self, image: NDArray[np.uint8]) -> Tensor:
        """Return an image at the size that it is looked at in, (3, H, W) uint8, sides a multiple of 32."""
        pixels = np.require(resize(image, *self._working_size(image)), requirements=["C", "W"])  # what PyTorch takes
        return torch.from_numpy(pixels).movedim(-1, 0)

    @torch.inference_mode()
    def embed(self, image: NDArray[np.uint8]) -> Tensor:
        """Return the embeddings of an image's cells, (D, h, w) float32, on the resized image's grid.

        Where tiles overlap they are means, so not quite of unit length.
        """
        pixels_3HW = self.resized(image)
        long = self.tiling.is_needed(pixels_3HW.shape[1:])
        features_1C = self._features(self._tiles_that_stand_for(pixels_3HW)) if long else None
        of_tile = functools.partial(self.embed_tile, features_1C=features_1C)
        return self._over_tiles(pixels_3HW[None], self.centers.shape[1], of_tile)[0]

    def embed_tile(self, pixels_B3HW: Tensor, coordinates_2hw: Tensor, *, features_1C: Tensor | None = None) -> Tensor:
        """Return the embeddings of the cells of a tile of each image, (B, D, h, w) float32, on the network's device.

        Args:
            pixels_B3HW: uint8 RGB, sides a multiple of 32.
            coordinates_2hw: y and x of the cells in 0-1 over the whole image.
            features_1C: see `Whole`.
        """
        coordinates_B2hw = coordinates_2hw.to(self.centers.device).expand(len(pixels_B3HW), -1, -1, -1)
        whole = () if features_1C is None else (features_1C,)
        with self._precision():
            embedded_BDhw: Tensor = self.embedding(self._to_network(pixels_B3HW), coordinates_B2hw, *whole)
        return embedded_BDhw.float()

    @torch.inference_mode()
    def score_tile(self, pixels_B3HW: Tensor, coordinates_2hw: Tensor, *, whole: Whole | None = None) -> Tensor:
        """Return the scores of the cells for the clusters, (B, K, h, w) float32; see `embed_tile`.

        Args:
            pixels_B3HW: uint8 RGB, sides a multiple of 32.
            coordinates_2hw: y and x of the cells in 0-1 over the whole image.
            whole: what the tile is a part of; by default, it is an image.
        """
        embedded_BDhw = self.embed_tile(
            pixels_B3HW, coordinates_2hw, features_1C=whole.features_1C if whole is not None else None
        )
        points_BND = embedded_BDhw.flatten(2).mT
        centers_BKD = self.method.centers_within(points_BND, self.centers) if whole is None else whole.centers_1KD
        centers_BKD = centers_BKD.expand(len(points_BND), -1, -1)
        # what `scores` gives for each image, all images together
        scored_BKN = torch.baddbmm(-centers_BKD.square().sum(2, keepdim=True) / 2, centers_BKD, points_BND.mT)
        scored_BKhw: Tensor = scored_BKN.unflatten(-1, embedded_BDhw.shape[-2:])
        return scored_BKhw

    @torch.inference_mode()
    def whole(self, some: Sequence[SampledTile]) -> Whole:
        """Return what holds for an image as a whole, from tiles of it that stand for all."""
        features_1C, centers_1KD = self._features(some), self.centers[None]
        if self.method.own_centers:
            cells = [
                self.embed_tile(pixels_3HW[None], at_2hw, features_1C=features_1C)[..., stand_hw]
                for pixels_3HW, at_2hw, stand_hw in some
            ]
            centers_1KD = self.method.centers_within(torch.cat(cells, dim=2).mT, self.centers)
        return Whole(features_1C, centers_1KD)

    def _features(self, some: Sequence[SampledTile]) -> Tensor | None:
        """Return what some tiles say of their image as a whole, (1, C); None where nothing asks for it."""
        if not isinstance(self.embedding, ContextEmbedding):
            return None
        with self._precision():
            return self.embedding.whole(self._to_network(pixels_3HW[None]) for pixels_3HW, *_ in some)

    def _tiles_that_stand_for(self, pixels_3HW: Tensor) -> list[SampledTile]:
        height, width = pixels_3HW.shape[1:]
        coordinates_2hw = whole_coordinates(height // STRIDE_PX, width // STRIDE_PX)
        return [
            (pixels_3HW[:, top:bottom, left:right], coordinates_2hw[:, *_cells(top, bottom, left, right)], stand_hw)
            for (top, bottom, left, right), stand_hw in self.tiling.stand_ins(
                self.tiling.spans(height), self.tiling.spans(width), (height, width)
            )
        ]

    def _precision(self) -> torch.autocast:
        return torch.autocast(self.centers.device.type, self.half_dtype, enabled=self.half_dtype is not None)

    def _to_network(self, pixels_B3HW: Tensor) -> Tensor:
        """Return uint8 pixels as the network takes them, float32 in 0-1 on its device."""
        return (pixels_B3HW.to(self.centers.device) / 255).to(memory_format=torch.channels_last)

    def _over_tiles(self, pixels_B3HW: Tensor, n_channels: int, of_tile: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """Look at images of one size tile by tile, and let what is found fade between tiles."""
        height, width = pixels_B3HW.shape[2:]
        coordinates_2hw = whole_coordinates(height // STRIDE_PX, width // STRIDE_PX)
        if not self.tiling.is_needed((height, width)):
            return of_tile(pixels_B3HW, coordinates_2hw).cpu()
        total = torch.zeros(len(pixels_B3HW), n_channels, height // STRIDE_PX, width // STRIDE_PX)
        weight = torch.zeros(total.shape[2:])
        for top, bottom in self.tiling.spans(height):
            for left, right in self.tiling.spans(width):
                cells = _cells(top, bottom, left, right)
                found = of_tile(pixels_B3HW[..., top:bottom, left:right], coordinates_2hw[:, *cells])
                fading_hw = self.tiling.weights(bottom - top, right - left)
                total[..., *cells] += found.cpu() * fading_hw
                weight[cells] += fading_hw
        return total.div_(weight)

    def _working_size(self, image: NDArray[np.uint8]) -> tuple[int, int]:
        """Return the size as in training, but for what is longer than `LONGEST_STRIP`."""
        height, width, _ = image.shape
        shorter_px = self.settings.data.image_px
        longest = max(LONGEST_STRIP * shorter_px, math.ceil(max(height, width) / SIZE_MULTIPLE_PX) * SIZE_MULTIPLE_PX)
        size = training_size(height, width, shorter_px, SIZE_MULTIPLE_PX)
        return min(size[0], longest), min(size[1], longest)


def _cells(top: int, bottom: int, left: int, right: int) -> tuple[slice, slice]:
    """Return the rows and columns of the cells of a tile, which is given in pixels."""
    return slice(top // STRIDE_PX, bottom // STRIDE_PX), slice(left // STRIDE_PX, right // STRIDE_PX)


def checked(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image as it is.

    Raises:
        DataError: it is not (H, W, 3) uint8 RGB, or empty.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise DataError(f"got an array of shape {image.shape} and dtype {image.dtype}, expected (H, W, 3) uint8 RGB")
    return image
