"""Clusters matched one-to-one to classes, to name what was learnt without names.

Shape suffixes: K clusters; C classes.
"""

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from contextseg.errors import DataError

SURPLUS = -1
"""Class of a cluster that no class was left for."""


def match_clusters(matrix_KC: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Match clusters to classes one-to-one so that the most pixels agree (Hungarian method, as PiCIE does).

    min(K, C) pairs are made. With K > C the clusters left over get -1 (`SURPLUS`); with K < C some classes
    stay without a cluster. A tie is broken by SciPy's fixed order, so equal counts give an equal result.

    Args:
        matrix_KC: (K, C) integers >= 0, pixels of cluster k with label c.

    Returns:
        (K,) int64, the class 0..C-1 of each cluster, or -1.

    Raises:
        DataError: the matrix is not a non-empty table of integer counts >= 0.

    >>> match_clusters(np.array([[5, 9], [7, 8], [0, 1]]))
    array([ 1,  0, -1])
    """
    matrix_KC = np.asarray(matrix_KC)
    if matrix_KC.ndim != 2 or matrix_KC.size == 0:
        raise DataError(f"counts must have the shape (clusters, classes), such as (27, 27); got {matrix_KC.shape}")
    if not np.issubdtype(matrix_KC.dtype, np.integer):
        raise DataError(f"counts must be integers, such as int64; got {matrix_KC.dtype}")
    if matrix_KC.min() < 0:
        raise DataError(f"counts must be at least 0; got {matrix_KC.min()}")
    clusters, classes = linear_sum_assignment(matrix_KC, maximize=True)
    class_of_K = np.full(len(matrix_KC), SURPLUS, dtype=np.int64)
    class_of_K[clusters] = classes
    return class_of_K


def matched_pixels(matrix_KC: npt.NDArray[np.integer], class_of_K: npt.NDArray[np.int64]) -> int:
    """Return the number of pixels whose cluster is matched to their class.

    Args:
        matrix_KC: (K, C) integers, pixels of cluster k with label c.
        class_of_K: (K,) int64 as from `match_clusters`.
    """
    matched = np.flatnonzero(class_of_K != SURPLUS)
    return int(matrix_KC[matched, class_of_K[matched]].sum())
