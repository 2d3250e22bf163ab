"""Charts and the merge tree, by hand and against SciPy's own drawing."""

import numpy as np
import pytest
from scipy.cluster.hierarchy import dendrogram, linkage

from contextseg.report.charts import BOTTOM, LEFT, RIGHT, TOP, line_chart, merge_tree, step_means


def test_a_line_lies_between_the_axes_with_y_up() -> None:
    chart = line_chart("title", "epoch", [1, 2, 5], {"up": [0, 2, 4], "flat": [1, 1, 1]}, marked=2)
    up, flat = chart.lines
    # x: 1 at the left, 5 at the right, 2 a quarter of the way; y: 0 at the bottom, 4 at the top
    quarter = LEFT + (RIGHT - LEFT) / 4
    assert up.points == [(LEFT, BOTTOM), (quarter, (TOP + BOTTOM) / 2), (RIGHT, TOP)]
    assert {y for _, y in flat.points} == {BOTTOM - (BOTTOM - TOP) / 4}
    assert chart.marked_x == quarter
    assert [tick.text for tick in chart.x_ticks] == ["1", "2", "3", "4", "5"]
    assert [tick.text for tick in chart.y_ticks] == ["0", "1", "2", "3", "4"]
    assert [tick.place for tick in chart.y_ticks] == sorted((tick.place for tick in chart.y_ticks), reverse=True)


def test_a_single_point_and_values_below_zero() -> None:
    chart = line_chart("title", "epoch", [1], {"loss": [-2.5]})
    ((x, y),) = chart.lines[0].points
    assert (x, TOP < y < BOTTOM) == ((LEFT + RIGHT) / 2, True)


def test_step_means_by_hand() -> None:
    # 161 steps do not fit into 160 points, so they are taken by twos; the last one is alone
    n_steps, middles, means = step_means([float(i % 2) for i in range(161)])
    assert (n_steps, len(means)) == (2, 81)
    assert (middles[0], middles[1], middles[-1]) == (0.5, 2.5, 160)
    assert (means[0], means[-1]) == (0.5, 0)


def test_the_tree_by_hand() -> None:
    # cosine distances: 0 and 2 coincide (0), 1 lies at 1 from both
    tree = merge_tree(np.array([[1, 0], [0, 1], [2, 0]], np.float32), "cosine")
    assert sorted(tree.leaves) == [0, 1, 2]
    assert abs(tree.leaves.index(0) - tree.leaves.index(2)) == 1
    first, last = tree.branches
    assert [x for x, _ in first] == [0, 0, 0, 0]
    assert [x for x, _ in last][1:3] == [1, 1]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_the_tree_is_that_of_scipy(rng: np.random.Generator, metric: str) -> None:
    centers = rng.normal(size=(9, 4))
    tree = merge_tree(centers, metric)
    merges = linkage(centers, "average", metric)
    drawn = dendrogram(merges, no_plot=True)
    assert tree.leaves == drawn["leaves"]
    # SciPy's leaves lie at 5, 15, ...; its distances are not scaled
    theirs = sorted(
        [(x / merges[-1, 2], y / 10) for x, y in zip(*corners, strict=True)]
        for corners in zip(drawn["dcoord"], drawn["icoord"], strict=True)
    )
    np.testing.assert_allclose(sorted(tree.branches), theirs)
    assert all(0 <= tick.place <= 1 for tick in tree.ticks)


def test_equal_centres_make_a_tree_of_no_width() -> None:
    tree = merge_tree(np.ones((3, 2)), "euclidean")
    assert {x for branch in tree.branches for x, _ in branch} == {0}
