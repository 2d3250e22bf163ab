"""Classes that do not hang on one k-means: many partitions, and which points they keep together.

k-means makes clusters of like spread, so that a large varied class is cut up before a small one is found, and each
start ends elsewhere. So samples of the points are clustered, more finely than there are classes, and near clusters are
merged, to as many as there are classes and to somewhat more. How often two points fall into one cluster is their
likeness: evidence accumulation (Fred and Jain, TPAMI 2005). Average linkage by it, as theirs, makes many classes, small
ones that lie apart among them. Where there are few, such small ones would leave none for what most of the points show,
and one class of all that; so there points are clustered by the company that they keep. The finer partitions, the levels
of merging, the second way and the shares by which other points are told are ours. Points may be seen in several views,
such as with and without how they look: the partitions take turns.

Shape legend: N points, S points of a sample, D dimensions of a view, M clusters, K classes.
"""

from itertools import cycle, islice
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.cluster.hierarchy import cut_tree, linkage
from scipy.spatial.distance import cdist, pdist, squareform
from torch import Tensor

from contextseg.clustering.kmeans import KMeans, sum_by_label
from contextseg.clustering.sampling import sample_points
from contextseg.conventions import FEW_CLASSES
from contextseg.errors import TrainingError
from contextseg.randomness import keyed_rng

_POINTS_PER_CLUSTER = 100  # of the sample that a partition is learnt from
_MAX_ITER = 12  # Lloyd iterations of a partition: its clusters are merged and outvoted, so they need not be final
_MERGED_TO = (1.0, 1.5, 2.0)  # clusters for each class that are left where it is asked which points are together
_LEAST_SHARE = 0.1  # of an even share, the points of a class at least that is made by links
_COMPARED = 3000  # points that are compared with each other
_STARTS = 10  # of the k-means by company: the best of few is a bad one now and then


class Consensus:
    """Clusters points into classes by what several partitions agree on.

    Args:
        n_classes: K.
        clusters_per_class: how many times more clusters than classes each partition begins with.
        n_partitions: how many there are, each of a sample of its own.
        seed: the samples and the starts follow from it.

    Attributes:
        partitions_: the k-means of each partition, of the views in turn, with the share of each class in each of its
            clusters, (M, K) float32.
    """

    partitions_: list[tuple[KMeans, Tensor]]

    def __init__(self, n_classes: int, *, clusters_per_class: int, n_partitions: int, seed: int = 0) -> None:
        self.n_classes = n_classes
        self.clusters_per_class = clusters_per_class
        self.n_partitions = n_partitions
        self.seed = seed

    def fit(self, *views: Tensor) -> Self:
        """Learn the partitions.

        Args:
            views: of the same points, (N, D) float32 each, of unit length.

        Raises:
            TrainingError: there are fewer points than clusters, or points that are not finite.
        """
        n_clusters, n_points = self.n_classes * self.clusters_per_class, len(views[0])
        if n_points < n_clusters:
            raise TrainingError(f"{n_points} points cannot make {n_clusters} clusters; add images or lower n_classes")
        turns = list(islice(cycle(views), self.n_partitions))
        found = [self._partition(points_ND, n_clusters, index) for index, points_ND in enumerate(turns)]
        compared = [sample_points(points_ND, _COMPARED, self.seed) for points_ND in views]
        clusters = [kmeans.predict(compared_SD) for kmeans, compared_SD in zip(found, cycle(compared), strict=False)]
        merged_SL = torch.cat(
            [self._merged(kmeans, *_MERGED_TO)[clusters_S] for kmeans, clusters_S in zip(found, clusters, strict=True)],
            dim=1,
        )
        labels_SL = merged_SL.numpy(force=True)
        few = self.n_classes <= FEW_CLASSES
        classes_S = _by_company(labels_SL, self.n_classes, self.seed) if few else _by_links(labels_SL, self.n_classes)
        classes_SK = F.one_hot(torch.from_numpy(classes_S).to(views[0].device), self.n_classes).float()
        self.partitions_ = [
            (kmeans, F.normalize(sum_by_label(classes_SK, clusters_S, n_clusters), p=1, dim=1))
            for kmeans, clusters_S in zip(found, clusters, strict=True)
        ]
        if self._outvoted(*compared) and self._outvoted(*views):
            classes_M = self._merged(found[0], 1.0)[:, 0]
            self.partitions_ = [(found[0], F.one_hot(classes_M, self.n_classes).float())]
        return self

    def predict(self, *views: Tensor) -> Tensor:
        """Return the class with the largest share of each point's clusters, (N,) int64."""
        return self.shares(*views).argmax(1)

    def shares(self, *views: Tensor) -> Tensor:
        """Return the share of each class in the clusters of each point, a mean over the partitions: (N, K) float32.

        Args:
            views: of the points, as those that the partitions were learnt from.
        """
        shares_NK = torch.zeros(len(views[0]), self.n_classes, device=views[0].device)
        for (kmeans, shares_MK), points_ND in zip(self.partitions_, cycle(views), strict=False):
            shares_NK += shares_MK[kmeans.predict(points_ND)]
        return shares_NK / len(self.partitions_)

    def _outvoted(self, *views: Tensor) -> bool:
        """Return whether some class is the first choice of none of these points."""
        return len(self.predict(*views).unique()) < self.n_classes

    def _partition(self, points_ND: Tensor, n_clusters: int, index: int) -> KMeans:
        seed, n_sampled = self.seed * self.n_partitions + index, _POINTS_PER_CLUSTER * n_clusters
        kmeans = KMeans(n_clusters, seed=seed, max_points=n_sampled, n_restarts=1, max_iter=_MAX_ITER)
        return kmeans.fit([sample_points(points_ND, n_sampled, seed)])

    def _merged(self, kmeans: KMeans, *per_class: float) -> Tensor:
        """Return what each cluster is merged into, for each of some numbers of clusters for a class: (M, L) int64."""
        left = [min(len(kmeans.centers_), round(factor * self.n_classes)) for factor in per_class]
        return merge_clusters(kmeans.centers_, *left).to(kmeans.centers_.device)


def merge_clusters(centers_MD: Tensor, *n_classes: int) -> Tensor:
    """Merge clusters by the average cosine distance of their centres, each counted once whatever its size.

    Args:
        centers_MD: (M, D) float32, M at least `n_classes`.
        n_classes: how many remain; L such numbers.

    Returns:
        (M, L) int64: the class of each cluster, 0 to K - 1, numbered in the order in which they first occur.

    Raises:
        ValueError: there are fewer clusters than classes.
    """
    if len(centers_MD) < max(n_classes):
        raise ValueError(f"{len(centers_MD)} clusters cannot be merged into {max(n_classes)} classes")
    unit_MD = F.normalize(centers_MD.double(), dim=1).numpy(force=True)
    tree = linkage(squareform(1 - unit_MD @ unit_MD.T, checks=False), method="average")
    merged: Tensor = torch.from_numpy(cut_tree(tree, n_clusters=n_classes).astype(np.int64))
    return merged


def _by_company(labels_SL: NDArray[np.int64], n_classes: int, seed: int) -> NDArray[np.int64]:
    """Return the class of each point, (S,), by k-means of how often it is together with each of the others: for few.

    A point is told by all others at once: two that are seldom together themselves, but each with the same points, are
    of one class. k-means learns from points that are drawn the less often the more company they have, so that large
    classes count no more than small ones: it would cut them up, and leave small ones joined.

    Args:
        labels_SL: the label of each point in each of L partitions.
        n_classes: K.
        seed: of the draw and the starts.
    """
    together_SS = 1 - squareform(pdist(labels_SL, "hamming"))
    chance_S = 1 / together_SS.sum(0)
    drawn_S = keyed_rng(seed, "evident classes").choice(len(chance_S), _COMPARED, p=chance_S / chance_S.sum())
    company_SS = F.normalize(torch.from_numpy(together_SS).float(), dim=1)
    kmeans = KMeans(n_classes, seed=seed, max_points=_COMPARED, n_restarts=_STARTS)
    return kmeans.fit([company_SS[torch.from_numpy(drawn_S)]]).predict(company_SS).numpy()


def _by_links(labels_SL: NDArray[np.int64], n_classes: int) -> NDArray[np.int64]:
    """Return the class of each point, (S,), by average linkage of how often two are apart: for many classes.

    A class has at least `_LEAST_SHARE` of an even share of the points, where the tree has K such: it is cut as far down
    as it takes to find them, and what is left joins the class that is nearest on average. A few points that are unlike
    all others would else be a class of their own, and two true classes one.

    Args:
        labels_SL: the label of each point in each of L partitions.
        n_classes: K.
    """
    n_points, n_partitions = labels_SL.shape
    tree = linkage(np.rint(n_partitions * pdist(labels_SL, "hamming")), method="average")  # counts: ties are ties
    least = _LEAST_SHARE * n_points / n_classes
    n_groups = _first_cut(tree, n_classes, least)
    groups_S = _groups(tree, n_groups or n_classes)
    if n_groups is None:
        return groups_S
    large = np.flatnonzero(np.bincount(groups_S) >= least)
    apart = (n_partitions * cdist(labels_SL, labels_SL[groups_S == group], "hamming") for group in large)
    nearest_S = np.stack([np.rint(of_one).mean(1) for of_one in apart], axis=1).argmin(1)
    classes_S = np.where(np.isin(groups_S, large), np.searchsorted(large, groups_S), nearest_S)
    return np.asarray(classes_S, np.int64)


def _first_cut(tree: NDArray[np.float64], n_classes: int, least: float) -> int | None:
    """Return the least number of groups, K or more, of which exactly K have `least` points; None where there is none.

    Args:
        tree: of points, as `linkage` returns it.
        n_classes: K.
        least: points.
    """
    large = np.concatenate([np.ones(len(tree) + 1), tree[:, 3]]) >= least  # the points, then what merges make of them
    gained = large[tree[::-1, :2].astype(int)].sum(1) - large[: len(tree) : -1]  # by undoing one merge after the other
    n_groups = 2 + np.flatnonzero(large[-1] + gained.cumsum() == n_classes)
    return next((int(number) for number in n_groups if number >= n_classes), None)


def _groups(tree: NDArray[np.float64], n_groups: int) -> NDArray[np.int64]:
    """Return the group of each point, 0 to n_groups - 1, where the tree's last merges are undone."""
    n_points = len(tree) + 1
    group_of = np.arange(n_points + len(tree))  # of the points, then of what each merge makes of them
    for merge in range(n_points - n_groups - 1, -1, -1):
        group_of[tree[merge, :2].astype(int)] = group_of[n_points + merge]
    return np.asarray(np.unique(group_of[:n_points], return_inverse=True)[1], np.int64)
