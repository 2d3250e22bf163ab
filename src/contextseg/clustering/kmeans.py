"""k-means over a stream of vectors, with memory bounded by a setting.

Shape legend: N points, D dimensions, K clusters.

The score of a point for a cluster is x·μ − |μ|²/2: its largest value marks the nearest centre in Euclidean distance,
and for unit centres (spherical k-means) it is the cosine up to a constant.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from contextseg.clustering.sampling import sample_points
from contextseg.errors import TrainingError
from contextseg.randomness import keyed_rng

_CHUNK = 4096  # points that are scored at one time by each thread of a CPU: their scores stay in its cache
_SCORES = 2**22  # scores, points times clusters, that exist at one time elsewhere
_SAMPLE = 2**14  # points, or 100 for each cluster, that the starts are tried on at most
_TOLERANCE = 1e-4  # Lloyd's iterations end when the inertia falls by less than this fraction


@dataclass
class _Sums:
    """What one pass over the points adds up to."""

    points_KD: Tensor
    counts_K: Tensor
    distances_N: Tensor  # squared, of each point to its centre
    inertia: float


class KMeans:
    """k-means with k-means++ starts, Lloyd iterations and mini-batch updates for what does not fit into memory.

    Args:
        n_clusters: K.
        seed: the draws of the starts follow from it.
        spherical: centres are kept at unit length, as for unit-length points (PiCIE, and ours).
        max_points: points that are held at once. The first `max_points` of a stream are clustered by Lloyd
            iterations; the rest update the centres batch by batch.
        n_restarts: k-means++ starts; the one with the least inertia is kept. Of many points they are tried on a sample,
            and Lloyd's iterations over all of them begin where the best one ends, so that a start costs little.
        max_iter: Lloyd iterations of one start, and over all points, at most.

    Attributes:
        centers_: (K, D) float32.
        counts_: (K,) int64, the points that each centre has been fitted to.
        inertia_: sum of squared distances of the held points to their centres, after the Lloyd iterations.
        n_iter_: Lloyd iterations over all points.

    An **empty cluster** is moved to the point that lies farthest from its own centre; several empty clusters take the
    farthest points in turn. The result is the same for the same points, settings and seed.
    """

    centers_: Tensor
    counts_: Tensor
    inertia_: float
    n_iter_: int

    def __init__(
        self,
        n_clusters: int,
        *,
        seed: int = 0,
        spherical: bool = True,
        max_points: int = 100_000,
        n_restarts: int = 3,
        max_iter: int = 50,
    ) -> None:
        self.n_clusters = n_clusters
        self.seed = seed
        self.spherical = spherical
        self.max_points = max_points
        self.n_restarts = n_restarts
        self.max_iter = max_iter
        self._held: list[Tensor] = []
        self._n_held = 0

    def fit(self, batches: Iterable[Tensor]) -> "KMeans":
        """Learn the centres from a stream: `observe` each batch, then `finish`.

        Args:
            batches: (n, D) float32 each, on one device.

        Raises:
            TrainingError: fewer points than clusters, or points that are not finite.
        """
        self.__dict__.pop("centers_", None)
        self._held, self._n_held = [], 0
        for batch in batches:
            self.observe(batch)
        return self.finish()

    def observe(self, points: Tensor) -> None:
        """Take the next points of a stream: hold them up to `max_points` in all, from then on update the centres."""
        room = self.max_points - self._n_held
        if room:
            self._held.append(points[:room])
            self._n_held += len(self._held[-1])
        if len(points) > room:
            self._cluster_held()
            self.partial_fit(points[room:])

    def finish(self) -> "KMeans":
        """End the stream: cluster what is held.

        Raises:
            TrainingError: as for `fit`.
        """
        if self._held:
            self._cluster_held()
        if not hasattr(self, "centers_"):
            raise TrainingError(f"0 points cannot make {self.n_clusters} clusters; lower n_classes or add images")
        return self

    def partial_fit(self, points: Tensor) -> "KMeans":
        """Move the centres towards the means of a batch, each with the rate n_k / N_k of its points to all so far.

        This is the mini-batch k-means that PiCIE uses. A cluster without a point in the batch stays where it is. The
        first call of an estimator that has not been fitted is `fit`.
        """
        if not hasattr(self, "centers_"):
            self._fit_held(points)
            return self
        _check_finite(points)
        with torch.autocast(points.device.type, enabled=False):
            sums = self._pass(points, self.centers_)
        self.counts_ = self.counts_ + sums.counts_K
        rate = sums.counts_K / self.counts_.clamp(min=1)
        mean = sums.points_KD / sums.counts_K.clamp(min=1)[:, None]
        self.centers_ = self._project(torch.lerp(self.centers_.double(), mean, rate[:, None].double()).float())
        return self

    def predict(self, points: Tensor) -> Tensor:
        """Return the nearest centre of each point, (N,) int64."""
        with torch.autocast(points.device.type, enabled=False):
            return torch.cat([scores(chunk, self.centers_).argmax(1) for chunk in self._chunks(points)])

    def _cluster_held(self) -> None:
        held, self._held, self._n_held = self._held, [], self.max_points
        if held:
            self._fit_held(torch.cat(held))

    def _fit_held(self, points: Tensor) -> None:
        if len(points) < self.n_clusters:
            raise TrainingError(
                f"{len(points)} points cannot make {self.n_clusters} clusters; lower n_classes or add images"
            )
        _check_finite(points)
        with torch.autocast(points.device.type, enabled=False):  # half precision would reach the sums and the distances
            n_sampled = max(_SAMPLE, 100 * self.n_clusters)
            sample = sample_points(points, n_sampled, self.seed) if len(points) > n_sampled else points
            starts = (self._plus_plus(sample, restart) for restart in range(self.n_restarts))
            found = min((self._lloyd(sample, start) for start in starts), key=lambda one: one[0])
            if len(sample) < len(points):
                found = self._lloyd(points, found[1])
        self.inertia_, self.centers_, self.counts_, self.n_iter_ = found

    def _lloyd(self, points: Tensor, centers: Tensor) -> tuple[float, Tensor, Tensor, int]:
        """Return (inertia, centres, counts, iterations) of one start."""
        sums, previous = self._pass(points, centers), float("inf")
        for iteration in range(1, self.max_iter + 1):
            empty = (sums.counts_K == 0).nonzero()[:, 0].tolist()
            if not empty and sums.inertia >= previous * (1 - _TOLERANCE):
                return sums.inertia, centers, sums.counts_K, iteration - 1
            previous = sums.inertia
            means = (sums.points_KD / sums.counts_K.clamp(min=1)[:, None]).float()
            if empty:  # the farthest points become centres, of equally far ones the first
                farthest_N = sums.distances_N.sort(descending=True, stable=True).indices
                means[empty] = points[farthest_N[: len(empty)]]
            centers = self._project(means)
            sums = self._pass(points, centers)
        return sums.inertia, centers, sums.counts_K, self.max_iter

    def _pass(self, points: Tensor, centers: Tensor) -> _Sums:
        """Assign all points and add them up, chunk by chunk; sums in float64, since N may be large."""
        total = torch.zeros(centers.shape, dtype=torch.float64, device=points.device)
        counts = torch.zeros(len(centers), dtype=torch.int64, device=points.device)
        distances = []
        for chunk in self._chunks(points):
            best, labels = scores(chunk, centers).max(1)
            total += sum_by_label(chunk, labels, len(centers))
            counts += torch.bincount(labels, minlength=len(centers))
            distances.append((chunk.square().sum(1) - 2 * best).clamp(min=0))
        distances_N = torch.cat(distances)
        return _Sums(total, counts, distances_N, float(distances_N.sum(dtype=torch.float64)))

    def _chunks(self, points: Tensor) -> tuple[Tensor, ...]:
        on_cpu = points.device.type == "cpu"
        size = _CHUNK * torch.get_num_threads() if on_cpu else max(1, _SCORES // self.n_clusters)
        chunks: tuple[Tensor, ...] = points.split(size)
        return chunks

    def _plus_plus(self, points: Tensor, restart: int) -> Tensor:
        """Draw the first centres: each with probability proportional to the squared distance to those drawn before."""
        rng = keyed_rng(self.seed, "k-means++", restart)
        chosen = [int(rng.integers(len(points)))]
        squares = points.square().sum(1)
        nearest = torch.full((len(points),), torch.inf, device=points.device)
        while len(chosen) < self.n_clusters:
            center = points[chosen[-1]]
            distances = (squares - 2 * (points @ center) + center.square().sum()).clamp(min=0)
            nearest = torch.minimum(nearest, distances)
            mass = nearest.double().cumsum(0)
            place = torch.searchsorted(mass, mass[-1] * rng.random(), right=True)
            chosen.append(min(int(place), len(points) - 1))
        return self._project(points[chosen].float())

    def _project(self, centers: Tensor) -> Tensor:
        return F.normalize(centers, dim=1) if self.spherical else centers


def _check_finite(points: Tensor) -> None:
    if not torch.isfinite(points).all():
        raise TrainingError("the embeddings to be clustered hold values that are not finite")


def sum_by_label(points_ND: Tensor, labels_N: Tensor, n_labels: int) -> Tensor:
    """Return the sum of the points of each label, (K, D); the same bits each time, on a GPU too."""
    if points_ND.device.type == "cpu":
        return torch.zeros(n_labels, points_ND.shape[1], dtype=points_ND.dtype).index_add_(0, labels_N, points_ND)
    return F.one_hot(labels_N, n_labels).to(points_ND.dtype).T @ points_ND  # a scatter would add in any order


def scores(points_ND: Tensor, centers_KD: Tensor) -> Tensor:
    """Return x·μ − |μ|²/2 for every point and centre, (N, K): largest for the nearest centre."""
    return torch.addmm(-centers_KD.square().sum(1) / 2, points_ND, centers_KD.T)
