"""What the training loop and the predictor need of a method."""

import math
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from contextseg.clustering.kmeans import KMeans
from contextseg.clustering.sampling import points_per_image
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch


class TrainingImages(Protocol):
    """The images of a run, as a method may look at them between epochs: of several processes, each sees its share.

    Attributes:
        n_images: how many there are, in all.
    """

    n_images: int

    def batches(self, epoch: int) -> Iterator[SiameseBatch]:
        """Yield the views that an epoch trains on."""

    def whole(self, first: int | None = None, *, after: int = 0) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        """Yield indices, images (B, 3, H, W) and coordinates (B, 2, H / 4, W / 4) of images, not augmented.

        Processes may get a different number of batches, so nothing in between may wait for the others.

        Args:
            first: only so many images, in an order drawn at random once for the run; all by default.
            after: not the first so many of that order.
        """


CLUSTERED_IMAGES = 512
"""Images that the clusters of an epoch are made of, at most: a pass over all would cost a third of training on them."""


def clustered_batches(images: TrainingImages, epoch: int, settings: Settings) -> tuple[Iterator[SiameseBatch], int]:
    """Return the batches that the clusters of an epoch are made of, and how many cells to draw of each image."""
    n_images = min(images.n_images, CLUSTERED_IMAGES)
    batches = islice(images.batches(epoch), math.ceil(n_images / settings.training.batch_size))
    return batches, points_per_image(settings.clustering.max_points, n_images)


class Method(nn.Module):
    """A way to learn pixel embeddings; one that is not trained is complete as it stands here.

    Attributes:
        trained: whether there is anything to train; where not, only the final clusters are computed.
        spherical: whether the embeddings have unit length and are clustered by their cosine.
        watched: what `health` is, as metrics.jsonl names it.
        collapse: what is said where it is low.
        lasting_clusters: whether a cluster is still the same one after more epochs; False where they are made afresh.
        own_centers: whether each image is told by centres of its own, see `centers_within`.
        settings: of the run.
        embedding: (B, 3, H, W) RGB in 0-1, and the coordinates of the (H / 4) x (W / 4) cells in the uncropped image,
            (B, 2, H / 4, W / 4) in 0-1, to (B, D, H / 4, W / 4) float32.
    """

    trained: ClassVar[bool] = False
    spherical: ClassVar[bool] = True
    watched: ClassVar[str] = "cluster_use"
    collapse: ClassVar[str] = "the clusters are collapsing. Fewer classes, a better start or more images may help."
    lasting_clusters: bool = False
    own_centers: bool = False

    def __init__(self, embedding: nn.Module, settings: Settings) -> None:
        super().__init__()
        self.embedding = embedding
        self.settings = settings

    def allocate(self, n_images: int) -> None:
        """Make room for what is kept of each image, before training or its checkpoint."""

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser of the parameters; Adam, where a method has none of its own."""
        return torch.optim.Adam(self.parameters(), lr=self.settings.training.learning_rate, fused=True)

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Prepare an epoch; gradients are off. It must leave all processes in the same state."""

    def partners(self, indices: list[int], epoch: int) -> list[int]:
        """Return another image to be shown beside each of these in a step of an epoch; none by default."""
        return []

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the parts of the loss of one step; ``"loss"`` is the one that is differentiated.

        Of several processes, each has its share of the batch, and the mean of their losses is that of the batch.
        """
        raise NotImplementedError(f"{type(self).__name__} is not trained")

    def cluster_use(self) -> Tensor:
        """Return how many pixels each cluster has had in this epoch, (K,) int64."""
        raise NotImplementedError(f"{type(self).__name__} is not trained")

    def health(self) -> float:
        """Return what is watched for a collapse: the entropy of the epoch's cluster use as a fraction of log K.

        1: all clusters are used alike; 0: a single one is.
        """
        share = self.cluster_use() / self.cluster_use().sum()
        return float(torch.special.entr(share.double()).sum()) / math.log(len(share))

    def centers_within(self, points_BND: Tensor, centers_KD: Tensor) -> Tensor:
        """Return the centres that the points of each image are told by, (B, K, D); by default the same for all.

        Nothing but the arguments may be used.

        Args:
            points_BND: (B, N, D) float32, the embeddings of the cells of each of B images.
            centers_KD: (K, D) float32 clusters of the run.
        """
        return centers_KD.expand(len(points_BND), -1, -1)

    def final_centers(self, points: Iterable[Tensor]) -> Tensor:
        """Cluster a stream of embeddings of the unaugmented images into the run's classes, (K, D) float32.

        A method that has learnt its clusters itself returns those, and leaves the stream unread.

        Args:
            points: (n, D) float32 each.

        Raises:
            TrainingError: there are fewer points than classes.
        """
        settings = self.settings
        kmeans = KMeans(
            settings.n_classes, seed=settings.seed, spherical=self.spherical, **settings.clustering.model_dump()
        )
        return kmeans.fit(points).centers_
