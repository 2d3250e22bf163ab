"""Classes that do not hang on one sample of the images: several draws of a consensus, put to the vote.

Which of two near ties a consensus joins hangs on the images that it is learnt from: cow and sheep may be one class, and
another kind of thing two. So it is learnt several times, each time from images of its own draw. The draw whose classes
lie apart most clearly names them, as a k-means keeps its best start, and the others vote on where they end. The vote
is ours; so is what tells how clear classes are, a silhouette (Rousseeuw, 1987) by cosines with their means.

Shape legend: N points, D dimensions of a view, K classes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from contextseg.clustering.consensus import Consensus
from contextseg.clustering.kmeans import sum_by_label


class Vote:
    """Several draws of a consensus, with classes that are matched to those of the clearest draw.

    Args:
        draws: learnt from points of one kind, to K classes each.
        views: of some points, (N, D) float32 each, to tell by which draw is clearest and which classes are the same.

    The clearest draw is alone where a class would else be the first choice of none of these points.
    """

    def __init__(self, draws: Sequence[Consensus], *views: Tensor) -> None:
        said = [draw.shares(*views) for draw in draws]
        found = [shares_NK.argmax(1) for shares_NK in said]
        n_classes = draws[0].n_classes
        order = sorted(range(len(draws)), key=lambda index: -clearness(views[-1], found[index]))
        same = [matching_classes(found[order[0]], found[index], n_classes) for index in order]
        self._same = [(draws[index], own_K) for index, own_K in zip(order, same, strict=True)]
        voted_NK = torch.stack([said[index][:, own_K] for index, own_K in zip(order, same, strict=True)]).mean(0)
        if len(voted_NK.argmax(1).unique()) < n_classes:
            del self._same[1:]

    def shares(self, *views: Tensor) -> Tensor:
        """Return the share of each class at each point, a mean over the draws: (N, K) float32."""
        return torch.stack([draw.shares(*views)[:, own_K] for draw, own_K in self._same]).mean(0)


def clearness(points_ND: Tensor, classes_N: Tensor) -> float:
    """Return the mean over points of the cosine with their class's mean less that with the nearest other; in -2 to 2.

    Of one class alone it is minus infinity: nothing is told apart.

    Args:
        points_ND: float32, of unit length.
        classes_N: int64.
    """
    present, classes_N = classes_N.unique(return_inverse=True)
    if len(present) < 2:
        return -torch.inf
    means_KD = F.normalize(sum_by_label(points_ND, classes_N, len(present)), dim=1)
    cosines_NK = points_ND @ means_KD.T
    own_N = cosines_NK.gather(1, classes_N[:, None])[:, 0]
    others_NK = cosines_NK.scatter(1, classes_N[:, None], -torch.inf)
    return float((own_N - others_NK.amax(1)).mean())


def matching_classes(named_N: Tensor, other_N: Tensor, n_classes: int) -> Tensor:
    """Return which class of another grouping each class is, (K,) int64: one to one, so that they have most in common.

    Args:
        named_N: class of each point, 0 to K - 1.
        other_N: of the same points.
        n_classes: K.
    """
    iou_KK = iou_of_classes(named_N.numpy(force=True), other_N.numpy(force=True), n_classes)
    return torch.from_numpy(linear_sum_assignment(iou_KK, maximize=True)[1]).to(named_N.device)


def iou_of_classes(first_N: NDArray[np.int64], second_N: NDArray[np.int64], n_classes: int) -> NDArray[np.float64]:
    """Return the intersection over union of each class of one grouping with each of another's, (K, K) in 0-1.

    Args:
        first_N: class of each point, 0 to K - 1.
        second_N: of the same points.
        n_classes: K.
    """
    common_KK = np.zeros((n_classes, n_classes), np.int64)
    np.add.at(common_KK, (first_N, second_N), 1)
    either_KK = common_KK.sum(1)[:, None] + common_KK.sum(0) - common_KK
    return np.asarray(common_KK / np.maximum(either_KK, 1))
