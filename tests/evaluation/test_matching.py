from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from contextseg.errors import DataError
from contextseg.evaluation.matching import majority_classes, match_clusters, matched_pixels, own_classes


@st.composite
def count_matrices(draw):
    n_clusters, n_classes = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    # A small range as well as a large one: ties and empty rows are where a matching goes wrong.
    count = st.integers(0, draw(st.sampled_from([2, 10**12])))
    row = st.lists(count, min_size=n_classes, max_size=n_classes)
    return np.array(draw(st.lists(row, min_size=n_clusters, max_size=n_clusters)), dtype=np.int64)


def best_by_trying_all(matrix):
    n_clusters, n_classes = matrix.shape
    if n_clusters > n_classes:
        return best_by_trying_all(matrix.T)
    return max(
        sum(int(matrix[k, c]) for k, c in enumerate(classes)) for classes in permutations(range(n_classes), n_clusters)
    )


@settings(max_examples=150, deadline=None)
@given(count_matrices())
def test_no_permutation_matches_more_pixels(matrix):
    n_clusters, n_classes = matrix.shape
    match = match_clusters(matrix)
    assert match.shape == (n_clusters,)
    assert match.dtype == np.int64
    pairs = [(k, c) for k, c in enumerate(match.tolist()) if c != -1]
    assert len(pairs) == len({c for _, c in pairs}) == min(n_clusters, n_classes)
    assert all(0 <= c < n_classes for _, c in pairs)
    assert sum(int(matrix[k, c]) for k, c in pairs) == best_by_trying_all(matrix)
    assert matched_pixels(matrix, match) == best_by_trying_all(matrix)


@settings(max_examples=80, deadline=None)
@given(count_matrices(), st.randoms(use_true_random=False))
def test_the_order_of_clusters_does_not_change_the_matched_pixels(matrix, random):
    order = list(range(len(matrix)))
    random.shuffle(order)
    shuffled = matrix[order]
    assert matched_pixels(shuffled, match_clusters(shuffled)) == matched_pixels(matrix, match_clusters(matrix))


@pytest.mark.parametrize(
    ("matrix", "expected"),
    [
        # Greedy would take 9 (cluster 0, class 0) and be left with 1: 10. The other pairing has 8 + 7 = 15.
        ([[9, 8], [7, 1]], [1, 0]),
        # The surplus cluster is the first: an index shifted by one would match cluster 0.
        ([[1, 1], [9, 0], [0, 9]], [-1, 0, 1]),
        # The surplus cluster is in the middle.
        ([[9, 0], [1, 1], [0, 9]], [0, -1, 1]),
        # K < C: class 1 stays without a cluster.
        ([[0, 3, 5], [6, 2, 4]], [2, 0]),
    ],
)
def test_by_hand(matrix, expected):
    assert match_clusters(np.array(matrix)).tolist() == expected


def test_equal_counts_give_an_equal_result():
    matrix = np.ones((6, 4), dtype=np.int64)
    assert match_clusters(matrix).tolist() == match_clusters(matrix.copy()).tolist()


@settings(max_examples=60, deadline=None)
@given(count_matrices())
def test_no_other_classes_of_the_clusters_match_more_pixels_than_the_majority(matrix):
    n_clusters, n_classes = matrix.shape
    best = max(
        sum(int(matrix[k, c]) for k, c in enumerate(classes))
        for classes in product(range(n_classes), repeat=n_clusters)
    )
    assert matched_pixels(matrix, majority_classes(matrix)) == best >= matched_pixels(matrix, match_clusters(matrix))


def test_majority_by_hand():
    # 9 > 8 and 6 > 4; a tie goes to the lower class, and an empty cluster to class 0
    assert majority_classes(np.array([[9, 8], [4, 6], [5, 5], [0, 0]])).tolist() == [0, 1, 0, 0]


def test_rows_that_are_classes_need_a_square_matrix():
    assert own_classes(np.array([[0, 7], [9, 0]])).tolist() == [0, 1]
    with pytest.raises(DataError, match=r"a row for each class is expected.*got \(3, 2\)"):
        own_classes(np.ones((3, 2), int))


@pytest.mark.parametrize("match", [match_clusters, majority_classes, own_classes])
@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(4, int), r"shape \(clusters, classes\).*got \(4,\)"),
        (np.zeros((0, 4), int), r"got \(0, 4\)"),
        (np.zeros((2, 2)), "must be integers, such as int64; got float64"),
        (np.array([[1, -2]]), "must be at least 0; got -2"),
    ],
)
def test_a_malformed_matrix(matrix, message, match):
    with pytest.raises(DataError, match=message):
        match(matrix)
