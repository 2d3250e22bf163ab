"""The two views of a siamese network: PiCIE's, drawn again at will from (seed, epoch, index).

View 1 is a photometric draw, cropped and flipped as an **image**. View 2 is another photometric draw of the whole
square; its **features** are cropped and flipped in the same way. Position i of both is then the same point of the
scene.

Shape legend: B images, h w pixels of the square.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.conventions import STRIDE_PX
from contextseg.randomness import keyed_rng
from contextseg.settings import ViewSettings
from contextseg.views.geometry import GeometricView, apply_views, draw_crop, draw_frame
from contextseg.views.photometric import apply_photometric, draw_photometric


class SiameseBatch:
    """Two views of each image of a batch.

    Not a dataclass: with half precision Fabric takes those apart to cast their tensors, and refuses frozen ones.

    Args:
        first_B3hw: float32 RGB in 0-1: cropped, resized and flipped.
        second_B3hw: float32 RGB in 0-1: the whole square.
        frames: where the square lies in each image.
        crops: the geometric view that was applied to the first, on the square's grid.
        indices: which images these are.

    Attributes:
        partners: views of another image for each, where the method asks for them.
    """

    partners: "SiameseBatch | None" = None

    def __init__(
        self,
        first_B3hw: Tensor,
        second_B3hw: Tensor,
        frames: list[GeometricView],
        crops: list[GeometricView],
        indices: list[int],
    ) -> None:
        self.first_B3hw = first_B3hw
        self.second_B3hw = second_B3hw
        self.frames = frames
        self.crops = crops
        self.indices = indices

    def maps(self, network: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the maps of both views, (B, D, h / 4, w / 4) each, position by position the same points."""
        first: Tensor = network(self.first_B3hw, self.first_coordinates())
        whole = network(self.second_B3hw, self.second_coordinates())
        return first, apply_views(self.crops, whole)

    def embed(self, embedding: nn.Module) -> tuple[Tensor, Tensor]:
        """Return the maps of both views, as `maps` does, at unit length."""
        first, second = self.maps(embedding)
        return first, F.normalize(second, dim=1)  # bilinear means of unit vectors are shorter than 1

    def first_coordinates(self) -> Tensor:
        """Return where the cells of the first view lie in the uncropped images, (B, 2, h / 4, w / 4) in 0-1."""
        return self._coordinates([frame.then(crop) for frame, crop in zip(self.frames, self.crops, strict=True)])

    def second_coordinates(self) -> Tensor:
        """Return where the cells of the second view lie in the uncropped images, (B, 2, h / 4, w / 4) in 0-1."""
        return self._coordinates(self.frames)

    def _coordinates(self, views: list[GeometricView]) -> Tensor:
        return torch.stack([view.coordinates() for view in views]).to(self.first_B3hw.device)


def siamese_batch(
    images: Sequence[Tensor], indices: Sequence[int], *, seed: int, epoch: int, settings: ViewSettings
) -> SiameseBatch:
    """Draw the two views of a batch.

    Args:
        images: (3, H, W) uint8 RGB each, on the device of the network; sides are multiples of 4, at least `frame_px`.
        indices: which images these are: with seed and epoch, the key of every draw.
        seed: of the run.
        epoch: of the run.
        settings: ranges and probabilities of the draws.
    """
    side = settings.frame_px // STRIDE_PX
    frames, crops, squares = [], [], []
    for image, index in zip(images, indices, strict=True):
        rng = keyed_rng(seed, "geometric", epoch, index)
        grid = (image.shape[-2] // STRIDE_PX, image.shape[-1] // STRIDE_PX)
        frames.append(draw_frame(rng, grid, side, settings.frame))
        crops.append(draw_crop(rng, side, settings.min_scale, settings.flip_p))
        squares.append(frames[-1].apply(image))
    square = torch.stack(squares).float() / 255
    first, second = (
        apply_photometric(
            square,
            [draw_photometric(keyed_rng(seed, f"photometric-{view}", epoch, index), settings) for index in indices],
        )
        for view in (1, 2)
    )
    return SiameseBatch(apply_views(crops, first), second, frames, crops, list(indices))
