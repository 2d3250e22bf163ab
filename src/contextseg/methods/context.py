"""`context`: context-aware clustering of pixels, with Pyramid Semantic Guidance and the Context-Aware Embedding.

After "Enhancing Unsupervised Semantic Segmentation Through Context-Aware Clustering" (IEEE TMM 2024), **reconstructed
from its abstract**; ``docs/method.md`` keeps what is published apart from what is ours.

Before the first epoch the places of all images are grouped by their holistic vectors into as many groups as there are
classes (``guidance/`` and ``clustering/consensus.py``); each group is a cluster whose centre is the mean embedding of
its cells. A step: the two views of PiCIE; a pixel joins the cluster whose score is best when that of its holistic
label has a bonus, as large as the label is certain, and clusters are held near the shares that they start with;
cross-entropy within and across the views. The centres are moved with every batch (online clustering): after the start
there is no pass over the images that does not train. Predictions are made with the centres that were learnt, which in
each image lean towards what their clusters are there (``clustering/own_centers.py``).

Shape legend: B images, C channels, D dimensions, g places per side, h w cells, N = B h w, K clusters.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from contextseg.clustering.consensus import Consensus
from contextseg.clustering.kmeans import KMeans, sum_by_label
from contextseg.clustering.own_centers import own_centers
from contextseg.clustering.sampling import points_per_image, sample_cells, sample_points
from contextseg.clustering.vote import Vote
from contextseg.collectives import all_sum, gather_stream
from contextseg.guidance.holistic import at_cells, at_places, holistic_vectors
from contextseg.methods.method import Method, TrainingImages
from contextseg.models.backbone import Backbone
from contextseg.models.context import N_LOOKS, ContextEmbedding, deep_features, differences
from contextseg.randomness import keyed_rng
from contextseg.settings import Settings
from contextseg.views.siamese import SiameseBatch

_CLUSTERS_PER_CLASS = 4  # by default, where the teacher is a start that knows something
_WHITENING = 0.7  # of what such a start says of the images
_SHARE_RATE = 0.1  # of a batch in the clusters' shares
_EVENING = {"start": 0.8, "student": 0.9}  # by teacher: power of the places' shares that clusters start with
_LOOKS_IN_TURN = 0.5  # length of how a place looks, beside what it is with length 1, for every second partition
_LOOKS_OF_PLACES = 0.3  # the same where all partitions see one view: in choosing the number of classes
_START_IMAGES = 256  # images that the start is clustered from
_DRAWN_FROM = 512  # images that draws of so many are taken from, where there are several
_TOLD_BY = 4000  # places of each draw that it is told by which draws mean the same
_START_POINTS = 40_000  # vectors that the start is clustered from


class Context(Method):
    """Embedding, centres and the holistic labels that guide the pixels."""

    trained: ClassVar[bool] = True
    centers_KD: Tensor
    use_K: Tensor
    share_K: Tensor
    start_share_K: Tensor
    holistic_ngg: Tensor
    certainty_ngg: Tensor
    embedding: ContextEmbedding

    def __init__(self, settings: Settings, *, load_start: bool = True) -> None:
        own = settings.context.embedding
        backbone = Backbone(settings.backbone, load_start=load_start, to_the_end=bool(own.to_the_end))
        super().__init__(ContextEmbedding(backbone, own), settings)
        self.lasting_clusters = not self._teacher_is_student()
        self.own_centers = own.own_centers
        self.n_draws, self.n_partitions = settings.context.n_draws or 1, settings.context.n_partitions or 1
        self.register_buffer("centers_KD", torch.zeros(settings.n_classes, self.embedding.n_channels))
        self.register_buffer("use_K", torch.zeros(settings.n_classes, dtype=torch.int64))
        for name in ("share_K", "start_share_K"):
            self.register_buffer(name, torch.full((settings.n_classes,), 1 / settings.n_classes))

    def allocate(self, n_images: int) -> None:
        """Make room for the holistic labels, (n, g, g) uint8 or int32, and how certain they are, float16 in 0-1."""
        shape = n_images, *[self.settings.context.guidance.grid] * 2
        integer = torch.uint8 if self.settings.n_classes <= 256 else torch.int32
        for name, dtype in (("holistic_ngg", integer), ("certainty_ngg", torch.float16)):
            self.register_buffer(name, torch.zeros(shape, dtype=dtype, device=self.centers_KD.device))

    def begin_epoch(self, epoch: int, images: TrainingImages) -> None:
        """Before the first epoch: start the projection, the holistic labels and the centres.

        Where the teacher is the student, labels and centres are made anew for each epoch.
        """
        self.use_K.zero_()
        was_training = self.training
        self.eval()
        guidance = self.settings.context.guidance
        if epoch == 0:
            self._start_projection(images)
        if epoch == 0 or self._teacher_is_student():
            if guidance.strength:
                self._group_places(epoch, images)
            if epoch == 0 and not self.settings.context.embedding.projection:
                self.embedding.decoder.reset()
            if guidance.strength and not guidance.shuffled:
                self._start_from_places(images)
            else:
                self._start_from_kmeans(epoch, images)
        self.train(was_training)

    def places(self, images: TrainingImages) -> Tensor:
        """Return the holistic vectors of a sample of places as the run begins, (N, D) of unit length."""
        self._start_projection(images)
        vectors_NE = self._sampled(0, self._holistic(images.whole(_START_IMAGES)), images.n_images)
        return self._views(vectors_NE, _LOOKS_OF_PLACES)[-1]

    def forward(self, batch: SiameseBatch) -> dict[str, Tensor]:
        """Return the loss and its parts: within the views and across them."""
        embedded = batch.embed(self.embedding)
        points = [view_BDhw.movedim(1, -1).flatten(0, -2) for view_BDhw in embedded]
        with torch.autocast(points[0].device.type, enabled=False):  # half precision does not tell near centres apart
            centers_KD = self.centers_KD.clone()  # moved below, before the backward pass
            logits = [own_ND @ centers_KD.T / self.settings.context.temperature for own_ND in points]
            labels = self._assign([own.detach() for own in logits], batch)
            within, cross = (_cross_entropy(logits, targets) for targets in (labels, labels[::-1]))
            counts_K = all_sum(torch.bincount(torch.cat(labels), minlength=len(centers_KD)))
            self.use_K += counts_K
            self.share_K.lerp_(_shares(counts_K), _SHARE_RATE)
            self._move_centers(torch.cat(points).detach(), torch.cat(labels), counts_K)
        loss = (within + cross) / 2
        return {"loss": loss, "within": within.detach(), "cross": cross.detach()}

    def final_centers(self, _points: Iterable[Tensor]) -> Tensor:
        """Return the learnt centres, (K, D), of an embedding in which looks have their say."""
        return self.embedding.finish(self.centers_KD)

    def centers_within(self, points_BND: Tensor, centers_KD: Tensor) -> Tensor:
        """Return the centres of each image's own, (B, K, D), where they are a part of the embedding."""
        return (own_centers if self.own_centers else super().centers_within)(points_BND, centers_KD)

    def cluster_use(self) -> Tensor:
        """Return the pixels of each cluster in this epoch, both views together."""
        return self.use_K

    @torch.no_grad()
    def _assign(self, logits: list[Tensor], batch: SiameseBatch) -> list[Tensor]:
        """Return the cluster of each point, (N,) int64 for each view.

        The best when its holistic label has a say, and clusters that hold less than at the start are preferred: else
        the largest would grow from batch to batch, since what is near a centre is drawn nearer.
        """
        strength = self.settings.context.guidance.strength
        if strength:
            coordinates_B2hw = batch.first_coordinates()
            labels_N, certainty_N = (
                at_cells(places_ngg, batch.indices, coordinates_B2hw).flatten()
                for places_ngg in (self.holistic_ngg, self.certainty_ngg)
            )
            say_NK = strength * certainty_N.float()[:, None] * F.one_hot(labels_N.long(), len(self.centers_KD))
            logits = [own_NK + say_NK for own_NK in logits]
        wanting_K = self.settings.context.balance * (self.start_share_K / self.share_K).log()
        return [(own_NK + wanting_K).argmax(1) for own_NK in logits]

    @torch.no_grad()
    def _move_centers(self, points_ND: Tensor, labels_N: Tensor, counts_K: Tensor) -> None:
        """Move each centre towards the mean of its points, the more of them the further; unit length is kept."""
        n_clusters = len(self.centers_KD)
        means_KD = all_sum(sum_by_label(points_ND, labels_N, n_clusters)) / counts_K.clamp(min=1)[:, None]
        even = counts_K.sum() / n_clusters
        rate_K = (1 - self.settings.context.center_momentum) * counts_K / (counts_K + even / 4)
        self.centers_KD.copy_(F.normalize(torch.lerp(self.centers_KD, means_KD, rate_K[:, None]), dim=1))

    def _teacher_is_student(self) -> bool:
        return self.settings.context.guidance.teacher == "student"

    def _start_projection(self, images: TrainingImages) -> None:
        """Let the decoder begin as the leading axes of what the backbone says of the images."""
        backbone = self.embedding.backbone
        deep, looks = _Moments(sum(backbone.channels[-backbone.n_deep :])), _Moments(N_LOOKS)
        for _, pixels_B3HW, _ in images.whole(_START_IMAGES):
            deep.observe(deep_features(backbone, pixels_B3HW))
            looks.observe(differences(pixels_B3HW))
        if self.embedding.looks is not None:
            self.embedding.looks.start_from(looks.about_zero()[1])
        if self._teacher_is_student():  # small axes of random weights are noise, and what places share steadies them
            self.embedding.start_from(*deep.about_zero(), whitening=0)
        else:
            self.embedding.start_from(*deep.about_mean(), whitening=_WHITENING)

    def _group_places(self, epoch: int, images: TrainingImages) -> None:
        """Give each place its holistic label, and how certain it is."""
        n_some = min(_START_IMAGES if self.n_draws == 1 else _DRAWN_FROM, images.n_images)
        some = _in_one_block(self._holistic(images.whole(n_some)), n_some)
        classes = self._classes(epoch, some, images.n_images, _START_IMAGES / n_some)
        kept = self.holistic_ngg, self.certainty_ngg
        for places_ngg in kept:
            places_ngg.zero_()
        known = (some.pop() for _ in range(len(some)))  # with the last of them the block goes
        for vectors_BEgg, indices in chain(known, self._holistic(images.whole(after=n_some))):
            views = self._views(vectors_BEgg.float().movedim(1, -1).flatten(0, -2), _LOOKS_IN_TURN)
            certainty_N, labels_N = classes.shares(*views).max(1)
            for places_ngg, found_N in zip(kept, (labels_N, certainty_N), strict=True):
                places_ngg[indices] = found_N.view(-1, *vectors_BEgg.shape[-2:]).to(places_ngg.dtype)
        for places_ngg in kept:
            places_ngg.copy_(all_sum(places_ngg))  # each process has grouped its images, 0 stands elsewhere
        if self.settings.context.guidance.shuffled:
            order = keyed_rng(self.settings.seed, "shuffled labels", epoch).permutation(self.holistic_ngg.numel())
            for places_ngg in kept:
                places_ngg.copy_(places_ngg.flatten()[torch.from_numpy(order)].view_as(places_ngg))

    def _holistic(self, images: Iterable[tuple[list[int], Tensor, Tensor]]) -> Iterator[tuple[Tensor, list[int]]]:
        """Yield the holistic vectors of batches of whole images, (B, E, g, g), and which images they are of.

        How places look stands behind what they are, each of unit length (see `_views`): how they differ from the rest
        of their image. By what the light makes of all of it, images would be told apart rather than what they show.
        """
        guidance, looks = self.settings.context.guidance, self.embedding.looks
        for indices, pixels_B3HW, _ in images:
            vectors_BEgg = holistic_vectors(self.embedding.semantics, pixels_B3HW, guidance.scales, guidance.grid)
            if looks is not None:
                seen_BLgg = at_places(looks.within_image(pixels_B3HW), guidance.grid)
                vectors_BEgg = torch.cat([vectors_BEgg, seen_BLgg], dim=1)
            yield vectors_BEgg, indices

    def _views(self, vectors_NE: Tensor, looks_length: float) -> list[Tensor]:
        """Return what places are, and, where there are looks, that with how they look, (N, D) of unit length each.

        Which classes are found hangs on how much looks count, on each set of images in another way, so partitions
        take turns with and without.
        """
        if self.embedding.looks is None:
            return [vectors_NE]
        n_looks = self.embedding.n_channels - self.settings.context.embedding.dim
        semantics_ND, looks_NL = vectors_NE.split([vectors_NE.shape[1] - n_looks, n_looks], dim=1)
        both_NE = F.normalize(torch.cat([semantics_ND, looks_length * looks_NL], dim=1), dim=1)
        return [semantics_ND.contiguous(), both_NE]

    def _start_from_places(self, images: TrainingImages) -> None:
        """Let each cluster begin with the cells of one holistic label."""
        sums_KD, counts_K = torch.zeros_like(self.centers_KD), torch.zeros_like(self.use_K)
        for indices, pixels_B3HW, coordinates in images.whole(_START_IMAGES):
            points_ND = self.embedding(pixels_B3HW, coordinates).movedim(1, -1).flatten(0, -2)
            labels_N = at_cells(self.holistic_ngg, indices, coordinates).flatten().long()
            sums_KD += sum_by_label(points_ND, labels_N, len(sums_KD))
            counts_K += torch.bincount(labels_N, minlength=len(counts_K))
        # by their places alone, the largest would leave the others little: k-means makes clusters of like size itself
        evening = _EVENING[self.settings.context.guidance.teacher]
        self._start_clusters(all_sum(sums_KD), _shares(all_sum(counts_K)) ** evening)

    def _start_from_kmeans(self, epoch: int, images: TrainingImages) -> None:
        """Let each cluster begin with one of a k-means of the cells, by what they are, however they look."""
        whole, n_clusters = images.whole(_START_IMAGES), len(self.centers_KD)
        cells = ((self.embedding(pixels_B3HW, where), indices) for indices, pixels_B3HW, where in whole)
        points_ND = self._sampled(epoch, cells, images.n_images)
        kmeans = KMeans(n_clusters, seed=self.settings.seed, **self.settings.clustering.model_dump())
        semantics_ND = F.normalize(points_ND[:, : self.settings.context.embedding.dim], dim=1)
        labels_N = kmeans.fit([semantics_ND]).predict(semantics_ND)
        counts_K = torch.bincount(labels_N, minlength=n_clusters)
        self._start_clusters(sum_by_label(points_ND, labels_N, n_clusters), _shares(counts_K))

    def _start_clusters(self, sums_KD: Tensor, share_K: Tensor) -> None:
        """Let each cluster begin with the direction of the sum of its points, and a share."""
        self.centers_KD.copy_(F.normalize(sums_KD, dim=1))
        self.start_share_K.copy_(F.normalize(share_K, p=1, dim=0))
        self.share_K.copy_(self.start_share_K)

    def _classes(self, epoch: int, maps: list[tuple[Tensor, list[int]]], n_images: int, share: float) -> Vote:
        """Return what draws of about such a share of the images in the maps agree that places are."""
        draws, told = [], []
        for draw in range(self.n_draws):
            taken_n = keyed_rng(self.settings.seed, "drawn images", epoch, draw).random(n_images) < share
            stream = f"start {draw}" if self.n_draws > 1 else "start"
            views = self._views(self._sampled(epoch, _of_images(maps, taken_n), n_images, stream), _LOOKS_IN_TURN)
            draws.append(self._consensus(draw).fit(*views))
            told.append([sample_points(points_ND, _TOLD_BY, draws[-1].seed) for points_ND in views])
        return Vote(draws, *(torch.cat(of_view) for of_view in zip(*told, strict=True)))

    def _consensus(self, draw: int) -> Consensus:
        settings = self.settings
        per_class = settings.context.clusters_per_class or (1 if self._teacher_is_student() else _CLUSTERS_PER_CLASS)
        seed = settings.seed * self.n_draws + draw
        return Consensus(settings.n_classes, clusters_per_class=per_class, n_partitions=self.n_partitions, seed=seed)

    def _sampled(
        self, epoch: int, maps: Iterable[tuple[Tensor, list[int]]], n_images: int, stream: str = "start"
    ) -> Tensor:
        """Return a sample of the vectors of some images, (N, D), the same in all processes."""
        key = (self.settings.seed, stream, epoch)
        per_image = points_per_image(_START_POINTS, min(_START_IMAGES, n_images))
        samples = (sample_cells(map_BEhw, indices, key, per_image) for map_BEhw, indices in maps)
        return torch.cat(list(gather_stream(samples)))


class _Moments:
    """Mean and products of vectors that come in maps, in float64; of all processes together.

    Args:
        n_channels: C.
    """

    def __init__(self, n_channels: int) -> None:
        # a 1 stands before the vectors, for their number and their sum
        self.sums = torch.zeros(1 + n_channels, 1 + n_channels, dtype=torch.float64)

    def observe(self, map_BChw: Tensor) -> None:
        with_one_NC = F.pad(map_BChw.movedim(1, -1).flatten(0, -2).double(), (1, 0), value=1)
        self.sums += (with_one_NC.T @ with_one_NC).cpu()

    def about_zero(self) -> tuple[Tensor, Tensor]:
        """Return zeros, (C,), and the mean products, (C, C)."""
        sums = all_sum(self.sums)
        return torch.zeros_like(sums[0, 1:]), sums[1:, 1:] / sums[0, 0]

    def about_mean(self) -> tuple[Tensor, Tensor]:
        """Return the mean, (C,), and the mean products about it, (C, C)."""
        sums = all_sum(self.sums)
        mean_C = sums[0, 1:] / sums[0, 0]
        return mean_C, sums[1:, 1:] / sums[0, 0] - mean_C.outer(mean_C)


def _in_one_block(maps: Iterable[tuple[Tensor, list[int]]], n_images: int) -> list[tuple[Tensor, list[int]]]:
    """Return the maps of so many images at most, and which images they are of, in half precision.

    They are parts of one block: each by itself would lie between what comes and goes, and hold the heap apart. Half of
    the precision, since it is gigabytes where the backbone is large.
    """
    kept: list[tuple[Tensor, list[int]]] = []
    room = torch.empty(0)
    for map_BEgg, indices in maps:
        if not kept:
            room = map_BEgg.new_empty((n_images, *map_BEgg.shape[1:]), dtype=torch.float16)
        kept.append((room[: len(indices)].copy_(map_BEgg), indices))
        room = room[len(indices) :]
    return kept


def _of_images(
    maps: Iterable[tuple[Tensor, list[int]]], taken_n: NDArray[np.bool_]
) -> Iterator[tuple[Tensor, list[int]]]:
    """Yield what is of images that are taken; of a batch without one, a map of none."""
    for map_BEgg, indices in maps:
        yield map_BEgg[torch.from_numpy(taken_n[indices])], [index for index in indices if taken_n[index]]


def _shares(counts_K: Tensor) -> Tensor:
    """Return the share of each cluster; each has a point more than it has, so that none has no share."""
    return (counts_K + 1) / (counts_K.sum() + len(counts_K))


def _cross_entropy(logits: list[Tensor], labels: list[Tensor]) -> Tensor:
    """Return the mean over the views of the cross-entropy with a label for each point."""
    return torch.stack([F.cross_entropy(own, target) for own, target in zip(logits, labels, strict=True)]).mean()
