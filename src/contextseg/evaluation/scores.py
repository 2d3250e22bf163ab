"""The scores of a whole set, from its (cluster, class) counts alone.

Shape suffixes: K clusters; C classes.

The rules, each of which moves the number:

- One matrix for the whole set; a mean of per-image scores would be another metric.
- `accuracy` and `miou`: clusters are matched to classes one-to-one. Pixels of surplus clusters (K > C) and pixels of
  classes without a cluster (K < C) are **wrong**: they stay in the denominator of the accuracy and of their class's
  IoU.
- A class that has ground-truth pixels but no cluster has IoU 0 and counts in the mean.
- A class without a ground-truth pixel in the set has no recall (None). Its IoU is 0, in the mean, if its
  cluster holds pixels, all of them wrong; if nothing was predicted as this class either, the IoU is 0/0, so
  it is None and left out of the mean. PiCIE and STEGO do the same (a NaN-mean over TP / (TP + FP + FN));
  leaving out every absent class would give a higher number than theirs for the same masks.
- `accuracy_many_to_one` and `miou_many_to_one`: each cluster stands for its most frequent class, for K > C. They are
  other metrics, higher by their making, and never stand in for the first two.
- `accuracy_G_submatrix` and `miou_G_submatrix` of a group G of classes, such as things and stuff: what is in the group
  on both sides of the *matched* matrix of all classes, as in table 2 of PiCIE. Pixels of the group that were taken for
  a class outside it, and the reverse, count nowhere; those in surplus clusters stay wrong. So both groups may score
  higher than all classes do.
- `boundary_f`: see `contextseg.evaluation.boundaries`; one-to-one.
"""

import copy
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypedDict

import numpy as np
import numpy.typing as npt

from contextseg.errors import DataError
from contextseg.evaluation.boundaries import BoundaryCounts
from contextseg.evaluation.matching import MATCHINGS, SURPLUS, majority_classes, matched_pixels
from contextseg.files import write_atomically

OPTIONS = ("probe", "fresh_clusters", "flip", "refine", "merged")
"""What `evaluate` can be told to do otherwise: keys of the context of scores, None or False where an option is off."""


class ClassScore(TypedDict):
    """Score of one class, fractions of 1; None where it is 0/0."""

    iou: float | None
    recall: float | None
    n_pixels: int
    boundary_f: NotRequired[float | None]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one evaluation; made by `score` or `read_scores`.

    Attributes:
        accuracy: fraction of all labelled pixels whose cluster is matched to their class, 0..1.
        miou: mean IoU over the classes that have one, 0..1.
        per_class: class name -> `iou`, `recall` (its pixel accuracy), `n_pixels` of ground truth, and `boundary_f`
            where boundaries were counted; in the order of the class ids.
        cluster_to_class: (K,) int64, class id of each cluster, -1 for a surplus one.
        matrix: (K, C) int64 pixel counts, read-only; everything but the boundaries follows from it.
        matching: how clusters got their classes, a name in `MATCHINGS`.
        accuracy_many_to_one: as `accuracy`, but each cluster stands for its most frequent class; None where nothing
            is matched.
        miou_many_to_one: likewise.
        groups: name of a group -> ids of its classes.
        submatrices: `accuracy_G_submatrix` and `miou_G_submatrix` of each group G; None where the group has no pixel.
        boundary_f: mean boundary F over the classes that have one; None where boundaries were not counted.
        boundaries: the counts that it follows from.
        n_images: images counted, None where unknown.
        context: what was evaluated (method, start, seed, resolution, ...), JSON values.
    """

    accuracy: float
    miou: float
    per_class: dict[str, ClassScore]
    cluster_to_class: npt.NDArray[np.int64]
    matrix: npt.NDArray[np.int64]
    matching: str
    accuracy_many_to_one: float | None
    miou_many_to_one: float | None
    groups: dict[str, tuple[int, ...]]
    submatrices: dict[str, float | None]
    boundary_f: float | None
    boundaries: BoundaryCounts | None
    n_images: int | None
    context: Mapping[str, object]

    @property
    def options(self) -> dict[str, object]:
        """The options that were on: figures with other ones do not compare."""
        return {option: value for option in OPTIONS if (value := self.context.get(option))}

    def to_dict(self) -> dict[str, object]:
        """Return the content of `scores.json`: plain numbers, lists and dicts."""
        n_clusters, n_classes = self.matrix.shape
        return {
            "accuracy": self.accuracy,
            "miou": self.miou,
            "accuracy_many_to_one": self.accuracy_many_to_one,
            "miou_many_to_one": self.miou_many_to_one,
            **self.submatrices,
            "boundary_f": self.boundary_f,
            "n_images": self.n_images,
            "n_clusters": n_clusters,
            "n_classes": n_classes,
            "context": dict(self.context),
            "matching": self.matching,
            "groups": {name: list(ids) for name, ids in self.groups.items()},
            "per_class": self.per_class,
            "cluster_to_class": self.cluster_to_class.tolist(),
            "matrix": self.matrix.tolist(),
            "boundaries": None if self.boundaries is None else self.boundaries.to_dict(),
        }

    def write(self, path: Path) -> None:
        """Write `scores.json` in one step: a reader never sees half a file.

        Raises:
            DataError: the context holds something that JSON cannot; nothing is written then.
            OSError: the file cannot be written.
        """
        try:
            text = json.dumps(self.to_dict(), indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: the context of the scores must be JSON values: {error}") from error
        write_atomically(path, (text + "\n").encode())


def score(
    matrix_KC: npt.NDArray[np.integer],
    names: Sequence[str],
    *,
    matching: str = "one-to-one",
    cluster_to_class: npt.NDArray[np.int64] | None = None,
    groups: Mapping[str, Sequence[int]] | None = None,
    boundaries: BoundaryCounts | None = None,
    n_images: int | None = None,
    context: Mapping[str, object] | None = None,
) -> Scores:
    """Match clusters to classes and score the whole set.

    Args:
        matrix_KC: (K, C) integers >= 0, pixels of cluster k with label c over the whole set.
        names: the C class names, all different, in the order of the class ids.
        matching: a name in `contextseg.evaluation.matching.MATCHINGS`; "identity" where row c already is class c.
        cluster_to_class: (K,) int64, one of the best matchings, where it is known already.
        groups: name of a group -> ids of its classes, such as "things" and "stuff", to be scored by themselves.
        boundaries: the boundary pixels of the same clusters and classes over the whole set.
        n_images: images counted.
        context: what was evaluated, JSON values; stored beside the scores.

    Raises:
        DataError: the matrix is malformed or holds no pixel, or the names, the groups or the boundaries do not fit it.

    >>> scores = score(np.array([[3, 1], [0, 4], [2, 0]]), ["sky", "sea"])  # cluster 2 is surplus
    >>> scores.accuracy, scores.per_class["sky"]["iou"], scores.per_class["sea"]["iou"]
    (0.7, 0.5, 0.8)
    >>> scores.accuracy_many_to_one  # cluster 2 is sky too: 3 + 4 + 2 of 10
    0.9
    """
    class_of_K = MATCHINGS[matching](matrix_KC) if cluster_to_class is None else cluster_to_class
    ids_of = {name: tuple(ids) for name, ids in (groups or {}).items()}
    matrix: npt.NDArray[np.int64] = np.array(matrix_KC, dtype=np.int64)
    matrix.setflags(write=False)
    _check_fit(matrix, names, ids_of, boundaries)
    by_class = _by_class(matrix, class_of_K)
    accuracy, miou = _accuracy_and_miou(by_class)
    if accuracy is None or miou is None:
        raise DataError("no labelled pixel was counted, so there is nothing to score; check the label files")
    many_to_one: tuple[float | None, float | None] = (None, None)
    if matching != "identity":
        many_to_one = _accuracy_and_miou(_by_class(matrix, majority_classes(matrix)))

    class_scores, boundary_f = _class_scores(by_class), None
    if boundaries is not None:
        f_scores = boundaries.f_scores(class_of_K)
        boundary_f = _mean(f_scores)
        for one, f_score in zip(class_scores, f_scores, strict=True):
            one["boundary_f"] = f_score
    return Scores(
        accuracy=accuracy,
        miou=miou,
        per_class=dict(zip(names, class_scores, strict=True)),
        cluster_to_class=class_of_K,
        matrix=matrix,
        matching=matching,
        accuracy_many_to_one=many_to_one[0],
        miou_many_to_one=many_to_one[1],
        groups=ids_of,
        submatrices=_submatrices(by_class, ids_of),
        boundary_f=boundary_f,
        boundaries=copy.deepcopy(boundaries),
        n_images=n_images,
        context=context or {},
    )


def read_scores(path: Path) -> Scores:
    """Read `scores.json` and check that its numbers follow from its counts.

    The stored matching is kept if it is one of the best: another SciPy may break a tie in another way. What an earlier
    version did not write is computed.

    Raises:
        DataError: the file is missing or malformed, or a stored number disagrees with the counts.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        matrix_KC = np.array(stored["matrix"])
        class_of_K = np.array(stored["cluster_to_class"], dtype=np.int64)
        matching, boundaries = stored.get("matching", "one-to-one"), stored.get("boundaries")
        if not _is_matching(matrix_KC, class_of_K, matching):
            raise DataError(f"`cluster_to_class` is not a best {matching} matching of the stored matrix")
        scores = score(
            matrix_KC,
            list(stored["per_class"]),
            matching=matching,
            cluster_to_class=class_of_K,
            groups=stored.get("groups"),
            boundaries=None if boundaries is None else BoundaryCounts.from_dict(boundaries),
            n_images=stored["n_images"],
            context=dict(stored["context"]),
        )
    except KeyError as error:
        raise DataError(f"{path}: not a scores file: the key {error} is missing") from error
    except (OSError, ValueError, TypeError, AttributeError, DataError) as error:
        raise DataError(f"{path}: cannot read the scores: {error}") from error
    expected = scores.to_dict()
    for key, value in stored.items():
        if key not in expected or not _agree(value, expected[key]):
            raise DataError(f"{path}: `{key}` does not follow from the stored matrix; evaluate again")
    return scores


def _check_fit(
    matrix: npt.NDArray[np.int64],
    names: Sequence[str],
    groups: Mapping[str, tuple[int, ...]],
    boundaries: BoundaryCounts | None,
) -> None:
    n_classes = matrix.shape[1]
    if len(names) != n_classes or len(set(names)) != n_classes:
        raise DataError(f"expected {n_classes} different class names, one for each column; got {list(names)}")
    for name, ids in groups.items():
        if len(set(ids)) < len(ids) or not set(ids) <= set(range(n_classes)):
            raise DataError(f"group '{name}': expected different class ids in 0..{n_classes - 1}; got {list(ids)}")
    if boundaries is not None and boundaries.true_near_KC.shape != matrix.shape:
        raise DataError(
            f"boundaries were counted for {boundaries.true_near_KC.shape} (clusters, classes), "
            f"pixels for {matrix.shape}"
        )


def _by_class(matrix_KC: npt.NDArray[np.int64], class_of_K: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return (C + 1, C) pixels taken for the class of the row with the label of the column; the last row is surplus."""
    n_classes = matrix_KC.shape[1]
    merged = np.zeros((n_classes + 1, n_classes), dtype=np.int64)
    np.add.at(merged, class_of_K, matrix_KC)  # SURPLUS is -1: the last row
    return merged


def _accuracy_and_miou(by_class: npt.NDArray[np.int64]) -> tuple[float | None, float | None]:
    n_pixels = int(by_class.sum())
    accuracy = int(by_class.trace()) / n_pixels if n_pixels else None
    return accuracy, _mean([one["iou"] for one in _class_scores(by_class)])


def _submatrices(by_class: npt.NDArray[np.int64], groups: Mapping[str, tuple[int, ...]]) -> dict[str, float | None]:
    scores: dict[str, float | None] = {}
    for name, ids in groups.items():
        # the last row, of surplus clusters, belongs to every group
        within = _accuracy_and_miou(by_class[[*ids, -1]][:, ids])
        scores |= zip((f"accuracy_{name}_submatrix", f"miou_{name}_submatrix"), within, strict=True)
    return scores


def _class_scores(by_class: npt.NDArray[np.int64]) -> list[ClassScore]:
    hit_C, predicted_C = by_class.diagonal(), by_class[:-1].sum(axis=1)
    # Summed over all rows: pixels that a surplus cluster took from a class stay among its misses.
    truth_C = by_class.sum(axis=0)
    return [
        _class_score(n_hit, n_predicted, n_truth)
        for n_hit, n_predicted, n_truth in zip(hit_C.tolist(), predicted_C.tolist(), truth_C.tolist(), strict=True)
    ]


def _class_score(n_hit: int, n_predicted: int, n_truth: int) -> ClassScore:
    n_union = n_predicted + n_truth - n_hit
    return {
        "iou": n_hit / n_union if n_union else None,
        "recall": n_hit / n_truth if n_truth else None,
        "n_pixels": n_truth,
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of the values that there are."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else None


def _is_matching(matrix_KC: npt.NDArray[np.integer], class_of_K: npt.NDArray[np.int64], matching: str) -> bool:
    if matching not in MATCHINGS:
        return False
    best_K = MATCHINGS[matching](matrix_KC)
    if matching == "identity":
        return np.array_equal(class_of_K, best_K)
    n_clusters, n_classes = matrix_KC.shape
    classes = class_of_K[class_of_K != SURPLUS]
    return (
        class_of_K.shape == (n_clusters,)
        and len(classes) == len(np.unique(classes)) == min(n_clusters, n_classes)
        and bool(np.isin(classes, np.arange(n_classes)).all())
        and matched_pixels(matrix_KC, class_of_K) == matched_pixels(matrix_KC, best_K)
    )


def _agree(stored: object, expected: object) -> bool:
    if isinstance(expected, dict):
        return (
            isinstance(stored, dict)
            and stored.keys() == expected.keys()
            and all(_agree(stored[key], expected[key]) for key in expected)
        )
    if isinstance(expected, float):
        # 1e-9: a sum in another order may differ in the last bits; a changed figure differs by far more.
        return isinstance(stored, int | float) and math.isclose(stored, expected, rel_tol=1e-9, abs_tol=1e-12)
    return stored == expected
