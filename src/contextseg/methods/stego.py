"""`stego`: Self-supervised Transformer with Energy-based Graph Optimization (Hamilton et al., ICLR 2022).

**Reproduced**: the backbone is frozen, and a head (a linear map plus a two-layer perceptron) gives each cell a code.
Where the features of two points are more alike than a shift, their codes are drawn together, elsewhere apart. The
points are drawn at random in an image itself, in one of its nearest images by pooled features, and in random others of
the batch, with a weight and a shift for each. Features are centred over the points of the other image (the mean of all
is put back, since the shifts refer to it); codes that are unlike already are left alone (zero clamp). A cluster probe
learns K unit centres by cosine on the codes, which get no gradient from it. Adam with 5e-4 for the head and 5e-3 for
the probe. The clusters that are reported are the probe's; no k-means is run.

**Ours**: any backbone; of a ConvNet the maps at strides 16 and 32 are joined. The images are the first view of
`picie`, where STEGO cuts five crops from each. Dropout acts on what the head sees alone. A random start, being frozen,
has nothing to distil.

**Not reproduced**: the linear probe, which needs labels; flip averaging and the dense CRF of its evaluation; the choice
of the checkpoint by labelled images.

Shape legend: B images, C channels, D dimensions of a code, h w cells at stride 4, g r cells of the frozen maps, P Q
points of an image, K clusters, n images of the run, k nearest images.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from contextseg.collectives import all_sum
from contextseg.conventions import STRIDE_PX
from contextseg.methods.method import Method, TrainingImages
from contextseg.models.backbone import Backbone
from contextseg.randomness import keyed_rng
from contextseg.settings import Settings, StegoSettings
from contextseg.views.siamese import SiameseBatch

_ROWS = 1024  # images whose nearest are looked for at one time

Points = tuple[Tensor, Tensor]  # features (B, C, P) and codes (B, D, P) of the same points


class Codes(nn.Module):
    """A frozen backbone, and the head that is trained.

    Args:
        backbone: gives the feature maps; frozen here.
        settings: of the method.
    """

    def __init__(self, backbone: Backbone, settings: StegoSettings) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(False)
        self.levels = [backbone.strides.index(stride) for stride in settings.strides]
        self.channels = sum(backbone.channels[level] for level in self.levels)
        self.dropout = nn.Dropout2d(settings.dropout)
        self.linear = nn.Conv2d(self.channels, settings.dim, 1)
        self.perceptron = nn.Sequential(
            nn.Conv2d(self.channels, self.channels, 1), nn.ReLU(), nn.Conv2d(self.channels, settings.dim, 1)
        )

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the head; the backbone stays in evaluation mode."""
        super().train(mode)
        self.backbone.eval()
        return self

    @torch.no_grad()
    def frozen_maps(self, image_B3HW: Tensor) -> list[Tensor]:
        """Return the chosen maps of the backbone at the finest of their strides, (B, C, g, r) float32 each."""
        maps = self.backbone(image_B3HW)
        size = maps[min(self.levels)].shape[-2:]
        return [_resize(maps[level].float(), size) for level in self.levels]

    def head(self, maps: list[Tensor]) -> Tensor:
        """Return the codes of frozen maps, (B, D, g, r) float32 of any length."""
        joined_BCgr = torch.cat(maps, dim=1)
        codes: Tensor = self.linear(self.dropout(joined_BCgr)) + self.perceptron(self.dropout(joined_BCgr))
        return codes.float()

    def forward(self, image_B3HW: Tensor, _coordinates_B2hw: Tensor) -> Tensor:
        """Return (B, D, h, w) float32 unit vectors for RGB in 0-1."""
        height, width = (side // STRIDE_PX for side in image_B3HW.shape[-2:])
        return F.normalize(_resize(self.head(self.frozen_maps(image_B3HW)), (height, width)), dim=1)


class Stego(Method):
    """STEGO: a head on a frozen backbone, and a cluster probe."""

    trained: ClassVar[bool] = True
    lasting_clusters = True
    embedding: Codes
    nearest_nk: Tensor
    use_K: Tensor

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        super().__init__(Codes(Backbone(settings.backbone, load_start=load_start), settings.stego), settings)
        self.probe_KD = nn.Parameter(torch.randn(settings.n_classes, settings.stego.dim))
        self.register_buffer("use_K", torch.zeros(settings.n_classes, dtype=torch.int64))

    def allocate(self, n_images: int) -> None:
        """Make room for the nearest images of each, (n, k) int32."""
        count = min(self.settings.stego.neighbours, n_images - 1)
        empty = torch.zeros(n_images, count, dtype=torch.int32, device=self.use_K.device)
        self.register_buffer("nearest_nk", empty)

    def optimizer(self) -> torch.optim.Optimizer:
        """Return Adam, with a learning rate of its own for the probe."""
        head = [parameter for parameter in self.embedding.parameters() if parameter.requires_grad]
        probe: dict[str, Any] = {"params": [self.probe_KD], "lr": self.settings.stego.probe_learning_rate}
        return torch.optim.Adam([{"params": head}, probe], lr=self.settings.training.learning_rate, fused=True)

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Before the first epoch: find the nearest images of each by their pooled frozen features."""
        self.use_K.zero_()
        if epoch == 0:
            pooled_nC = torch.zeros(images.n_images, self.embedding.channels, device=self.use_K.device)
            for indices, pixels_B3HW, _ in images.whole():
                pooled_nC[indices] = unit_features(self.embedding.frozen_maps(pixels_B3HW)).mean((2, 3))
            self.nearest_nk.copy_(nearest(all_sum(pooled_nC), self.nearest_nk.shape[1]))

    def partners(self, indices: list[int], epoch: int) -> list[int]:
        """Return one of the nearest images of each."""
        count, seed = self.nearest_nk.shape[1], self.settings.seed
        drawn = [int(keyed_rng(seed, "nearest", epoch, index).integers(count)) for index in indices]
        partners: list[int] = self.nearest_nk[indices, drawn].tolist()
        return partners

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss and its parts: with an image itself, with a nearest, with random others; of the probe."""
        assert batch.partners is not None
        own = self.settings.stego
        features, codes = self._look(batch.first_B3hw)
        near_features, near_codes = self._look(batch.partners.first_B3hw)
        with torch.autocast(codes.device.type, enabled=False):  # the cosines of half-precision vectors are coarse
            here, there = (random_places(len(codes), own.points**2, codes.device) for _ in range(2))
            points = at_places(features, here), at_places(codes, here)
            near = at_places(near_features, there), at_places(near_codes, there)
            orders = [others(len(codes), codes.device) for _ in range(own.negatives)]
            far = [(at_places(features[order], there), at_places(codes[order], there)) for order in orders]
            parts = {
                "itself": self._loss(points, points, own.self_shift),
                "nearest": self._loss(points, near, own.neighbour_shift),
                "random": torch.stack([self._loss(points, other, own.random_shift) for other in far]).mean(),
                "probe": self._probe_loss(codes.detach()),
            }
        weights = (own.self_weight, own.neighbour_weight, own.random_weight, 1.0)
        loss = torch.stack([weight * part for weight, part in zip(weights, parts.values(), strict=True)]).sum()
        return {"loss": loss} | {name: part.detach() for name, part in parts.items()}

    def final_centers(self, points: Iterable[Tensor]) -> Tensor:
        """Return the centres of the cluster probe, (K, D)."""
        return F.normalize(self.probe_KD.detach(), dim=1)

    def cluster_use(self) -> Tensor:
        """Return the cells of each cluster of the probe in this epoch."""
        return self.use_K

    def _look(self, image_B3hw: Tensor) -> Points:
        """Return unit features, (B, C, g, r), and codes, (B, D, g, r)."""
        maps = self.embedding.frozen_maps(image_B3hw)
        return unit_features(maps), self.embedding.head(maps)

    def _loss(self, first: Points, second: Points, shift: float) -> Tensor:
        own = self.settings.stego
        features_BPQ, codes_BPQ = (cosines(*vectors) for vectors in zip(first, second, strict=True))
        return correspondence_loss(features_BPQ, codes_BPQ, shift, pointwise=own.pointwise, zero_clamp=own.zero_clamp)

    def _probe_loss(self, codes_BDgr: Tensor) -> Tensor:
        """Return minus the mean cosine of the cells with the nearest centre."""
        centers_KD = F.normalize(self.probe_KD, dim=1)
        best, labels = torch.einsum("bdgr,kd->bkgr", F.normalize(codes_BDgr, dim=1), centers_KD).max(1)
        self.use_K += all_sum(torch.bincount(labels.flatten(), minlength=len(self.use_K)))
        return -best.mean()


def correspondence_loss(
    features_BPQ: Tensor, codes_BPQ: Tensor, shift: float, *, pointwise: bool, zero_clamp: bool
) -> Tensor:
    """Return STEGO's loss: minus the mean product of what the features' cosines exceed the shift by and the codes'.

    Args:
        features_BPQ: cosines of the features of P points with those of Q others.
        codes_BPQ: cosines of their codes.
        shift: cosine of the features at which codes are neither drawn together nor apart.
        pointwise: bring the mean of each point's cosines with the others to the mean of all.
        zero_clamp: take negative cosines of codes for 0.
    """
    if pointwise:
        features_BPQ = features_BPQ - features_BPQ.mean(2, keepdim=True) + features_BPQ.mean()
    if zero_clamp:
        codes_BPQ = codes_BPQ.clamp(min=0)
    return -((features_BPQ - shift) * codes_BPQ).mean()


def cosines(first_BCP: Tensor, second_BCQ: Tensor) -> Tensor:
    """Return the cosine of each point of an image with each of the other's, (B, P, Q)."""
    return torch.einsum("bcp,bcq->bpq", F.normalize(first_BCP, dim=1), F.normalize(second_BCQ, dim=1))


def unit_features(maps: list[Tensor]) -> Tensor:
    """Return the maps, each of unit length, joined to unit vectors: (B, C, g, r)."""
    return F.normalize(torch.cat([F.normalize(level, dim=1) for level in maps], dim=1), dim=1)


def random_places(n_images: int, n_points: int, device: torch.device) -> Tensor:
    """Draw points of images, (B, P, 2): x and y in -1 to 1."""
    return 2 * torch.rand(n_images, n_points, 2, device=device) - 1


def at_places(map_BCgr: Tensor, places_BP2: Tensor) -> Tensor:
    """Return what a map holds at some points, between the cells bilinearly: (B, C, P)."""
    return F.grid_sample(map_BCgr, places_BP2[:, :, None], padding_mode="border", align_corners=False)[..., 0]


def others(n_images: int, device: torch.device) -> Tensor:
    """Draw another image for each, (B,) int64: no image itself, each once."""
    order = torch.randperm(n_images, device=device)
    drawn = torch.empty_like(order)
    drawn[order] = order.roll(1)
    return drawn


def nearest(vectors_nC: Tensor, count: int) -> Tensor:
    """Return the `count` other vectors that are nearest to each by cosine, (n, count) int64, nearest first."""
    unit_nC, found = F.normalize(vectors_nC, dim=1), []
    for start in range(0, len(unit_nC), _ROWS):
        cosines_Rn = unit_nC[start : start + _ROWS] @ unit_nC.T
        cosines_Rn.diagonal(start).fill_(-torch.inf)  # itself
        found.append(cosines_Rn.topk(count).indices)
    return torch.cat(found)


def _resize(map_BCgr: Tensor, size: tuple[int, ...]) -> Tensor:
    return F.interpolate(map_BCgr, size=size, mode="bilinear", align_corners=False)
