"""Final classes that do not hang on one k-means: many partitions, merged and put to the vote.

k-means makes clusters of like spread, so that a large varied class is cut up before a small one is found, and each
start ends elsewhere. So the points are clustered several times, more finely than there are classes; each time near
clusters are merged; the partitions are matched, and each point takes the class that most of them give it. This is ours.

Shape legend: N points, D dimensions, M clusters, K classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from contextseg.clustering.kmeans import KMeans


def consensus_centers(
    points_ND: Tensor, n_classes: int, *, clusters_per_class: int, n_partitions: int, seed: int, max_iter: int
) -> Tensor:
    """Cluster unit vectors into classes by the vote of several partitions.

    Args:
        points_ND: float32, of unit length.
        n_classes: K.
        clusters_per_class: how many times more clusters than classes each partition begins with.
        n_partitions: how many there are.
        seed: each partition's k-means follows from it.
        max_iter: Lloyd iterations of each k-means, at most.

    Returns:
        (K, D) float32 of unit length: the mean direction of each class.

    Raises:
        TrainingError: there are fewer points than clusters.
    """
    partitions = []
    for index in range(n_partitions):
        kmeans = KMeans(
            n_classes * clusters_per_class,
            seed=seed * n_partitions + index,
            max_points=len(points_ND),
            n_restarts=1,
            max_iter=max_iter,
        ).fit([points_ND])
        partitions.append(merge_clusters(kmeans.centers_, n_classes).to(points_ND.device)[kmeans.predict(points_ND)])
    one_hot_NK = F.one_hot(vote(partitions, n_classes), n_classes).to(points_ND.dtype)
    return F.normalize(one_hot_NK.T @ points_ND, dim=1)


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


def vote(partitions: Sequence[Tensor], n_classes: int) -> Tensor:
    """Return the class that most partitions give each point, after their classes are matched.

    Each partition is matched one to one to the one that agrees best with all others. Where votes are even, the class
    with the lower number wins; a class that loses all its points keeps those of the partition that was matched to.

    Args:
        partitions: (N,) int64 each, classes 0 to K - 1.
        n_classes: K.

    Returns:
        (N,) int64, in the numbering of the partition that agrees best.
    """
    agreements = [sum(_matched(own, other, n_classes)[1] for other in partitions) for own in partitions]
    reference = partitions[int(np.argmax(agreements))]
    votes_NK = torch.zeros(len(reference), n_classes, dtype=torch.int64, device=reference.device)
    for partition in partitions:
        names_K, _ = _matched(reference, partition, n_classes)
        votes_NK += F.one_hot(names_K.to(partition.device)[partition], n_classes)
    labels = votes_NK.argmax(1)
    lost = (torch.bincount(labels, minlength=n_classes) == 0)[reference]
    return torch.where(lost, reference, labels)


def _matched(reference_N: Tensor, partition_N: Tensor, n_classes: int) -> tuple[Tensor, int]:
    """Return which class of the reference each class of a partition is, (K,), and how many points then agree."""
    pairs = torch.bincount(partition_N * n_classes + reference_N, minlength=n_classes**2).view(n_classes, n_classes)
    counts = pairs.cpu().numpy()
    _, names = linear_sum_assignment(counts, maximize=True)
    return torch.from_numpy(names), int(counts[np.arange(n_classes), names].sum())
