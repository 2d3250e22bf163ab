"""Clusters matched to classes, to name what was learnt without names: one-to-one, or each to its most frequent class.

Shape suffixes: K clusters; C classes.
"""

from collections.abc import Callable

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
    matrix_KC = _checked(matrix_KC)
    clusters, classes = linear_sum_assignment(matrix_KC, maximize=True)
    class_of_K = np.full(len(matrix_KC), SURPLUS, dtype=np.int64)
    class_of_K[clusters] = classes
    return class_of_K


def majority_classes(matrix_KC: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Give each cluster the class that most of its pixels have, whichever the others have: many-to-one.

    Splitting a cluster never lowers the accuracy that follows, so figures compare at one K alone; they have names of
    their own. Equal counts go to the lowest class id.

    Args:
        matrix_KC: (K, C) integers >= 0, pixels of cluster k with label c.

    Returns:
        (K,) int64, the class 0..C-1 of each cluster.

    Raises:
        DataError: the matrix is not a non-empty table of integer counts >= 0.

    >>> majority_classes(np.array([[5, 9], [7, 8], [2, 1]]))
    array([1, 1, 0])
    """
    majority_K: npt.NDArray[np.int64] = _checked(matrix_KC).argmax(axis=1)
    return majority_K


def own_classes(matrix_CC: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Let row c be class c: what a probe predicts has its names already.

    Args:
        matrix_CC: (C, C) integers >= 0, pixels predicted as the class of the row with label c.

    Returns:
        (C,) int64, 0..C-1.

    Raises:
        DataError: the matrix is not a non-empty square table of integer counts >= 0.

    >>> own_classes(np.array([[5, 9], [7, 8]]))
    array([0, 1])
    """
    n_rows, n_classes = _checked(matrix_CC).shape
    if n_rows != n_classes:
        raise DataError(f"a row for each class is expected, such as (27, 27); got {matrix_CC.shape}")
    return np.arange(n_classes, dtype=np.int64)


MATCHINGS: dict[str, Callable[[npt.NDArray[np.integer]], npt.NDArray[np.int64]]] = {
    "one-to-one": match_clusters,
    "identity": own_classes,
}
"""How the rows of a matrix of counts get their classes; the name stands in `scores.json`."""


def matched_pixels(matrix_KC: npt.NDArray[np.integer], class_of_K: npt.NDArray[np.int64]) -> int:
    """Return the number of pixels whose cluster is matched to their class.

    Args:
        matrix_KC: (K, C) integers, pixels of cluster k with label c.
        class_of_K: (K,) int64 as from `match_clusters`.
    """
    matched = np.flatnonzero(class_of_K != SURPLUS)
    return int(matrix_KC[matched, class_of_K[matched]].sum())


def _checked(matrix_KC: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    matrix_KC = np.asarray(matrix_KC)
    if matrix_KC.ndim != 2 or matrix_KC.size == 0:
        raise DataError(f"counts must have the shape (clusters, classes), such as (27, 27); got {matrix_KC.shape}")
    if not np.issubdtype(matrix_KC.dtype, np.integer):
        raise DataError(f"counts must be integers, such as int64; got {matrix_KC.dtype}")
    if matrix_KC.min() < 0:
        raise DataError(f"counts must be at least 0; got {matrix_KC.min()}")
    return matrix_KC
