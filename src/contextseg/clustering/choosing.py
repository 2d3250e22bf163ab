"""How many classes there are: the number at which groupings of different samples agree.

Two disjoint samples of the points are clustered into many small clusters, which are merged by the average cosine
distance of their centres. So one tree of merges for each sample gives a grouping
into every number of classes, and the two groupings are compared on points of neither sample. This is stability (Lange
et al., "Stability-based validation of clustering solutions", 2004) with the adjusted Rand index (Hubert and Arabie,
1985).

Shape legend: N points, D dimensions, M clusters.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from contextseg.clustering.consensus import merge_clusters
from contextseg.clustering.kmeans import KMeans
from contextseg.errors import TrainingError
from contextseg.randomness import keyed_rng

_CLUSTERS_PER_CLASS = 4  # of the largest number that is tried
_POINTS_PER_CLUSTER = 40
_MAX_ITER = 12
TOLERANCE = 0.05
"""How far below the most stable number's agreement the chosen one's may lie."""
RULE = (
    "The largest number of classes at which groupings of two samples agree as well as at the most stable number, "
    f"to {TOLERANCE:g} of the adjusted Rand index."
)


@dataclass(frozen=True)
class Choice:
    """The chosen number and what it was chosen by.

    Attributes:
        chosen: number of classes.
        n_classes: the numbers that were tried, from 2.
        stability: mean agreement at each, 1 for equal groupings, 0 for chance.
    """

    chosen: int
    n_classes: list[int]
    stability: list[float]


def choose_n_classes(points_ND: Tensor, *, at_most: int, n_pairs: int, seed: int) -> Choice:
    """Choose the number of classes by `RULE`.

    Args:
        points_ND: float32, of unit length.
        at_most: the largest number that is tried.
        n_pairs: pairs of samples whose agreement is averaged.
        seed: the samples and the starts follow from it.

    Raises:
        TrainingError: there are too few points, or points that are not finite.
    """
    n_clusters = _CLUSTERS_PER_CLASS * at_most
    n_sampled = min(len(points_ND) // 3, _POINTS_PER_CLUSTER * n_clusters)
    if n_sampled < n_clusters:
        raise TrainingError(
            f"{len(points_ND)} points are too few to choose among up to {at_most} classes, "
            f"which takes {3 * n_clusters}; add images or name n_classes"
        )
    numbers = list(range(2, at_most + 1))
    agreements = np.zeros((n_pairs, len(numbers)))
    for pair in range(n_pairs):
        drawn = keyed_rng(seed, "choosing", pair).choice(len(points_ND), 3 * n_sampled, replace=False)
        first, second, judged = (points_ND[torch.from_numpy(part)] for part in np.split(drawn, 3))
        found = [
            KMeans(n_clusters, seed=seed + pair, max_points=n_sampled, n_restarts=1, max_iter=_MAX_ITER).fit([sample])
            for sample in (first, second)
        ]
        clusters = [kmeans.predict(judged).cpu() for kmeans in found]
        for place, number in enumerate(numbers):
            one, other = (
                merge_clusters(kmeans.centers_, number)[cluster_N].numpy()
                for kmeans, cluster_N in zip(found, clusters, strict=True)
            )
            agreements[pair, place] = adjusted_rand(one, other)
    stability = agreements.mean(0)
    chosen = max(number for number, mean in zip(numbers, stability, strict=True) if mean >= stability.max() - TOLERANCE)
    return Choice(chosen, numbers, stability.tolist())


def adjusted_rand(first_N: NDArray[np.int64], second_N: NDArray[np.int64]) -> float:
    """Return how far two groupings agree on which points belong together: 1 wholly, 0 as chance would.

    Args:
        first_N: group of each point, from 0.
        second_N: the same points.
    """
    counts = np.zeros((first_N.max() + 1, second_N.max() + 1), np.int64)
    np.add.at(counts, (first_N, second_N), 1)
    together, of_first, of_second = (
        float((n * (n - 1) / 2).sum()) for n in (counts, counts.sum(axis=1), counts.sum(axis=0))
    )
    by_chance = of_first * of_second / (len(first_N) * (len(first_N) - 1) / 2)
    largest = (of_first + of_second) / 2
    return 1.0 if largest == by_chance else (together - by_chance) / (largest - by_chance)
