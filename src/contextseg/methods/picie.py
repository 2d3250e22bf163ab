"""`picie`: Pixel-level feature Clustering using Invariance and Equivariance (Cho et al., CVPR 2021).

**Reproduced**: the two views (one photometric draw each; crop and flip on the image of one and on the features of the
other), k-means of each view apart at the start of an epoch with batch-norm in training mode (Lloyd iterations on the
first points, then mini-batch updates with rate n_k / N_k), labels by the nearest centre, frozen unit centres as the
classifier, cosine scores, the mean of within-view and cross-view cross-entropy, Adam 1e-4.

**Ours by default**: the scores are divided by a temperature of 0.1. ``recipes/picie-as-described.yaml`` takes it out.

**As released** (``recipes/picie-as-released.yaml``): besides, each cluster weighs its share of the pixels, which
favours large clusters, and the grey draw never runs.

**Not reproduced**: labels are taken in the training pass from the embeddings of that pass, where PiCIE stores the
labels of a pass of its own at the start of the epoch; that costs two more forward passes and a label file for each
image. View 1 is cut from the same resolution as view 2, where PiCIE cuts it from twice that. The k-means sees cells
drawn evenly from all images, where PiCIE takes all pixels of the first 20 batches. The over-clustering head ("+H") is
absent.

Shape legend: B images, D dimensions, h w cells, N = B h w, K clusters, V = 2 views.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from contextseg.clustering.kmeans import KMeans
from contextseg.clustering.sampling import points_per_image, sample_cells
from contextseg.methods.method import Method, TrainingImages
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
        n_classes = settings.n_classes
        self.register_buffer("centers_VKD", torch.zeros(2, n_classes, settings.picie.dim))
        self.register_buffer("class_weights_VK", torch.ones(2, n_classes))
        self.register_buffer("use_K", torch.zeros(n_classes, dtype=torch.int64))

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Cluster the embeddings of each view, sampled evenly over all images."""
        self.use_K.zero_()
        settings, per_image = self.settings, points_per_image(self.settings.clustering.max_points, images.n_images)
        kmeans = [
            KMeans(settings.n_classes, seed=settings.seed + epoch, **settings.clustering.model_dump()) for _ in range(2)
        ]
        for batch in images.batches(epoch):
            for view, embedded_BDhw in enumerate(batch.embed(self.embedding)):
                key = (settings.seed, f"cells-{view}", epoch)
                kmeans[view].observe(sample_cells(embedded_BDhw, batch.indices, key, per_image))
        for view, clusters in enumerate(kmeans):
            clusters.finish()
            self.centers_VKD[view] = clusters.centers_
            self.class_weights_VK[view] = class_weights(clusters.counts_, settings.picie.class_weights)

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss and its parts: within the views and across them."""
        points = [embedded_BDhw.movedim(1, -1).flatten(0, -2) for embedded_BDhw in batch.embed(self.embedding)]
        with torch.autocast(points[0].device.type, enabled=False):  # half precision does not tell near centres apart
            return self._losses(points)

    def _losses(self, points: list[Tensor]) -> dict[str, Tensor]:
        labels = [(own @ centers.T).argmax(1) for own, centers in zip(points, self.centers_VKD, strict=True)]
        for own in labels:
            self.use_K += torch.bincount(own, minlength=len(self.use_K))
        (same_1, cross_1), (cross_2, same_2) = (
            [self._cross_entropy(own, labels[target], target) for target in range(2)] for own in points
        )
        within, cross = (same_1 + same_2) / 2, (cross_1 + cross_2) / 2
        return {"loss": (within + cross) / 2, "within": within.detach(), "cross": cross.detach()}

    def cluster_use(self) -> Tensor:
        """Return the pixels of each cluster in this epoch, both views together."""
        return self.use_K

    def _cross_entropy(self, points_ND: Tensor, labels_N: Tensor, target: int) -> Tensor:
        logits = points_ND @ self.centers_VKD[target].T / self.settings.picie.temperature
        return F.cross_entropy(logits, labels_N, weight=self.class_weights_VK[target])


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
