"""The images of a run as batches: siamese views in training, whole images for the final clusters."""

from collections.abc import Collection, Iterable, Iterator
from itertools import chain, islice, tee

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contextseg.collectives import rank, share, world_size
from contextseg.conventions import STRIDE_PX, pixels_at_once
from contextseg.data.cache import ImageCache
from contextseg.data.threads import map_ahead
from contextseg.errors import SettingsError
from contextseg.randomness import keyed_rng
from contextseg.settings import Settings
from contextseg.views.geometry import whole_coordinates
from contextseg.views.siamese import SiameseBatch, siamese_batch


class SiameseSource:
    """All batches of siamese views of a run, each a function of (seed, epoch, step) alone.

    Each image comes once an epoch, in an order drawn for the epoch. What does not fill a batch at the end is left to
    the next epoch's order, since a batch of another size would give batch-norm other statistics; a set smaller than a
    batch is one batch. Of several processes each has an equal share of every batch.

    Args:
        cache: the decoded images.
        settings: of the run.
        device: where the views are computed.

    Attributes:
        batch_size: images per step, of all processes together.
        n_steps: in an epoch.
        n_images: of the run.

    Raises:
        SettingsError: the batch cannot be shared evenly, so that the mean of the processes' gradients is the batch's.
    """

    def __init__(self, cache: ImageCache, settings: Settings, device: torch.device) -> None:
        self.cache = cache
        self.settings = settings
        self.device = device
        self.batch_size = min(settings.training.batch_size, len(cache))
        self.n_steps = len(cache) // self.batch_size
        self.n_images = len(cache)
        if self.batch_size % world_size():
            fit = max(1, self.batch_size // world_size()) * world_size()
            raise SettingsError(
                f"training.batch_size: a batch of {self.batch_size} images cannot be shared evenly by {world_size()} "
                f"processes; give training.batch_size={fit}, or another multiple of {world_size()}"
            )

    def whole(self, first: int | None = None, *, after: int = 0) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Yield images as `whole_images` does: those from `after` to `first`, in an order drawn at random."""
        order = keyed_rng(self.settings.seed, "some images").permutation(len(self.cache))
        return whole_images(self.cache, self.device, set(order[after:first].tolist()))

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[SiameseBatch]:
        """Yield this process's shares of the batches of an epoch from a step on; the same ones at every call."""
        order = keyed_rng(self.settings.seed, "order", epoch).permutation(len(self.cache))
        starts = range(first_step * self.batch_size, self.n_steps * self.batch_size, self.batch_size)
        shares = (list(share(order[start : start + self.batch_size].tolist())) for start in starts)
        for indices, images in _read_batches(self.cache, shares):
            yield self._views(indices, images, epoch)

    def views(self, indices: list[int], epoch: int) -> SiameseBatch:
        """Return the views of these images in an epoch."""
        return self._views(indices, [self.cache[index] for index in indices], epoch)

    def _views(self, indices: list[int], images: list[NDArray[np.uint8]], epoch: int) -> SiameseBatch:
        tensors = [to_tensor(image, self.device) for image in images]
        return siamese_batch(tensors, indices, seed=self.settings.seed, epoch=epoch, settings=self.settings.views)


def whole_images(
    cache: ImageCache, device: torch.device, chosen: Collection[int] | None = None
) -> Iterator[tuple[list[int], Tensor, Tensor]]:
    """Yield all images once, or those that are chosen, in batches of one size.

    Several processes take the batches in turn, so that rounds of one batch of each keep the order of one process; the
    last may have a batch fewer than the first.

    Yields:
        indices, float32 RGB in 0-1 (B, 3, H, W), and the coordinates of their cells (B, 2, H / 4, W / 4).
    """
    batches: list[list[int]] = []
    for (height, width), of_one_shape in cache.by_shape().items():
        indices = [index for index in of_one_shape if chosen is None or index in chosen]
        batch_size = max(1, pixels_at_once(device.type) // (height * width))
        batches += [indices[start : start + batch_size] for start in range(0, len(indices), batch_size)]
    for batch, arrays in _read_batches(cache, batches[rank() :: world_size()]):
        images = torch.stack([to_tensor(array, device) for array in arrays]).float() / 255
        height, width = (side // STRIDE_PX for side in images.shape[-2:])
        cells = whole_coordinates(height, width).to(device)
        yield batch, images.contiguous(memory_format=torch.channels_last), cells.expand(len(batch), -1, -1, -1)


def _read_batches(
    cache: ImageCache, batches: Iterable[list[int]]
) -> Iterator[tuple[list[int], list[NDArray[np.uint8]]]]:
    """Yield each batch of indices with its images; threads decode those that the cache does not store."""
    batches, to_read = tee(batches)
    images = map_ahead(cache.__getitem__, chain.from_iterable(to_read))
    for indices in batches:
        yield indices, list(islice(images, len(indices)))


def to_tensor(image_HW3: np.ndarray, device: torch.device) -> Tensor:
    """Return an (H, W, 3) array as a (3, H, W) tensor of the same dtype."""
    return torch.from_numpy(np.ascontiguousarray(image_HW3)).to(device).movedim(-1, 0)
