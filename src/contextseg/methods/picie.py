"""`picie`: Pixel-level feature Clustering using Invariance and Equivariance (Cho et al., CVPR 2021).

**Reproduced**: the two views (one photometric draw each; crop and flip on the image of one and on the features of the
other), k-means of each view apart at the start of an epoch with batch-norm in training mode (Lloyd iterations on the
first points, then mini-batch updates with rate n_k / N_k), labels by the nearest centre, frozen unit centres as the
classifier, cosine scores, the mean of within-view and cross-view cross-entropy, Adam 1e-4. With ``picie.overclusters``
("+H") a second head of K2 clusters is clustered and trained in the same way; the losses of the first and of the second
head weigh log K2 / (log K + log K2) and log K / (log K + log K2).

**Ours by default**: the scores are divided by a temperature of 0.1. ``recipes/picie-as-described.yaml`` takes it out.

**As released** (``recipes/picie-as-released.yaml``): besides, each cluster weighs its share of the pixels, which
favours large clusters, and the grey draw never runs.

**Not reproduced**: labels are taken in the training pass from the embeddings of that pass, where PiCIE stores the
labels of a pass of its own at the start of the epoch; that costs two more forward passes and a label file for each
image. View 1 is cut from the same resolution as view 2, where PiCIE cuts it from twice that. The k-means sees cells
drawn evenly from all images, of more than 512 from those that the epoch begins with, where PiCIE takes all pixels of
the first 20 batches of 256, and mini-batch updates with all others.

Shape legend: B images, D dimensions, h w cells, N = B h w, K clusters (in buffers those of all heads, one head after
the other), V = 2 views.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from contextseg.clustering.kmeans import KMeans
from contextseg.clustering.sampling import sample_cells
from contextseg.collectives import all_sum, gather_rows, world_size
from contextseg.methods.method import Method, TrainingImages, clustered_batches
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import PixelEmbedding
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch


class Picie(Method):
    """PiCIE: what is learnt is the embedding; the centres are computed anew for each epoch."""

    trained: ClassVar[bool] = True
    centers_VKD: Tensor
    class_weights_VK: Tensor
    use_K: Tensor

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        backbone = Backbone(settings.backbone, load_start=load_start)
        super().__init__(PixelEmbedding(backbone, settings.picie.dim), settings)
        self.heads = [count for count in (settings.n_classes, settings.picie.overclusters) if count]
        self.register_buffer("centers_VKD", torch.zeros(2, sum(self.heads), settings.picie.dim))
        self.register_buffer("class_weights_VK", torch.ones(2, sum(self.heads)))
        self.register_buffer("use_K", torch.zeros(settings.n_classes, dtype=torch.int64))

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Cluster the embeddings of each view, sampled evenly over the images that the epoch begins with."""
        self.use_K.zero_()
        settings = self.settings
        batches, per_image = clustered_batches(images, epoch, settings)
        kmeans = [
            [KMeans(count, seed=settings.seed + epoch, **settings.clustering.model_dump()) for count in self.heads]
            for _ in range(2)
        ]
        for batch in batches:
            for view, embedded_BDhw in enumerate(batch.embed(self.embedding)):
                key = (settings.seed, f"cells-{view}", epoch)
                points = gather_rows(sample_cells(embedded_BDhw, batch.indices, key, per_image))
                for clusters in kmeans[view]:
                    clusters.observe(points)
        for view, heads in enumerate(kmeans):
            found = [clusters.finish() for clusters in heads]
            self.centers_VKD[view] = torch.cat([clusters.centers_ for clusters in found])
            weights = [class_weights(clusters.counts_, settings.picie.class_weights) for clusters in found]
            self.class_weights_VK[view] = torch.cat(weights)

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss and its parts: within the views and across them."""
        points = [embedded_BDhw.movedim(1, -1).flatten(0, -2) for embedded_BDhw in batch.embed(self.embedding)]
        with torch.autocast(points[0].device.type, enabled=False):  # half precision does not tell near centres apart
            return self._losses(points)

    def _losses(self, points: list[Tensor]) -> dict[str, Tensor]:
        centers_ED = self.centers_VKD.flatten(0, 1)  # of both views and all heads: one product takes half the time
        logits = [own_ND @ centers_ED.T / self.settings.picie.temperature for own_ND in points]
        of_views = zip(*(own_NE.unflatten(1, (2, -1)).split(self.heads, dim=2) for own_NE in logits), strict=True)
        scores = [[list(own_NVK.unbind(1)) for own_NVK in head] for head in of_views]
        weights = self.class_weights_VK.split(self.heads, dim=1)
        labels = [[head[view][view].argmax(1) for view in range(2)] for head in scores]
        for own in labels[0]:
            self.use_K += all_sum(torch.bincount(own, minlength=len(self.use_K)))
        of_heads = [self._head_losses(*head) for head in zip(scores, labels, weights, strict=True)]
        within, cross = points[0].new_tensor(head_weights(self.heads)) @ torch.stack(of_heads)
        return {"loss": (within + cross) / 2, "within": within.detach(), "cross": cross.detach()}

    def cluster_use(self) -> Tensor:
        """Return the pixels of each cluster in this epoch, both views together."""
        return self.use_K

    def _head_losses(self, scores: list[list[Tensor]], labels: list[Tensor], weights_VK: Tensor) -> Tensor:
        """Return the cross-entropies of one head, (2,): within the views and across them.

        Args:
            scores: cosines over the temperature of the points of each view with the centres of each view, (N, K).
            labels: the cluster of each point of each view, (N,).
            weights_VK: of the clusters of each view.
        """

        def cross_entropy(own: list[Tensor], target: int) -> Tensor:
            weight = weights_VK[target][labels[target]].sum()
            # so that the plain mean of the processes' losses is the weighted mean over the pixels of all of them
            share = weight * world_size() / all_sum(weight)
            return F.cross_entropy(own[target], labels[target], weight=weights_VK[target]) * share

        (same_1, cross_1), (cross_2, same_2) = ([cross_entropy(own, target) for target in range(2)] for own in scores)
        return torch.stack([(same_1 + same_2) / 2, (cross_1 + cross_2) / 2])


def head_weights(heads: Sequence[int]) -> list[float]:
    """Return the weight of each head's loss: the share of the other one's log K, so that both heads have an equal say.

    The cross-entropy of K clusters begins near log K.
    """
    logs = [math.log(count) for count in heads]
    return [log / sum(logs) for log in reversed(logs)]


def class_weights(counts_K: Tensor, rule: str) -> Tensor:
    """Return the weight of each cluster in the loss, (K,) float32.

    "none": all 1. "counts": the cluster's share of the pixels, as PiCIE was released. "inverse": one over that share,
    scaled to a mean of 1; a cluster without pixels weighs as much as one with a single pixel.
    """
    if rule == "none":
        return torch.ones(len(counts_K), device=counts_K.device)
    if rule == "counts":
        return counts_K / counts_K.sum()
    inverse = 1 / counts_K.clamp(min=1)
    return inverse / inverse.mean()
