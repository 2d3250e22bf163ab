"""What the training loop and the predictor need of a method."""

from collections.abc import Iterable
from typing import ClassVar

from torch import Tensor, nn

from contextseg.views.siamese import SiameseBatch


class Method(nn.Module):
    """A way to learn pixel embeddings; one that is not trained is complete as it stands here.

    Attributes:
        trained: whether there is anything to train; where not, only the final clusters are computed.
        spherical: whether the embeddings have unit length and are clustered by their cosine.
        embedding: (B, 3, H, W) RGB in 0-1 to (B, D, H / 4, W / 4) float32.
    """

    trained: ClassVar[bool] = False
    spherical: ClassVar[bool] = True

    def __init__(self, embedding: nn.Module) -> None:
        super().__init__()
        self.embedding = embedding

    def begin_epoch(self, epoch: int, batches: Iterable[SiameseBatch], n_images: int) -> None:
        """Prepare an epoch from the views that it will train on; gradients are off."""

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the parts of the loss of one step; ``"loss"`` is the one that is differentiated."""
        raise NotImplementedError(f"{type(self).__name__} is not trained")

    def cluster_use(self) -> Tensor:
        """Return how many pixels each cluster has had in this epoch, (K,) int64."""
        raise NotImplementedError(f"{type(self).__name__} is not trained")
