"""How far groupings agree, by hand and by brute force; and what most of them say."""

from itertools import permutations

import numpy as np
import pytest
from numpy.typing import NDArray

from contextseg.clustering.agreement import agreement, majority


def test_agreement_by_hand() -> None:
    # {0, 1, 2} {3, 4} against {3} {0, 1, 2, 4}: 3 of 4 points and 1 of 2
    assert agreement(np.array([0, 0, 0, 1, 1]), np.array([1, 1, 1, 0, 1]), 2) == (3 / 4 + 1 / 2) / 2
    assert agreement(np.array([0, 0, 1]), np.array([1, 1, 0]), 2) == 1
    assert agreement(np.array([0, 0, 1]), np.array([1, 1, 0]), 3) == pytest.approx(2 / 3)  # a class without a point


def test_agreement_is_the_best_of_all_matchings(rng: np.random.Generator) -> None:
    first, second = rng.integers(4, size=60), rng.integers(4, size=60)
    iou = [[(a & b).sum() / (a | b).sum() for b in one_hot(second, 4)] for a in one_hot(first, 4)]
    best = max(np.mean([iou[a][b] for a, b in enumerate(order)]) for order in permutations(range(4)))
    assert agreement(first, second, 4) == pytest.approx(best)


def one_hot(labels: NDArray[np.int64], n_classes: int) -> list[NDArray[np.bool_]]:
    return [labels == c for c in range(n_classes)]


def test_each_point_takes_the_class_of_most_groupings() -> None:
    # the same three groups under other names, and one point that each time lies elsewhere; the first two agree best
    groupings = np.array([[0, 0, 1, 1, 2, 2, 2], [1, 1, 0, 0, 2, 2, 2], [2, 2, 0, 0, 1, 1, 2]])
    assert majority(groupings, 3).tolist() == [0, 0, 1, 1, 2, 2, 2]


def test_a_vote_undoes_what_single_groupings_mistake(rng: np.random.Generator) -> None:
    truth = np.repeat(np.arange(4), 25)
    groupings = []
    for start in range(5):  # each is wrong about 20 points of its own, and numbers the classes as it likes
        wrong = truth.copy()
        wrong[start::5] = rng.integers(4, size=20)
        groupings.append(rng.permutation(4)[wrong])
    assert agreement(majority(np.stack(groupings), 4), truth, 4) == 1
