"""`densesiam`: Dense Siamese Network (Zhang et al., ECCV 2022), for unsupervised segmentation.

**Reproduced**: a projector gives each pixel the scores of K clusters, and a predictor is to tell from them those of the
other view, whose gradient is stopped (PixSim: cross-entropy of the softmaxes, both ways); an auxiliary pair of 128
clusters, the losses of the two weighing as in PiCIE + H; a cross-entropy of the scores with their own hard labels, each
label weighing its cluster's share of the pixels; in the last epochs the similarity of regions (features pooled under
each cluster's soft mask, projected and predicted, and told from the image's other regions by InfoNCE); SGD. The
clusters that are reported are the largest scores of the projector; no k-means is run.

**Ours**: the views are cut as for `picie`. The published learning rate is 0.05 for a batch of 256; the default is that
in proportion to the default batch.

Shape legend: B images, D dimensions, h w cells, K clusters, each with a region.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.collectives import all_sum
from contextseg.methods.method import Method, TrainingImages
from contextseg.methods.picie import head_weights
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import ClusterScores, PixelFeatures
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch


class DenseSiam(Method):
    """DenseSiam: features, projectors and predictors."""

    trained: ClassVar[bool] = True
    spherical: ClassVar[bool] = False
    lasting_clusters = True
    embedding: ClusterScores
    region_weight: Tensor
    use_K: Tensor

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        own, n_classes = settings.densesiam, settings.n_classes
        features = PixelFeatures(Backbone(settings.backbone, load_start=load_start), own.dim)
        super().__init__(ClusterScores(features, projector(own.dim, n_classes)), settings)
        self.predictor = predictor(n_classes, own.dim)
        self.auxiliary_projector = projector(own.dim, own.auxiliary_clusters)
        self.auxiliary_predictor = predictor(own.auxiliary_clusters, own.dim)
        self.region_projector = projector(own.dim, own.dim)
        self.region_predictor = predictor(own.dim, own.dim)
        self.register_buffer("region_weight", torch.zeros(()))
        self.register_buffer("use_K", torch.zeros(n_classes, dtype=torch.int64))

    def optimizer(self) -> torch.optim.Optimizer:
        """Return SGD with momentum."""
        own, rate = self.settings.densesiam, self.settings.training.learning_rate
        return torch.optim.SGD(self.parameters(), lr=rate, momentum=own.momentum, weight_decay=own.weight_decay)

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Count the clusters' use from 0, and let regions count from their epoch on."""
        own = self.settings.densesiam
        self.use_K.zero_()
        self.region_weight.fill_(own.region_weight if epoch >= own.region_from_epoch else 0)

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss and its parts: of pixels, of the auxiliary clusters, of the hard labels and of regions."""
        features = batch.maps(self.embedding.features)
        scores = [self.embedding.head(view).float() for view in features]
        for scores_BKhw in scores:
            self.use_K += all_sum(torch.bincount(scores_BKhw.argmax(1).flatten(), minlength=len(self.use_K)))
        auxiliary = [self.auxiliary_projector(view).float() for view in features]
        regions = [self.region_projector(region_vectors(*view)).float() for view in zip(features, scores, strict=True)]
        own = self.settings.densesiam
        similar_regions = partial(region_similarity, temperature=own.region_temperature)
        parts = {
            "pixels": both_ways(pixel_similarity, self.predictor, scores),
            "auxiliary": both_ways(pixel_similarity, self.auxiliary_predictor, auxiliary),
            "segmentation": (hard_label_loss(scores[0]) + hard_label_loss(scores[1])) / 2,
            "regions": both_ways(similar_regions, self.region_predictor, regions),
        }
        weights: tuple[float | Tensor, ...] = (
            *head_weights((self.settings.n_classes, own.auxiliary_clusters)),
            own.segmentation_weight,
            self.region_weight,
        )
        loss = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        return {"loss": loss} | {name: part.detach() for name, part in parts.items()}

    def final_centers(self, points: Iterable[Tensor]) -> Tensor:
        """Return the axes: the clusters are those of the projector, (K, K)."""
        return torch.eye(self.settings.n_classes)

    def cluster_use(self) -> Tensor:
        """Return the pixels of each cluster of the projector in this epoch, both views together."""
        return self.use_K


def projector(dim: int, n_out: int) -> nn.Sequential:
    """Return two hidden layers and a linear one whose outputs have mean 0 and variance 1, for (B, dim, h, w)."""
    hidden = [
        layer
        for _ in range(2)
        for layer in (nn.Conv2d(dim, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(inplace=True))
    ]
    return nn.Sequential(*hidden, nn.Conv2d(dim, n_out, 1), nn.BatchNorm2d(n_out, affine=False))


def predictor(n_scores: int, dim: int) -> nn.Sequential:
    """Return a hidden layer and a linear one, from (B, n_scores, h, w) to the same."""
    hidden = (nn.Conv2d(n_scores, dim, 1, bias=False), nn.BatchNorm2d(dim), nn.ReLU(inplace=True))
    return nn.Sequential(*hidden, nn.Conv2d(dim, n_scores, 1))


def both_ways(loss: Callable[[Tensor, Tensor], Tensor], predict: nn.Module, views: Sequence[Tensor]) -> Tensor:
    """Return the mean loss of predicting each of two views from the other."""
    first, second = views
    return (loss(predict(first).float(), second) + loss(predict(second).float(), first)) / 2


def pixel_similarity(predicted_BKhw: Tensor, target_BKhw: Tensor) -> Tensor:
    """Return PixSim: the mean cross-entropy with the softmax of the target, whose gradient is stopped."""
    return F.cross_entropy(predicted_BKhw, target_BKhw.detach().softmax(1))


def hard_label_loss(scores_BKhw: Tensor) -> Tensor:
    """Return the mean over pixels of the cross-entropy with the largest score, times its cluster's share of pixels."""
    labels_Bhw = scores_BKhw.argmax(1)
    share_K = torch.bincount(labels_Bhw.flatten(), minlength=scores_BKhw.shape[1]) / labels_Bhw.numel()
    return F.cross_entropy(scores_BKhw, labels_Bhw, weight=share_K, reduction="none").mean()


def region_vectors(features_BDhw: Tensor, scores_BKhw: Tensor) -> Tensor:
    """Return the sum of an image's features under the soft mask of each cluster, (B, D, K, 1)."""
    return torch.einsum("bkhw,bdhw->bdk", scores_BKhw.softmax(1), features_BDhw)[..., None]


def region_similarity(predicted_BDK1: Tensor, target_BDK1: Tensor, temperature: float) -> Tensor:
    """Return InfoNCE by cosine: each region is to be told from the other regions of its image."""
    predicted_BDK, target_BDK = (F.normalize(vectors[..., 0], dim=1) for vectors in (predicted_BDK1, target_BDK1))
    logits_BLK = torch.einsum("bdk,bdl->blk", predicted_BDK, target_BDK) / temperature
    own_BK = torch.arange(logits_BLK.shape[1], device=logits_BLK.device).expand(len(logits_BLK), -1)
    return F.cross_entropy(logits_BLK, own_BK)
