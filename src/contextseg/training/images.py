"""The images of a run as batches: siamese views in training, whole images for the final clusters."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from contextseg.data.cache import ImageCache
from contextseg.randomness import keyed_rng
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch, siamese_batch


class SiameseSource:
    """All batches of siamese views of a run, each a function of (seed, epoch, step) alone.

    Each image comes once an epoch, in an order drawn for the epoch. What does not fill a batch at the end is left to
    the next epoch's order, since a batch of another size would give batch-norm other statistics; a set smaller than a
    batch is one batch.

    Args:
        cache: the decoded images.
        settings: of the run.
        device: where the views are computed.
    """

    def __init__(self, cache: ImageCache, settings: Settings, device: torch.device) -> None:
        self.cache = cache
        self.settings = settings
        self.device = device
        self.batch_size = min(settings.training.batch_size, len(cache))
        self.n_steps = len(cache) // self.batch_size
        self.n_images = self.n_steps * self.batch_size

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[SiameseBatch]:
        """Yield the batches of an epoch from a step on; the same ones at every call."""
        order = keyed_rng(self.settings.seed, "order", epoch).permutation(len(self.cache))
        for step in range(first_step, self.n_steps):
            indices = order[step * self.batch_size : (step + 1) * self.batch_size].tolist()
            images = [to_tensor(self.cache[index], self.device) for index in indices]
            yield siamese_batch(images, indices, seed=self.settings.seed, epoch=epoch, settings=self.settings.views)


def whole_images(cache: ImageCache, batch_size: int, device: torch.device) -> Iterator[tuple[list[int], Tensor]]:
    """Yield (indices, float32 RGB in 0-1 (B, 3, H, W)) of all images once; a batch holds images of one size."""
    for indices in cache.by_shape().values():
        for start in range(0, len(indices), batch_size):
            batch = indices[start : start + batch_size]
            yield batch, torch.stack([to_tensor(cache[index], device) for index in batch]).float() / 255


def to_tensor(image_HW3: np.ndarray, device: torch.device) -> Tensor:
    """Return an (H, W, 3) array as a (3, H, W) tensor of the same dtype."""
    return torch.from_numpy(np.ascontiguousarray(image_HW3)).to(device).movedim(-1, 0)
