"""Counts of (cluster, class) pixel pairs over a whole labelled set.

Shape suffixes: H, W image height and width in pixels; K clusters; C classes.

Every score comes from one matrix of counts for the whole set, so memory does not grow with the number of
images, and ranks are merged by a sum.
"""

from typing import Self

import numpy as np
import numpy.typing as npt

from contextseg.conventions import IGNORE
from contextseg.errors import DataError


class ConfusionCounts:
    """Pixel counts of every pair (cluster, class), summed over images.

    Args:
        n_clusters: K, >= 1; cluster ids are 0..K-1.
        n_classes: C, in 1..255; labels are 0..C-1 and 255 (`IGNORE`).

    Attributes:
        matrix_: (K, C) int64, pixels of cluster k (row) whose label is c (column).
        n_images_: images counted so far.

    Raises:
        DataError: n_clusters or n_classes is out of its range.

    >>> counts = ConfusionCounts(n_clusters=2, n_classes=3)
    >>> counts.update(np.array([[0, 0, 1]]), np.array([[2, 255, 1]]))
    >>> counts.matrix_.tolist()
    [[0, 0, 1], [0, 1, 0]]
    """

    def __init__(self, n_clusters: int, n_classes: int) -> None:
        if n_clusters < 1:
            raise DataError(f"n_clusters must be at least 1, such as 27; got {n_clusters}")
        if not 1 <= n_classes <= IGNORE:
            raise DataError(
                f"n_classes must lie in 1..{IGNORE}, because label {IGNORE} means 'ignore'; got {n_classes}"
            )
        self.n_clusters = n_clusters
        self.n_classes = n_classes
        # int64, never float32: a float32 count stops growing at 2^24 pixels, which is 65 images of 512 x 512.
        self.matrix_: npt.NDArray[np.int64] = np.zeros((n_clusters, n_classes), dtype=np.int64)
        self.n_images_ = 0

    def update(self, clusters_HW: npt.NDArray[np.integer], labels_HW: npt.NDArray[np.integer]) -> None:
        """Add the pixels of one image.

        Args:
            clusters_HW: (H, W) integers in 0..K-1, also where the label is ignored.
            labels_HW: (H, W) integers in 0..C-1, or 255 where the pixel has no class.

        Raises:
            DataError: as `check_maps`. Nothing is counted then.
        """
        clusters_HW, labels_HW = check_maps(clusters_HW, labels_HW, self.n_clusters, self.n_classes)
        counted = labels_HW != IGNORE
        # Cast before the product: uint8 ids would wrap around.
        pairs = clusters_HW[counted].astype(np.int64) * self.n_classes + labels_HW[counted].astype(np.int64)
        self.matrix_ += np.bincount(pairs, minlength=self.matrix_.size).reshape(self.matrix_.shape)
        self.n_images_ += 1

    def merge(self, other: Self) -> None:
        """Add the counts of another process or another part of the set.

        Raises:
            DataError: the other counts have another number of clusters or classes.
        """
        if other.matrix_.shape != self.matrix_.shape:
            raise DataError(
                "only counts of the same (clusters, classes) can be merged; "
                f"got {other.matrix_.shape} for {self.matrix_.shape}"
            )
        self.matrix_ += other.matrix_
        self.n_images_ += other.n_images_

    def __iadd__(self, other: Self) -> Self:
        self.merge(other)
        return self


def check_maps(
    clusters_HW: npt.NDArray[np.integer], labels_HW: npt.NDArray[np.integer], n_clusters: int, n_classes: int
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.integer]]:
    """Return a map of clusters and one of labels, once they are fit to be counted.

    Raises:
        DataError: the arrays are not integer maps of one shape, or an id is out of range.
    """
    clusters_HW, labels_HW = np.asarray(clusters_HW), np.asarray(labels_HW)
    if clusters_HW.ndim != 2 or clusters_HW.shape != labels_HW.shape:
        raise DataError(
            f"clusters and labels must be two maps of one shape (H, W); got {clusters_HW.shape} and {labels_HW.shape}"
        )
    for what, ids in (("cluster ids", clusters_HW), ("labels", labels_HW)):
        if not np.issubdtype(ids.dtype, np.integer):
            raise DataError(f"{what} must be integers, such as int64 or uint8; got {ids.dtype}")
    _check_range("cluster id", clusters_HW, n_clusters, "")
    _check_range("label", labels_HW[labels_HW != IGNORE], n_classes, f", or {IGNORE} to ignore a pixel")
    return clusters_HW, labels_HW


def _check_range(what: str, ids: npt.NDArray[np.integer], n_ids: int, also: str) -> None:
    if ids.size == 0:
        return
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= n_ids:
        raise DataError(
            f"{what} {low if low < 0 else high} is out of range: expected 0..{n_ids - 1}{also}; "
            f"the map holds {low}..{high}"
        )
