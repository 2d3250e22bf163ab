"""Classes that do not hang on one k-means: many partitions, merged and put to the vote.

k-means makes clusters of like spread, so that a large varied class is cut up before a small one is found, and each
start ends elsewhere. So samples of the points are clustered, more finely than there are classes, and near clusters are
merged; the partitions are matched, and each point takes the class that most of them give it. This is ours.

Shape legend: N points, D dimensions, M clusters, K classes.
"""

from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from contextseg.clustering.kmeans import KMeans
from contextseg.errors import TrainingError
from contextseg.randomness import keyed_rng

_POINTS_PER_CLUSTER = 150  # of the sample that a partition is learnt from
_MAX_ITER = 12  # Lloyd iterations of a partition: its clusters are merged and outvoted, so they need not be final


class Consensus:
    """Clusters unit vectors into classes by the vote of several partitions.

    Args:
        n_classes: K.
        clusters_per_class: how many times more clusters than classes each partition begins with.
        n_partitions: how many there are, each of a sample of its own.
        seed: the samples and the starts follow from it.

    Attributes:
        partitions_: the k-means of each partition with the class of each of its clusters, (M,) int64. Classes have the
            numbers of the partition that agrees best with all others.
    """

    partitions_: list[tuple[KMeans, Tensor]]

    def __init__(self, n_classes: int, *, clusters_per_class: int, n_partitions: int, seed: int = 0) -> None:
        self.n_classes = n_classes
        self.clusters_per_class = clusters_per_class
        self.n_partitions = n_partitions
        self.seed = seed

    def fit(self, points_ND: Tensor) -> Self:
        """Learn the partitions.

        Args:
            points_ND: float32, of unit length.

        Raises:
            TrainingError: there are fewer points than clusters, or points that are not finite.
        """
        n_clusters = self.n_classes * self.clusters_per_class
        if len(points_ND) < n_clusters:
            raise TrainingError(
                f"{len(points_ND)} points cannot make {n_clusters} clusters; add images or lower n_classes"
            )
        n_sampled = min(len(points_ND), _POINTS_PER_CLUSTER * n_clusters)
        found, labels = [], []
        for index in range(self.n_partitions):
            seed = self.seed * self.n_partitions + index
            drawn = keyed_rng(seed, "partition").choice(len(points_ND), n_sampled, replace=False, shuffle=False)
            kmeans = KMeans(n_clusters, seed=seed, max_points=n_sampled, n_restarts=1, max_iter=_MAX_ITER)
            kmeans.fit([points_ND[torch.from_numpy(drawn).to(points_ND.device)]])
            classes_M = merge_clusters(kmeans.centers_, self.n_classes).to(points_ND.device)
            found.append((kmeans, classes_M))
            labels.append(classes_M[kmeans.predict(points_ND)])
        agreements = [sum(match(own, other, self.n_classes)[1] for other in labels) for own in labels]
        best = int(np.argmax(agreements))
        names = [match(labels[best], own, self.n_classes)[0].to(points_ND.device) for own in labels]
        self.partitions_ = [
            (kmeans, names_K[classes_M]) for (kmeans, classes_M), names_K in zip(found, names, strict=True)
        ]
        if len(self.predict(points_ND).unique()) < self.n_classes:  # a class was outvoted at all of its points
            self.partitions_ = [self.partitions_[best]]
        return self

    def predict(self, points_ND: Tensor) -> Tensor:
        """Return the class that most partitions give each point, (N,) int64; the lower number where votes are even."""
        votes_NK = torch.zeros(len(points_ND), self.n_classes, dtype=torch.int32, device=points_ND.device)
        for kmeans, classes_M in self.partitions_:
            votes_NK += F.one_hot(classes_M[kmeans.predict(points_ND)], self.n_classes)
        return votes_NK.argmax(1)


def merge_clusters(centers_MD: Tensor, n_classes: int) -> Tensor:
    """Merge clusters by the average cosine distance of their centres, each counted once whatever its size.

    Args:
        centers_MD: (M, D) float32, M at least `n_classes`.
        n_classes: K, how many remain.

    Returns:
        (M,) int64: the class of each cluster, 0 to K - 1, numbered in the order in which they first occur.

    Raises:
        ValueError: there are fewer clusters than classes.
    """
    if len(centers_MD) < n_classes:
        raise ValueError(f"{len(centers_MD)} clusters cannot be merged into {n_classes} classes")
    if len(centers_MD) == n_classes:
        return torch.arange(n_classes)
    tree = linkage(centers_MD.double().cpu().numpy(), method="average", metric="cosine")
    groups = cut_tree(tree, n_clusters=n_classes)[:, 0]  # numbered as they first occur
    classes: Tensor = torch.from_numpy(groups.astype(np.int64))
    return classes


def match(reference_N: Tensor, partition_N: Tensor, n_classes: int) -> tuple[Tensor, int]:
    """Match the classes of two partitions one to one so that the most points agree.

    Args:
        reference_N: (N,) int64, classes 0 to K - 1.
        partition_N: the same points.
        n_classes: K.

    Returns:
        Which class of the reference each class of the partition is, (K,) int64, and how many points then agree.
    """
    pairs = torch.bincount(partition_N * n_classes + reference_N, minlength=n_classes**2).view(n_classes, n_classes)
    counts = pairs.cpu().numpy()
    _, names = linear_sum_assignment(counts, maximize=True)
    return torch.from_numpy(names), int(counts[np.arange(n_classes), names].sum())
