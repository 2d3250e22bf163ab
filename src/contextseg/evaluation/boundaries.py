"""Counts of boundary pixels, and the boundary F-score that follows from them.

Source: Csurka et al., "What is a good evaluation measure for semantic segmentation?" (BMVC 2013). For each class a
predicted boundary pixel is right if a true one lies within a tolerance (precision), a true one is found if a
predicted one does (recall), and F is their harmonic mean; the tolerance is theirs, 0.75 % of the image's diagonal
(DAVIS, Perazzi et al., CVPR 2016, takes 0.8 %). Ours: as for the mean IoU, pixels are counted over the whole set, F
is of each class and the score is the mean over classes; Csurka et al. average over images.

Shape suffixes: H, W image height and width in pixels; K clusters; C classes; N boundary pixels; P planes of 8 bits.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from contextseg.conventions import IGNORE
from contextseg.errors import DataError
from contextseg.evaluation.counts import check_maps
from contextseg.evaluation.matching import SURPLUS

BOUNDARY_TOLERANCE = 0.0075
"""Distance at which two boundaries still agree, as a fraction of the diagonal of the label map."""


class BoundaryCounts:
    """Boundary pixels of clusters and classes, summed over images, and how many of them lie near one another.

    A pixel is on the boundary if a pixel above, below, left or right of it has another id. Pixels without a class are
    taken out of both maps: they are on no boundary and make none, and neither does the edge of the image. Near is a
    Euclidean distance of at most `tolerance` times the diagonal of the label map.

    Every pair (cluster, class) is counted, because which cluster stands for which class is known only at the end.

    Args:
        n_clusters: K.
        n_classes: C.
        tolerance: as a fraction of the diagonal.

    Attributes:
        predicted_K: int64, boundary pixels of each cluster.
        true_C: int64, boundary pixels of each class.
        predicted_near_KC: int64, boundary pixels of the cluster near the boundary of the class.
        true_near_KC: int64, boundary pixels of the class near the boundary of the cluster.

    >>> counts = BoundaryCounts(n_clusters=2, n_classes=2, tolerance=0.5)  # 0.5 * hypot(1, 4) = 2.06 pixels
    >>> counts.update(np.array([[0, 0, 0, 1]]), np.array([[0, 1, 1, 1]]))
    >>> counts.predicted_K.tolist(), counts.predicted_near_KC.tolist()
    ([1, 1], [[1, 1], [0, 1]])
    """

    def __init__(self, n_clusters: int, n_classes: int, tolerance: float = BOUNDARY_TOLERANCE) -> None:
        self.tolerance = tolerance
        self.predicted_K: npt.NDArray[np.int64] = np.zeros(n_clusters, np.int64)
        self.true_C: npt.NDArray[np.int64] = np.zeros(n_classes, np.int64)
        self.predicted_near_KC: npt.NDArray[np.int64] = np.zeros((n_clusters, n_classes), np.int64)
        self.true_near_KC: npt.NDArray[np.int64] = np.zeros((n_clusters, n_classes), np.int64)

    def update(self, clusters_HW: npt.NDArray[np.integer], labels_HW: npt.NDArray[np.integer]) -> None:
        """Add the boundaries of one image.

        Args:
            clusters_HW: (H, W) integers in 0..K-1.
            labels_HW: (H, W) integers in 0..C-1, or 255 where the pixel has no class.

        Raises:
            DataError: as `contextseg.evaluation.counts.check_maps`. Nothing is counted then.
        """
        n_clusters, n_classes = self.predicted_near_KC.shape
        clusters_HW, labels_HW = check_maps(clusters_HW, labels_HW, n_clusters, n_classes)
        seen_HW = labels_HW != IGNORE
        radius_px = self.tolerance * math.hypot(*labels_HW.shape)
        predicted, true = (_Boundary.of(ids_HW, seen_HW) for ids_HW in (clusters_HW, labels_HW))
        self.predicted_K += np.bincount(predicted.ids_N, minlength=n_clusters)
        self.true_C += np.bincount(true.ids_N, minlength=n_classes)
        for label, near_N in true.nearness(predicted, radius_px):
            self.predicted_near_KC[:, label] += np.bincount(predicted.ids_N[near_N], minlength=n_clusters)
        for cluster, near_N in predicted.nearness(true, radius_px):
            self.true_near_KC[cluster] += np.bincount(true.ids_N[near_N], minlength=n_classes)

    def merge(self, other: Self) -> None:
        """Add the counts of another process or another part of the set.

        Raises:
            DataError: the other counts have another number of clusters or classes, or another tolerance.
        """
        if other.true_near_KC.shape != self.true_near_KC.shape or other.tolerance != self.tolerance:
            raise DataError(
                "only counts of the same (clusters, classes) and tolerance can be merged; "
                f"got {other.true_near_KC.shape}, {other.tolerance} for {self.true_near_KC.shape}, {self.tolerance}"
            )
        for name, own in self._arrays().items():
            own += other._arrays()[name]

    def __iadd__(self, other: Self) -> Self:
        self.merge(other)
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return the tolerance and the counts as numbers and lists."""
        return {"tolerance": self.tolerance} | {name: own.tolist() for name, own in self._arrays().items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the counts that `to_dict` has told.

        Raises:
            KeyError: a count is missing.
            ValueError: an array is no table of integers >= 0 of its shape, or more pixels are near than there are.
        """
        counts = cls(len(values["predicted"]), len(values["true"]), float(values["tolerance"]))
        for name, own in counts._arrays().items():
            read = np.array(values[name])
            if read.shape != own.shape or read.dtype.kind not in "iu" or read.min() < 0:
                raise ValueError(f"the boundary pixels `{name}` must be integers >= 0 of the shape {own.shape}")
            own[...] = read
        predicted_K1, true_1C = counts.predicted_K[:, None], counts.true_C[None]
        if (counts.predicted_near_KC > predicted_K1).any() or (counts.true_near_KC > true_1C).any():
            raise ValueError("more boundary pixels are near than there are")
        return counts

    def f_scores(self, class_of_K: npt.NDArray[np.int64]) -> list[float | None]:
        """Return F of each class, 0..1, where each cluster stands for one class or for none.

        None where neither boundary has a pixel; 0 where one of them has none, as for a class without a cluster.

        Args:
            class_of_K: (K,) int64 as from `contextseg.evaluation.matching.match_clusters`: no class comes twice.
        """
        cluster_of = {int(c): k for k, c in enumerate(class_of_K) if c != SURPLUS}
        return [self._f_score(cluster_of.get(c), c) for c in range(len(self.true_C))]

    def _f_score(self, cluster: int | None, label: int) -> float | None:
        n_true, n_predicted = int(self.true_C[label]), 0 if cluster is None else int(self.predicted_K[cluster])
        if not n_true + n_predicted:
            return None
        if not n_true * n_predicted:
            return 0.0
        precision = int(self.predicted_near_KC[cluster, label]) / n_predicted
        recall = int(self.true_near_KC[cluster, label]) / n_true
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    def _arrays(self) -> dict[str, npt.NDArray[np.int64]]:
        return {
            "predicted": self.predicted_K,
            "true": self.true_C,
            "predicted_near": self.predicted_near_KC,
            "true_near": self.true_near_KC,
        }


@dataclass(frozen=True)
class _Boundary:
    """The boundary pixels of a map: rows, columns and ids; each pixel is on the boundary of its own id alone."""

    shape: tuple[int, ...]
    rows_N: npt.NDArray[np.intp]
    columns_N: npt.NDArray[np.intp]
    ids_N: npt.NDArray[np.integer]

    @classmethod
    def of(cls, ids_HW: npt.NDArray[np.integer], seen_HW: npt.NDArray[np.bool_]) -> Self:
        on_HW = np.zeros(ids_HW.shape, bool)
        for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
            differ = (ids_HW[one] != ids_HW[other]) & seen_HW[one] & seen_HW[other]
            on_HW[one] |= differ
            on_HW[other] |= differ
        rows_N, columns_N = np.nonzero(on_HW)
        return cls(ids_HW.shape, rows_N, columns_N, ids_HW[rows_N, columns_N])

    def nearness(self, other: Self, radius_px: float) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
        """Yield each id of this boundary, and which pixels of another boundary lie near its pixels.

        Each id is a bit, so that one dilation serves eight of them.
        """
        ids, places_N = np.unique(self.ids_N, return_inverse=True)
        bits_PHW = np.zeros((math.ceil(len(ids) / 8), *self.shape), np.uint8)
        bits_PHW[places_N // 8, self.rows_N, self.columns_N] = 1 << (places_N % 8)
        near_PN = _dilated(bits_PHW, radius_px)[:, other.rows_N, other.columns_N]
        near = np.unpackbits(near_PN, axis=0, count=len(ids), bitorder="little").astype(bool)
        yield from zip(ids.tolist(), near, strict=True)


def _dilated(bits_PHW: npt.NDArray[np.uint8], radius_px: float) -> npt.NDArray[np.uint8]:
    """Return the union of the bits of all pixels within a distance: a disk, put together from runs in its rows."""
    _, height, width = bits_PHW.shape
    radius = int(radius_px)
    padded = np.pad(bits_PHW, ((0, 0), (radius, radius), (radius, radius)))
    runs, half = padded.copy(), 0  # the union of what lies at most `half` to the left and right
    result = np.zeros_like(bits_PHW)
    for rise in range(radius, -1, -1):
        while (half + 1) ** 2 + rise**2 <= radius_px**2:
            half += 1
            runs[..., half:] |= padded[..., :-half]
            runs[..., :-half] |= padded[..., half:]
        for top in (radius - rise, radius + rise):
            result |= runs[:, top : top + height, radius : radius + width]
    return result
