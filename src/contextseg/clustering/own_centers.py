"""Centres of an image's own: what the classes are across all images, leant towards what they are in this one.

Published (abstract): contextual knowledge "within and across images". **Our reconstruction**: across images a class has
one centre; within an image its light, its season or its kind move all of its pixels alike, and pixels that lie between
two classes are told apart by what these are here.

Shape legend: B images, N points of each, D dimensions, K clusters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

_LEANING = 0.75  # towards the mean of an image's own points
_CENTER_SHARE = 0.02  # of an image's points: the weight of the centre itself in that mean


def own_centers(points_BND: Tensor, centers_KD: Tensor) -> Tensor:
    """Return the centres of each image, (B, K, D) of unit length.

    Each leans towards the mean of the image's points that are nearest to it, the more of them there are the further;
    one without any stays as it is.

    Args:
        points_BND: float32, of unit length, or nearly.
        centers_KD: float32, of unit length.
    """
    scores_BKN = centers_KD @ points_BND.mT
    members_BKN = (scores_BKN - scores_BKN.amax(1, keepdim=True)).sign() + 1  # 1 of the nearest: == takes longer
    kept = _CENTER_SHARE * points_BND.shape[1]
    own_BKD = F.normalize(members_BKN @ points_BND + kept * centers_KD, dim=-1)
    return F.normalize(torch.lerp(centers_KD.expand_as(own_BKD), own_BKD, _LEANING), dim=-1)
