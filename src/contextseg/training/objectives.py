"""Self-supervised objectives for a backbone, by the losses and heads of the library lightly.

Each compares the two views of an image that `contextseg.views.siamese` draws: a square, and a crop of it. *Instance*:
one vector of each whole view, a ViT's class token or the mean of the deepest map. *Dense*: the places of the deepest
map, each with its like in the other view, found by where they lie in the image and by their features.

Shape legend: B images, V = 2 views, C channels, D dimensions, h w places of the deepest map.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from contextseg.collectives import all_sum
from contextseg.extras import import_extra
from contextseg.methods.method import Method, TrainingImages
from contextseg.models.backbone import Backbone
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch


class Objective(Method):
    """What a backbone learns by itself; it is trained as a method is, but finds no clusters.

    Args:
        settings: of the run; `training` holds the schedule of the pre-training.

    Attributes:
        embedding: the backbone alone.
    """

    trained: ClassVar[bool] = True
    watched: ClassVar[str] = "embedding_spread"
    collapse: ClassVar[str] = (
        "all images look alike to the network. A larger pretraining.batch_size, a lower pretraining.learning_rate or "
        "more images may help."
    )
    embedding: Backbone
    spreads: Tensor

    def __init__(self, settings: Settings) -> None:
        trained = settings.backbone.model_copy(update={"frozen": False, "batch_norm": "batch"})
        own = settings.context.embedding.to_the_end  # as far as the run reaches that goes on from it
        to_the_end = not trained.knows_little() if own is None else own
        super().__init__(Backbone(trained, to_the_end=to_the_end), settings)
        self.register_buffer("spreads", torch.zeros(2, dtype=torch.float64))  # of the epoch: their sum, their number

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Forget the spreads of the last epoch."""
        self.spreads.zero_()

    def health(self) -> float:
        """Return the mean of the epoch's `spread`: 1 where the projections fill all directions, 0 where all are one."""
        return float(self.spreads[0] / self.spreads[1])

    def look(self, batch: SiameseBatch) -> tuple[Tensor, Tensor]:
        """Return one vector of each view, (2 B, C), and its deepest map, (2 B, C, h, w); the first views come first."""
        maps, class_token = self.embedding.with_class_token(torch.cat([batch.first_B3hw, batch.second_B3hw]))
        return maps[-1].mean((2, 3)) if class_token is None else class_token, maps[-1]

    def watch(self, projected_ND: Tensor) -> None:
        """Keep the spread of the projections of a step for `health`."""
        own = torch.stack([spread(projected_ND.detach()), torch.ones((), device=projected_ND.device)])
        self.spreads += all_sum(own)


class SimSiam(Objective):
    """SimSiam (Chen and He, CVPR 2021): each view predicts the other's projection, through which no gradient goes."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        heads, losses = _lightly()
        channels, dim = self.embedding.channels[-1], settings.pretraining.dim
        self.projector = heads.SimSiamProjectionHead(channels, dim, dim)
        self.predictor = heads.SimSiamPredictionHead(dim, math.ceil(dim / 4), dim)
        self.similarity = losses.NegativeCosineSimilarity()

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss, from -1 for views that agree."""
        whole_NC, _ = self.look(batch)
        projected_ND = self.projector(whole_NC)
        predicted = self.predictor(projected_ND).float().chunk(2)
        targets = projected_ND.detach().float().chunk(2)
        self.watch(projected_ND)
        one, other = (self.similarity(*pair) for pair in zip(predicted, targets[::-1], strict=True))
        return {"loss": (one + other) / 2}


class VicregL(Objective):
    """VICRegL (Bardes et al., NeurIPS 2022): views and matched places agree, dimensions vary and are not correlated."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        heads, losses = _lightly()
        channels, dim = self.embedding.channels[-1], settings.pretraining.dim
        self.projector = heads.VICRegProjectionHead(channels, dim, dim)
        self.local_projector = heads.VicRegLLocalProjectionHead(channels, dim, dim)
        self.criterion = losses.VICRegLLoss(gather_distributed=True)

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss, 0 at best."""
        whole_NC, map_NChw = self.look(batch)
        projected_ND = self.projector(whole_NC).float()
        local_NhwD = self.local_projector(map_NChw.movedim(1, -1)).float()
        self.watch(projected_ND)
        places = [
            F.interpolate(cells_B2hw, map_NChw.shape[-2:], mode="bilinear", align_corners=False).movedim(1, -1)
            for cells_B2hw in (batch.first_coordinates(), batch.second_coordinates())
        ]
        with torch.autocast(projected_ND.device.type, enabled=False):  # covariances need the full precision
            features = list(zip(projected_ND.chunk(2), local_NhwD.chunk(2), strict=True))
            loss: Tensor = self.criterion(global_view_features=features, global_view_grids=places)
        return {"loss": loss.squeeze()}


OBJECTIVES: dict[str, Callable[[Settings], Objective]] = {"vicregl": VicregL, "simsiam": SimSiam}


def _lightly() -> tuple[Any, Any]:
    """Return the library's heads and its losses."""
    return import_extra("lightly.models.modules.heads", "pretrain"), import_extra("lightly.loss", "pretrain")


def spread(vectors_ND: Tensor) -> Tensor:
    """Return the standard deviation of unit vectors times the root of D, as SimSiam's authors watch it: 0 to 1."""
    unit_ND = F.normalize(vectors_ND.float(), dim=1)
    return unit_ND.std(dim=0, correction=0).mean() * math.sqrt(unit_ND.shape[1])
