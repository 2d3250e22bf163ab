"""`mdc`: Modified DeepCluster (Cho et al., CVPR 2021): DeepCluster (Caron et al., ECCV 2018) on pixels.

The baseline of the PiCIE paper, which PiCIE is to be compared with: the same network, one view, and a classifier that
is trained.

**Reproduced**: one view of each image (photometric draw, then crop and flip of the image), k-means of its embeddings
at the start of an epoch with batch-norm in training mode, labels by the nearest centre, a linear classifier on unit
embeddings that is drawn anew for each epoch (weights from a normal distribution of 0.01, bias 0) with an Adam that
starts anew with it, cross-entropy, Adam 1e-4; the final clusters are those of a fresh k-means.

**Not reproduced**: as for `picie`, labels are taken in the training pass, and the k-means sees cells drawn evenly from
all images, of more than 512 from those that the epoch begins with. The released code weighs each cluster by its share
of the pixels, which favours large clusters; here all weigh the same.

Shape legend: B images, D dimensions, h w cells, N = B h w, K clusters.
"""

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.clustering.kmeans import KMeans
from contextseg.clustering.sampling import sample_cells
from contextseg.collectives import all_sum, gather_rows
from contextseg.methods.method import Method, TrainingImages, clustered_batches
from contextseg.models.backbone import Backbone
from contextseg.models.embedding import PixelEmbedding
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch


class Mdc(Method):
    """MDC: the embedding and, within an epoch, a classifier of its clusters are learnt."""

    trained: ClassVar[bool] = True
    centers_KD: Tensor
    use_K: Tensor

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        backbone = Backbone(settings.backbone, load_start=load_start)
        super().__init__(PixelEmbedding(backbone, settings.mdc.dim), settings)
        self.classifier = nn.Linear(settings.mdc.dim, settings.n_classes)
        self.register_buffer("centers_KD", torch.zeros(settings.n_classes, settings.mdc.dim))
        self.register_buffer("use_K", torch.zeros(settings.n_classes, dtype=torch.int64))
        self._optimizer: torch.optim.Optimizer | None = None

    def optimizer(self) -> torch.optim.Optimizer:
        """Return the optimiser, whose moments of the classifier `begin_epoch` drops."""
        self._optimizer = super().optimizer()
        return self._optimizer

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Cluster the embeddings, sampled evenly over the images that the epoch begins with; draw a new classifier."""
        self.use_K.zero_()
        settings = self.settings
        batches, per_image = clustered_batches(images, epoch, settings)
        kmeans = KMeans(settings.n_classes, seed=settings.seed + epoch, **settings.clustering.model_dump())
        self.centers_KD.copy_(
            kmeans.fit(
                gather_rows(sample_cells(self._embed(batch), batch.indices, (settings.seed, "cells", epoch), per_image))
                for batch in batches
            ).centers_
        )
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)
        if self._optimizer is not None:
            for parameter in self.classifier.parameters():
                self._optimizer.state.pop(parameter, None)

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss: the cross-entropy with the nearest centre."""
        points_ND = self._embed(batch).movedim(1, -1).flatten(0, -2)
        with torch.autocast(points_ND.device.type, enabled=False):  # half precision does not tell near centres apart
            labels_N = (points_ND @ self.centers_KD.T).argmax(1)
            self.use_K += all_sum(torch.bincount(labels_N, minlength=len(self.use_K)))
            return {"loss": F.cross_entropy(self.classifier(points_ND), labels_N)}

    def cluster_use(self) -> Tensor:
        """Return the pixels of each cluster in this epoch."""
        return self.use_K

    def _embed(self, batch: SiameseBatch) -> Tensor:
        embedded_BDhw: Tensor = self.embedding(batch.first_B3hw, batch.first_coordinates())
        return embedded_BDhw
