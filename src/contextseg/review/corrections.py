"""Regions that a person gives another class; applied where masks are shown or exported, never trained on.

Shape suffixes: H, W mask height and width in pixels.
"""

from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from contextseg.review.actions import Correct

Clusters = NDArray[np.unsignedinteger[Any]]


def region(clusters_HW: Clusters, point: tuple[int, int], members: Collection[int]) -> NDArray[np.bool_]:
    """Return the pixels that are connected to a point by their sides within some clusters.

    Args:
        clusters_HW: (H, W) cluster ids.
        point: (x, y) in pixels.
        members: the clusters that count as one.

    Returns:
        (H, W); all false where the point is outside of the map or of the clusters.
    """
    x, y = point
    inside = np.isin(clusters_HW, list(members))
    if not (0 <= y < inside.shape[0] and 0 <= x < inside.shape[1] and inside[y, x]):
        return np.zeros_like(inside)
    parts_HW, _ = ndimage.label(inside)
    return np.asarray(parts_HW == parts_HW[y, x])


def corrected(clusters_HW: Clusters, corrections: Iterable[Correct]) -> Clusters:
    """Return a cluster map with the corrections carried out in their order.

    A correction whose point is no longer in its clusters, because the mask was predicted anew, changes nothing.
    """
    for correction in corrections:
        where = region(clusters_HW, correction.point, correction.members)
        clusters_HW = np.where(where, clusters_HW.dtype.type(correction.to), clusters_HW)
    return clusters_HW
