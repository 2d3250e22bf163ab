"""Geometry of the page's charts; the template draws it.

A chart is `WIDTH` x `HEIGHT` units, y down. Shape suffixes: K clusters, D dimensions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from scipy.cluster.hierarchy import leaves_list, linkage

WIDTH, HEIGHT = 380, 210
LEFT, RIGHT, TOP, BOTTOM = 46, 370, 12, 176
"""Where the axes lie."""
_MAX_POINTS = 160
_FEW = 40  # up to so many points are marked each by a dot


@dataclass(frozen=True)
class Tick:
    """A mark on an axis: where, and what it says."""

    place: float
    text: str


@dataclass(frozen=True)
class Line:
    """A line of a chart: its name, its points, and whether each is marked."""

    name: str
    points: list[tuple[float, float]]
    dots: bool


@dataclass(frozen=True)
class Chart:
    """Lines over one x axis."""

    title: str
    x_title: str
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marked_x: float | None


def line_chart(
    title: str,
    x_title: str,
    xs: Sequence[float],
    ys: Mapping[str, Sequence[float]],
    *,
    whole_x: bool = True,
    marked: float | None = None,
) -> Chart:
    """Lay out lines over the same xs; the y axis starts at 0 unless a value is below it.

    Args:
        title: what is shown.
        x_title: of the x axis.
        xs: ascending, at least one.
        ys: name of a line -> its values.
        whole_x: marks on the x axis stand at whole numbers.
        marked: an x at which an upright line is drawn.
    """
    x_ticks = _ticks(min(xs), max(xs), 6, integer=whole_x)
    every_y = [y for values in ys.values() for y in values]
    y_ticks = _ticks(min(0.0, *every_y), max(every_y), 4)
    x_range, y_range = (min(xs), max(xs)), (y_ticks[0], y_ticks[-1])

    def x_at(x: float) -> float:
        return round(LEFT + (RIGHT - LEFT) * _fraction(x, x_range), 1)

    def y_at(y: float) -> float:
        return round(BOTTOM - (BOTTOM - TOP) * _fraction(y, y_range), 1)

    return Chart(
        title,
        x_title,
        [
            Line(name, [(x_at(x), y_at(y)) for x, y in zip(xs, values, strict=True)], len(xs) <= _FEW)
            for name, values in ys.items()
        ],
        [Tick(x_at(x), f"{x:g}") for x in x_ticks if x_range[0] <= x <= x_range[1]],
        [Tick(y_at(y), f"{y:g}") for y in y_ticks if y_range[0] <= y <= y_range[1]],
        None if marked is None else x_at(marked),
    )


def step_means(values: Sequence[float]) -> tuple[int, list[float], list[float]]:
    """Smooth a long series: means over equally many steps, so that at most `_MAX_POINTS` remain.

    Returns:
        How many steps a mean is over, the middle step of each mean, and the means.

    >>> step_means([1.0, 2.0, 6.0])
    (1, [0.0, 1.0, 2.0], [1.0, 2.0, 6.0])
    """
    n_steps = -(-len(values) // _MAX_POINTS)
    chunks = [values[start : start + n_steps] for start in range(0, len(values), n_steps)]
    middles = [index * n_steps + (len(chunk) - 1) / 2 for index, chunk in enumerate(chunks)]
    return n_steps, middles, [sum(chunk) / len(chunk) for chunk in chunks]


@dataclass(frozen=True)
class Tree:
    """How clusters merge: leaf i lies at (0, i + 0.5) of a box of width 1 and height K.

    Attributes:
        leaves: the cluster of each leaf, from the top.
        branches: for each merge the x and y of its four corners: from one part up to the merge, over, and back.
        ticks: distances along the width.
    """

    leaves: list[int]
    branches: list[list[tuple[float, float]]]
    ticks: list[Tick]


def merge_tree(centers_KD: NDArray[np.floating[Any]], metric: str) -> Tree:
    """Lay out the average linkage of at least two centres.

    Args:
        centers_KD: a centre a row.
        metric: "cosine" or "euclidean".
    """
    merges = linkage(centers_KD.astype(np.float64), "average", metric)
    leaves = leaves_list(merges).tolist()
    widest = float(merges[-1, 2]) or 1.0
    place = {leaf: (0.0, row + 0.5) for row, leaf in enumerate(leaves)}
    branches = []
    for number, (first, second, distance, _) in enumerate(merges.tolist(), start=len(leaves)):
        (x_first, y_first), (x_second, y_second), x = place[int(first)], place[int(second)], distance / widest
        branches.append([(x_first, y_first), (x, y_first), (x, y_second), (x_second, y_second)])
        place[number] = (x, (y_first + y_second) / 2)
    ticks = [Tick(distance / widest, f"{distance:g}") for distance in _ticks(0, widest, 4) if distance <= widest]
    return Tree(leaves, branches, ticks)


def _ticks(low: float, high: float, n: int, *, integer: bool = False) -> list[float]:
    return [float(tick) for tick in MaxNLocator(n, integer=integer).tick_values(low, high)]


def _fraction(value: float, limits: tuple[float, float]) -> float:
    low, high = limits
    return (value - low) / (high - low) if high > low else 0.5
