import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from contextseg.errors import DataError
from contextseg.evaluation.boundaries import BOUNDARY_TOLERANCE, BoundaryCounts


def slow_boundary(ids, labels):
    """The boundary pixels as {(y, x): id}, pixel by pixel."""
    height, width = ids.shape
    found = {}
    for y in range(height):
        for x in range(width):
            for beside_y, beside_x in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if not (0 <= beside_y < height and 0 <= beside_x < width):
                    continue
                if labels[y, x] == 255 or labels[beside_y, beside_x] == 255:
                    continue
                if ids[y, x] != ids[beside_y, beside_x]:
                    found[y, x] = int(ids[y, x])
    return found


def slow_f(images, cluster, label, tolerance):
    """F of a class that one cluster stands for, over images, pair by pair of pixels."""
    n_predicted = n_true = n_right = n_found = 0
    for clusters, labels in images:
        within = (tolerance * math.hypot(*labels.shape)) ** 2
        predicted = [place for place, k in slow_boundary(clusters, labels).items() if k == cluster]
        true = [place for place, c in slow_boundary(labels, labels).items() if c == label]

        def near(place, others, within=within):
            return any((place[0] - y) ** 2 + (place[1] - x) ** 2 <= within for y, x in others)

        n_predicted, n_true = n_predicted + len(predicted), n_true + len(true)
        n_right += sum(near(place, true) for place in predicted)
        n_found += sum(near(place, predicted) for place in true)
    if n_predicted + n_true == 0:
        return None
    if not n_right or not n_found:
        return 0.0
    precision, recall = n_right / n_predicted, n_found / n_true
    return 2 / (1 / precision + 1 / recall)


def counted(images, n_clusters, n_classes, tolerance):
    counts = BoundaryCounts(n_clusters, n_classes, tolerance)
    for clusters, labels in images:
        counts.update(clusters, labels)
    return counts


@st.composite
def labelled_images(draw):
    n_clusters, n_classes = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    shapes = draw(st.lists(st.tuples(st.integers(1, 7), st.integers(1, 9)), min_size=1, max_size=2))
    some_label = st.sampled_from([*range(n_classes), 255])
    images = [
        (
            draw(arrays(np.uint8, shape, elements=st.integers(0, n_clusters - 1))),
            draw(arrays(np.uint8, shape, elements=some_label)),
        )
        for shape in shapes
    ]
    return n_clusters, n_classes, images


@settings(max_examples=80, deadline=None)
@given(labelled_images(), st.sampled_from([0.05, 0.15, 0.3]))
def test_agrees_with_a_loop_over_pairs_of_pixels(maps, tolerance):
    n_clusters, n_classes, images = maps
    counts = counted(images, n_clusters, n_classes, tolerance)
    for cluster in range(n_clusters):
        class_of_K = np.full(n_clusters, -1)
        for label in range(n_classes):
            class_of_K[cluster] = label
            assert counts.f_scores(class_of_K)[label] == pytest.approx(slow_f(images, cluster, label, tolerance))


def test_more_ids_than_bits_of_a_byte_and_a_wide_disk():
    rng = np.random.default_rng(0)
    coarse = [rng.integers(0, n, (4, 6), dtype=np.uint8) for n in (20, 11)]
    clusters, labels = (np.kron(ids, np.ones((8, 7), np.uint8)) for ids in coarse)
    labels = np.roll(labels, (3, 2), (0, 1))  # so that pixels of the two are at all distances
    counts = counted([(clusters, labels)], 20, 11, 0.1)
    predicted, true = (slow_boundary(ids, labels) for ids in (clusters, labels))
    near = cdist(list(predicted), list(true)) <= 0.1 * math.hypot(32, 42)  # 5.3 pixels
    for ids, others, is_near, found in (
        (predicted, true, near, counts.predicted_near_KC),
        (true, predicted, near.T, counts.true_near_KC.T),
    ):
        kinds = np.array(list(others.values()))
        expected = np.zeros_like(found)
        for one, is_near_one in zip(ids.values(), is_near, strict=True):
            expected[one, np.unique(kinds[is_near_one])] += 1
        assert np.array_equal(found, expected)
    for cluster, label in ((0, 0), (8, 3), (19, 10)):
        class_of_K = np.full(20, -1)
        class_of_K[cluster] = label
        assert counts.f_scores(class_of_K)[label] == pytest.approx(slow_f([(clusters, labels)], cluster, label, 0.1))


def test_by_hand():
    #   clusters 0 0 1 1 1 1     boundary of 0: column 1, of 1: column 2; two rows each
    #   labels   0 0 0 0 1 1     boundary of 0: column 3, of 1: column 4
    clusters, labels = np.array([[0, 0, 1, 1, 1, 1]] * 2), np.array([[0, 0, 0, 0, 1, 1]] * 2)
    diagonal = math.hypot(2, 6)
    for distance, f in ((1.9, 0.0), (2.0, 1.0)):  # every boundary lies 2 pixels beside its own
        counts = counted([(clusters, labels)], 2, 2, distance / diagonal + 1e-9)
        assert counts.predicted_K.tolist() == counts.true_C.tolist() == [2, 2]
        assert counts.f_scores(np.array([0, 1])) == [f, f]
    assert counts.f_scores(np.array([1, 0])) == [
        1.0,
        0.0,
    ]  # cluster 1 is 1 beside class 0, cluster 0 is 3 beside class 1


def test_precision_and_recall_by_hand():
    # cluster 0 is a stripe in column 0 and one in column 9; class 0 is the stripe in column 0 alone
    clusters, labels = np.ones((3, 10), np.uint8), np.ones((3, 10), np.uint8)
    clusters[:, [0, 9]] = labels[:, 0] = 0
    counts = counted([(clusters, labels)], 2, 2, 0.01)
    # class 0: 3 of 6 predicted pixels are right, 3 of 3 true ones found: 2 * .5 * 1 / 1.5; class 1 likewise
    assert counts.f_scores(np.array([0, 1])) == pytest.approx([2 / 3, 2 / 3])
    assert counts.f_scores(np.array([0, -1])) == pytest.approx([2 / 3, 0.0])  # no cluster: nothing is found


def test_the_tolerance_is_a_fraction_of_the_diagonal():
    # 480 x 640: 0.0075 * 800 = 6 pixels
    assert BOUNDARY_TOLERANCE * math.hypot(480, 640) == 6
    labels = np.zeros((480, 640), np.uint8)
    labels[:, 300:] = 1
    for shift, f in ((6, 1.0), (7, 0.0)):
        counts = counted([(np.roll(labels, shift, axis=1)[:, 20:], labels[:, 20:])], 2, 2, 6 / math.hypot(480, 620))
        assert counts.f_scores(np.array([0, 1])) == [f, f]


def test_a_class_without_any_boundary_has_no_score():
    counts = counted([(np.zeros((4, 5), int), np.zeros((4, 5), int))], 1, 2, 0.1)
    assert counts.f_scores(np.array([0])) == [None, None]


def test_ignored_pixels_have_no_boundary_and_make_none():
    labels = np.array([[0, 0, 255, 1, 1]] * 3)
    clusters = np.array([[0, 0, 1, 1, 1]] * 3)
    counts = counted([(clusters, labels)], 2, 2, 0.5)
    assert counts.predicted_K.tolist() == counts.true_C.tolist() == [0, 0]


def test_counts_read_back_and_parts_merge_to_the_whole():
    rng = np.random.default_rng(3)
    images = [(rng.integers(0, 4, (6, 9)), rng.choice([0, 1, 2, 255], (6, 9))) for _ in range(4)]
    whole, first, second = (counted(part, 4, 3, 0.1) for part in (images, images[:1], images[1:]))
    first += second
    assert first.to_dict() == whole.to_dict()
    assert BoundaryCounts.from_dict(json.loads(json.dumps(whole.to_dict()))).to_dict() == whole.to_dict()
    with pytest.raises(DataError, match=r"got \(4, 3\), 0\.2 for \(4, 3\), 0\.1"):
        first += BoundaryCounts(4, 3, 0.2)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("predicted", [1.5, 2], r"`predicted` must be integers >= 0 of the shape \(2,\)"),
        ("true", [-1], "`true` must be integers"),
        ("true_near", [[1], [2], [3]], r"`true_near` must be .*\(2, 1\)"),
        ("predicted_near", [[3], [99]], "more boundary pixels are near than there are"),
    ],
)
def test_malformed_counts(key, value, message):
    good = {"tolerance": 0.1, "predicted": [4, 5], "true": [6], "predicted_near": [[3], [0]], "true_near": [[2], [0]]}
    BoundaryCounts.from_dict(good)
    with pytest.raises(ValueError, match=message):
        BoundaryCounts.from_dict({**good, key: value})


def test_a_wrong_map_is_named_and_not_counted():
    counts = BoundaryCounts(2, 2)
    with pytest.raises(DataError, match="label 2 is out of range"):
        counts.update(np.array([[0, 1]]), np.array([[0, 2]]))
    assert counts.predicted_K.sum() == 0
