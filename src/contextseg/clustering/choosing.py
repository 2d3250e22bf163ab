"""How many classes there are: the number at which most classes are found again in other images.

Two disjoint samples of the points are grouped into the same number of classes, and both groupings are asked about
points of neither. A class that both have found holds the same points in both: the intersection over union is above
one half (Hennig, "Cluster-wise assessment of cluster stability", 2007). This is stability (Lange et al.,
"Stability-based validation of clustering solutions", 2004), class by class; to weigh the classes found again
against those that are lost is ours.

Shape legend: N points, D dimensions, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from contextseg.clustering.consensus import Consensus
from contextseg.clustering.vote import iou_of_classes
from contextseg.errors import TrainingError
from contextseg.randomness import keyed_rng

_STEP = 1.15  # from a number that is tried to the next, at least 1
_CLUSTERS_PER_CLASS = 4
_N_PARTITIONS = 8
_FOUND_AGAIN = 0.5
RULE = (
    "The number of classes with the largest excess: over the classes, the sum of how far the intersection over union "
    f"with the matching class of another sample's grouping lies above {_FOUND_AGAIN:g}."
)


@dataclass(frozen=True)
class Choice:
    """The chosen number and what it was chosen by.

    Attributes:
        chosen: number of classes.
        n_classes: the numbers that were tried, from 2.
        stability: at each, the mean over the classes of the intersection over union, 0-1.
    """

    chosen: int
    n_classes: list[int]
    stability: list[float]


def choose_n_classes(
    points_ND: Tensor, *, at_most: int, seed: int, on_progress: Callable[[int, int], None] | None = None
) -> Choice:
    """Choose the number of classes by `RULE`.

    Args:
        points_ND: float32, of unit length.
        at_most: the largest number that is tried.
        seed: the samples and the starts follow from it.
        on_progress: told after each number how many have been tried, of how many.

    Raises:
        TrainingError: there are too few points, or points that are not finite.
    """
    n_sampled = len(points_ND) // 3
    if n_sampled < _CLUSTERS_PER_CLASS * at_most:
        raise TrainingError(
            f"{len(points_ND)} points are too few to choose among up to {at_most} classes, "
            f"which takes {3 * _CLUSTERS_PER_CLASS * at_most}; add images or name n_classes"
        )
    order = torch.from_numpy(keyed_rng(seed, "choosing").permutation(len(points_ND)))
    first, second, judged = points_ND[order[: 3 * n_sampled]].split(n_sampled)
    numbers, stability = tried(at_most), []
    for number in numbers:
        one, other = (
            Consensus(number, clusters_per_class=_CLUSTERS_PER_CLASS, n_partitions=_N_PARTITIONS, seed=seed)
            .fit(sample)
            .predict(judged)
            .numpy(force=True)
            for sample in (first, second)
        )
        stability.append(agreement(one, other, number))
        if on_progress:
            on_progress(len(stability), len(numbers))
    excess = [number * (mean - _FOUND_AGAIN) for number, mean in zip(numbers, stability, strict=True)]
    return Choice(numbers[int(np.argmax(excess))], numbers, stability)


def tried(at_most: int) -> list[int]:
    """Return the numbers that are tried: from 2 one by one, then in growing steps, and the largest.

    >>> tried(30)
    [2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 21, 24, 28, 30]
    """
    numbers = [2]
    while (number := max(numbers[-1] + 1, round(numbers[-1] * _STEP))) < at_most:
        numbers.append(number)
    return sorted({*numbers, at_most})


def agreement(first_N: NDArray[np.int64], second_N: NDArray[np.int64], n_classes: int) -> float:
    """Return the mean intersection over union of the classes of two groupings, matched one to one; in 0-1.

    Args:
        first_N: class of each point, 0 to K - 1.
        second_N: of the same points.
        n_classes: K.
    """
    iou_KK = iou_of_classes(first_N, second_N, n_classes)
    return float(iou_KK[linear_sum_assignment(iou_KK, maximize=True)].mean())
