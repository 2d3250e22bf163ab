"""Accuracy and mean IoU of a whole set, from its (cluster, class) counts alone.

Shape suffixes: K clusters; C classes.

The rules, each of which moves the number:

- One matrix for the whole set; a mean of per-image scores would be another metric.
- Clusters are matched to classes one-to-one. Pixels of surplus clusters (K > C) and pixels of classes without
  a cluster (K < C) are **wrong**: they stay in the denominator of the accuracy and of their class's IoU.
- A class that has ground-truth pixels but no cluster has IoU 0 and counts in the mean.
- A class without a ground-truth pixel in the set has no recall (None). Its IoU is 0, in the mean, if its
  cluster holds pixels, all of them wrong; if nothing was predicted as this class either, the IoU is 0/0, so
  it is None and left out of the mean. PiCIE and STEGO do the same (a NaN-mean over TP / (TP + FP + FN));
  leaving out every absent class would give a higher number than theirs for the same masks.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt

from contextseg.errors import DataError
from contextseg.evaluation.matching import SURPLUS, match_clusters, matched_pixels
from contextseg.files import write_atomically


class ClassScore(TypedDict):
    """Score of one class, fractions of 1; None where it is 0/0."""

    iou: float | None
    recall: float | None
    n_pixels: int


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of one evaluation; made by `score` or `read_scores`.

    Attributes:
        accuracy: fraction of all labelled pixels whose cluster is matched to their class, 0..1.
        miou: mean IoU over the classes that have one, 0..1.
        per_class: class name -> `iou`, `recall` (its pixel accuracy) and `n_pixels` of ground truth, in the
            order of the class ids.
        cluster_to_class: (K,) int64, class id of each cluster, -1 for a surplus one.
        matrix: (K, C) int64 pixel counts, read-only; everything above follows from it.
        n_images: images counted, None where unknown.
        context: what was evaluated (method, start, seed, resolution, ...), JSON values.
    """

    accuracy: float
    miou: float
    per_class: dict[str, ClassScore]
    cluster_to_class: npt.NDArray[np.int64]
    matrix: npt.NDArray[np.int64]
    n_images: int | None = None
    context: Mapping[str, object] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        """Return the content of `scores.json`: plain numbers, lists and dicts."""
        n_clusters, n_classes = self.matrix.shape
        return {
            "accuracy": self.accuracy,
            "miou": self.miou,
            "n_images": self.n_images,
            "n_clusters": n_clusters,
            "n_classes": n_classes,
            "context": dict(self.context),
            "per_class": self.per_class,
            "cluster_to_class": self.cluster_to_class.tolist(),
            "matrix": self.matrix.tolist(),
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
    n_images: int | None = None,
    context: Mapping[str, object] | None = None,
) -> Scores:
    """Match clusters to classes and score the whole set.

    Args:
        matrix_KC: (K, C) integers >= 0, pixels of cluster k with label c over the whole set.
        names: the C class names, all different, in the order of the class ids.
        n_images: images counted.
        context: what was evaluated, JSON values; stored beside the scores.

    Raises:
        DataError: the matrix is malformed or holds no pixel, or the names do not fit it.

    >>> scores = score(np.array([[3, 1], [0, 4], [2, 0]]), ["sky", "sea"])  # cluster 2 is surplus
    >>> scores.accuracy, scores.per_class["sky"]["iou"], scores.per_class["sea"]["iou"]
    (0.7, 0.5, 0.8)
    """
    return _score_matched(matrix_KC, names, match_clusters(matrix_KC), n_images, context or {})


def read_scores(path: Path) -> Scores:
    """Read `scores.json` and check that its numbers follow from its matrix.

    The stored matching is kept if it is one of the best: another SciPy may break a tie in another way.

    Raises:
        DataError: the file is missing or malformed, or a stored number disagrees with the matrix.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        matrix_KC = np.array(stored["matrix"])
        class_of_K = np.array(stored["cluster_to_class"], dtype=np.int64)
        if not _is_best_match(matrix_KC, class_of_K):
            raise DataError("`cluster_to_class` is not a best one-to-one matching of the stored matrix")
        scores = _score_matched(
            matrix_KC, list(stored["per_class"]), class_of_K, stored["n_images"], dict(stored["context"])
        )
    except KeyError as error:
        raise DataError(f"{path}: not a scores file: the key {error} is missing") from error
    except (OSError, ValueError, TypeError, DataError) as error:
        raise DataError(f"{path}: cannot read the scores: {error}") from error
    for key, expected in scores.to_dict().items():
        if key not in stored or not _agree(stored[key], expected):
            raise DataError(f"{path}: `{key}` does not follow from the stored matrix; evaluate again")
    return scores


def _score_matched(
    matrix_KC: npt.NDArray[np.integer],
    names: Sequence[str],
    class_of_K: npt.NDArray[np.int64],
    n_images: int | None,
    context: Mapping[str, object],
) -> Scores:
    matrix: npt.NDArray[np.int64] = np.array(matrix_KC, dtype=np.int64)
    matrix.setflags(write=False)
    n_classes = matrix.shape[1]
    if len(names) != n_classes or len(set(names)) != n_classes:
        raise DataError(f"expected {n_classes} different class names, one for each column; got {list(names)}")
    n_pixels = int(matrix.sum())
    if n_pixels == 0:
        raise DataError("no labelled pixel was counted, so there is nothing to score; check the label files")

    matched = np.flatnonzero(class_of_K != SURPLUS)
    classes = class_of_K[matched]
    hit_C, predicted_C = np.zeros(n_classes, dtype=np.int64), np.zeros(n_classes, dtype=np.int64)
    hit_C[classes] = matrix[matched, classes]
    predicted_C[classes] = matrix[matched].sum(axis=1)
    # Summed over all clusters: pixels that a surplus cluster took from a class stay among its misses.
    truth_C = matrix.sum(axis=0)

    per_class = {
        name: _class_score(n_hit, n_predicted, n_truth)
        for name, n_hit, n_predicted, n_truth in zip(
            names, hit_C.tolist(), predicted_C.tolist(), truth_C.tolist(), strict=True
        )
    }
    ious = [one["iou"] for one in per_class.values() if one["iou"] is not None]
    return Scores(
        accuracy=int(hit_C.sum()) / n_pixels,
        miou=math.fsum(ious) / len(ious),
        per_class=per_class,
        cluster_to_class=class_of_K,
        matrix=matrix,
        n_images=n_images,
        context=context,
    )


def _class_score(n_hit: int, n_predicted: int, n_truth: int) -> ClassScore:
    n_union = n_predicted + n_truth - n_hit
    return {
        "iou": n_hit / n_union if n_union else None,
        "recall": n_hit / n_truth if n_truth else None,
        "n_pixels": n_truth,
    }


def _is_best_match(matrix_KC: npt.NDArray[np.integer], class_of_K: npt.NDArray[np.int64]) -> bool:
    best_K = match_clusters(matrix_KC)
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
