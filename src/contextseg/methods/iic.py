"""`iic`: Invariant Information Clustering (Ji et al., ICCV 2019), for segmentation.

**Reproduced**: a head gives each pixel the probabilities of K clusters; the mutual information between the clusters of
a pixel in one view and of its neighbours in the other is raised, averaged over all displacements of a square window,
with the joint distribution made symmetric; an auxiliary head of more clusters; Adam 1e-4. The clusters that are
reported are those of the first head; no k-means is run.

**Ours**: backbone, decoder and views are PiCIE's, as in the PiCIE paper's comparison (IIC trains a VGG-like network on
colour and gradients); the first view meets the second, cropped, where IIC turns the transformed view back. The window
is counted in cells of 4 pixels, so that 2 of them stand for IIC's 10 pixels. Both heads are trained in each step, with
equal weight, where IIC takes turns by the epoch.

Shape legend: B images, D dimensions, h w cells, K clusters, T displacements.
"""

from collections.abc import Iterable
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.collectives import all_sum
from contextseg.methods.method import Method, TrainingImages
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import ClusterScores, PixelFeatures
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch

_LEAST = 1e-12  # probability under which a pair of clusters is taken not to occur


class Iic(Method):
    """IIC: features and the heads that say which cluster a pixel is of."""

    trained: ClassVar[bool] = True
    spherical: ClassVar[bool] = False
    lasting_clusters = True
    embedding: ClusterScores
    use_K: Tensor

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        features = PixelFeatures(Backbone(settings.backbone, load_start=load_start), settings.iic.dim)
        super().__init__(ClusterScores(features, _head(settings.iic.dim, settings.n_classes)), settings)
        self.auxiliary = _head(settings.iic.dim, settings.n_classes * settings.iic.overclusters_per_class)
        self.register_buffer("use_K", torch.zeros(settings.n_classes, dtype=torch.int64))

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Count the clusters' use from 0."""
        self.use_K.zero_()

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss and its parts: of the head and of the auxiliary head."""
        features = batch.maps(self.embedding.features)
        with torch.autocast(features[0].device.type, enabled=False):  # half precision rounds small probabilities away
            main, auxiliary = ([head(view) for view in features] for head in (self.embedding.head, self.auxiliary))
            for probabilities_BKhw in main:
                labels_N = probabilities_BKhw.argmax(1).flatten()
                self.use_K += all_sum(torch.bincount(labels_N, minlength=len(self.use_K)))
            displacement = self.settings.iic.displacement
            of_main, of_auxiliary = (
                -mutual_information(first, second, displacement) for first, second in (main, auxiliary)
            )
        loss = (of_main + of_auxiliary) / 2
        return {"loss": loss, "main": of_main.detach(), "auxiliary": of_auxiliary.detach()}

    def final_centers(self, points: Iterable[Tensor]) -> Tensor:
        """Return the axes: the clusters are those of the head, (K, K)."""
        return torch.eye(self.settings.n_classes)

    def cluster_use(self) -> Tensor:
        """Return the pixels of each cluster of the head in this epoch, both views together."""
        return self.use_K


def _head(dim: int, n_clusters: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(dim, n_clusters, 1), nn.Softmax(dim=1))


def mutual_information(first_BKhw: Tensor, second_BKhw: Tensor, displacement: int) -> Tensor:
    """Return the mutual information between the clusters of a cell and of a neighbour in the other view, in nats.

    The mean over all displacements by up to `displacement` cells along each axis of the information in the joint
    distribution, which is taken over all pairs of cells of a batch that lie inside (paper, section 3.3).

    Args:
        first_BKhw: probabilities of one view.
        second_BKhw: of the other; position by position the same points.
        displacement: less than h and w.
    """
    joint_TKK = joint_distributions(first_BKhw, second_BKhw, displacement).clamp(min=_LEAST)
    rows_TK1, columns_T1K = joint_TKK.sum(2, keepdim=True), joint_TKK.sum(1, keepdim=True)
    return (joint_TKK * (joint_TKK.log() - rows_TK1.log() - columns_T1K.log())).sum((1, 2)).mean()


def joint_distributions(first_BKhw: Tensor, second_BKhw: Tensor, displacement: int) -> Tensor:
    """Return how often two clusters meet at each displacement, (T, K, K): each symmetric with a sum of 1."""
    height, width = first_BKhw.shape[-2:]
    padded = F.pad(second_BKhw, [displacement] * 4)
    joint_TKK = torch.stack(
        [
            torch.einsum("bkhw,blhw->kl", first_BKhw, padded[..., dy : dy + height, dx : dx + width])
            for dy in range(2 * displacement + 1)
            for dx in range(2 * displacement + 1)
        ]
    )
    joint_TKK = joint_TKK / joint_TKK.sum((1, 2), keepdim=True)
    return (joint_TKK + joint_TKK.mT) / 2
