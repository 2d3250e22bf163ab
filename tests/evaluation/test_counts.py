import numpy as np
import pytest

from contextseg.errors import DataError
from contextseg.evaluation.counts import ConfusionCounts


def slow_counts(clusters_HW, labels_HW, n_clusters, n_classes):
    matrix = [[0] * n_classes for _ in range(n_clusters)]
    for cluster, label in zip(clusters_HW.ravel().tolist(), labels_HW.ravel().tolist(), strict=True):
        if label != 255:
            matrix[cluster][label] += 1
    return matrix


def test_counts_by_hand():
    counts = ConfusionCounts(n_clusters=3, n_classes=2)
    # pairs (cluster, label): (0,0) (0,1) (2,1) | (2,1) (1,ignored) (0,0)
    counts.update(np.array([[0, 0, 2], [2, 1, 0]]), np.array([[0, 1, 1], [1, 255, 0]]))
    assert counts.matrix_.tolist() == [[2, 1], [0, 0], [0, 2]]
    assert counts.matrix_.dtype == np.int64
    assert counts.n_images_ == 1


def test_agrees_with_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    counts = ConfusionCounts(n_clusters=7, n_classes=4)
    expected = np.zeros((7, 4), dtype=int)
    for shape in ((5, 9), (8, 3)):
        clusters = rng.integers(0, 7, shape)
        labels = rng.choice([0, 1, 2, 3, 255], shape)
        counts.update(clusters, labels)
        expected += slow_counts(clusters, labels, 7, 4)
    np.testing.assert_array_equal(counts.matrix_, expected)


def test_small_integer_types_do_not_wrap_around():
    # The index of the pair, 200 * 100 + 99, does not fit uint8.
    counts = ConfusionCounts(n_clusters=201, n_classes=100)
    counts.update(np.full((2, 3), 200, np.uint8), np.full((2, 3), 99, np.uint8))
    assert counts.matrix_[200, 99] == 6
    assert counts.matrix_.sum() == 6


def test_counts_grow_past_2_to_the_24():
    counts = ConfusionCounts(n_clusters=1, n_classes=1)
    image = np.zeros((1024, 1024), np.uint8)
    for _ in range(16):
        counts.update(image, image)
    counts.update(image[:1, :1], image[:1, :1])
    # 16 * 2^20 = 2^24 pixels, then one more, which float32 would lose: float32(2^24) + 1 == 2^24.
    assert counts.matrix_[0, 0] == 2**24 + 1


def test_parts_merge_to_the_whole():
    rng = np.random.default_rng(1)
    images = [(rng.integers(0, 5, (4, 6)), rng.choice([0, 1, 2, 255], (4, 6))) for _ in range(5)]
    whole, first, second = (ConfusionCounts(5, 3) for _ in range(3))
    for image in images:
        whole.update(*image)
    for image in images[:2]:
        first.update(*image)
    for image in images[2:]:
        second.update(*image)
    first += second
    np.testing.assert_array_equal(first.matrix_, whole.matrix_)
    assert first.n_images_ == whole.n_images_ == 5


def test_an_image_without_labels_counts_nothing():
    counts = ConfusionCounts(2, 2)
    counts.update(np.zeros((2, 3), int), np.full((2, 3), 255))
    assert counts.matrix_.sum() == 0


@pytest.mark.parametrize(
    ("clusters", "labels", "message"),
    [
        (np.zeros((2, 3), int), np.zeros((3, 2), int), r"one shape.*got \(2, 3\) and \(3, 2\)"),
        (np.zeros(6, int), np.zeros(6, int), r"\(H, W\); got \(6,\)"),
        (np.zeros((2, 3)), np.zeros((2, 3), int), "cluster ids must be integers.*got float64"),
        (np.zeros((2, 3), int), np.zeros((2, 3), bool), "labels must be integers.*got bool"),
        (np.array([[0, 3]]), np.array([[0, 0]]), r"cluster id 3 is out of range: expected 0\.\.2"),
        (np.array([[0, 3]]), np.array([[0, 255]]), "cluster id 3 is out of range"),
        (np.array([[-1, 1]]), np.array([[0, 0]]), r"cluster id -1 .*holds -1\.\.1"),
        (np.array([[0, 1]]), np.array([[0, 2]]), r"label 2 is out of range: expected 0\.\.1, or 255"),
        (np.array([[0, 1]]), np.array([[-1, 0]]), "label -1 is out of range"),
    ],
)
def test_a_wrong_map_is_named_and_not_counted(clusters, labels, message):
    counts = ConfusionCounts(n_clusters=3, n_classes=2)
    with pytest.raises(DataError, match=message):
        counts.update(clusters, labels)
    assert counts.matrix_.sum() == 0
    assert counts.n_images_ == 0


def test_wrong_numbers_of_clusters_or_classes():
    with pytest.raises(DataError, match="n_clusters must be at least 1, such as 27; got 0"):
        ConfusionCounts(0, 3)
    with pytest.raises(DataError, match=r"n_classes must lie in 1\.\.255.*got 256"):
        ConfusionCounts(3, 256)
    assert ConfusionCounts(1, 255).matrix_.shape == (1, 255)
    with pytest.raises(DataError, match=r"got \(2, 3\) for \(3, 2\)"):
        ConfusionCounts(3, 2).merge(ConfusionCounts(2, 3))
