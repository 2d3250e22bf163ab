"""How far groupings of the same points agree, and what most of them say.

Shape legend: N points, V groupings, K classes.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment


def overlap(first_N: NDArray[np.int64], second_N: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return the intersection over union of each class of one grouping with each of another, (K, K) in 0-1.

    Args:
        first_N: class of each point, 0 to K - 1.
        second_N: of the same points.
        n_classes: K.
    """
    common_KK = np.bincount(first_N * n_classes + second_N, minlength=n_classes**2).reshape(n_classes, n_classes)
    either_KK = common_KK.sum(1)[:, None] + common_KK.sum(0) - common_KK
    overlap_KK: NDArray[np.float64] = common_KK / np.maximum(either_KK, 1)
    return overlap_KK


def agreement(first_N: NDArray[np.int64], second_N: NDArray[np.int64], n_classes: int) -> float:
    """Return the mean intersection over union of the classes of two groupings, matched one to one; in 0-1.

    Args:
        first_N: class of each point, 0 to K - 1.
        second_N: of the same points.
        n_classes: K.
    """
    overlap_KK = overlap(first_N, second_N, n_classes)
    return float(overlap_KK[linear_sum_assignment(overlap_KK, maximize=True)].mean())


def majority(groupings_VN: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Return the class that most groupings give each point, (N,).

    Classes are those of the grouping that agrees best with all, and the others' are matched to them one to one. Of
    equally many votes the lower class has it.

    Args:
        groupings_VN: class of each point in each grouping, 0 to K - 1, numbered by each as it likes.
        n_classes: K.
    """
    liked = [sum(agreement(one_N, other_N, n_classes) for other_N in groupings_VN) for one_N in groupings_VN]
    leader_N = groupings_VN[int(np.argmax(liked))]
    votes_NK = np.zeros((len(leader_N), n_classes), np.int64)
    for grouping_N in groupings_VN:
        _, name_K = linear_sum_assignment(overlap(grouping_N, leader_N, n_classes), maximize=True)
        votes_NK[np.arange(len(leader_N)), name_K[grouping_N]] += 1
    classes_N: NDArray[np.int64] = votes_NK.argmax(1)
    return classes_N
