"""Regions and corrections of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from contextseg.review.actions import Correct
from contextseg.review.corrections import corrected, region

# 0 0 1 2
# 3 0 0 1
MAP = np.array([[0, 0, 1, 2], [3, 0, 0, 1]], np.uint8)


def flood(clusters: np.ndarray, point: tuple[int, int], members: set[int]) -> set[tuple[int, int]]:
    """Walk from pixel to pixel: slow and obvious."""
    height, width = clusters.shape
    found: set[tuple[int, int]] = set()
    waiting = [point]
    while waiting:
        x, y = waiting.pop()
        if 0 <= x < width and 0 <= y < height and (x, y) not in found and clusters[y, x] in members:
            found.add((x, y))
            waiting += [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)]
    return found


@pytest.mark.parametrize(
    ("point", "members", "expected"),
    [
        ((2, 0), {1}, [[0, 0, 1, 0], [0, 0, 0, 0]]),  # the other 1 touches at a corner alone
        ((2, 0), {1, 2}, [[0, 0, 1, 1], [0, 0, 0, 1]]),  # merged with 2 it is reached
        ((1, 1), {0}, [[1, 1, 0, 0], [0, 1, 1, 0]]),
        ((0, 1), {0}, [[0, 0, 0, 0], [0, 0, 0, 0]]),  # a 3
        ((4, 0), {0}, [[0, 0, 0, 0], [0, 0, 0, 0]]),  # outside
        ((-1, 0), {2}, [[0, 0, 0, 0], [0, 0, 0, 0]]),
    ],
)
def test_regions_by_hand(point: tuple[int, int], members: set[int], expected: list[list[int]]) -> None:
    assert region(MAP, point, members).astype(int).tolist() == expected


@given(st.integers(0, 2**32), st.sets(st.integers(0, 3), min_size=1), st.integers(0, 8), st.integers(0, 4))
def test_regions_are_as_a_slow_walk_finds_them(seed: int, members: set[int], x: int, y: int) -> None:
    clusters = np.random.default_rng(seed).integers(0, 4, (5, 9), np.uint8)
    found = {(int(x), int(y)) for y, x in np.argwhere(region(clusters, (x, y), members))}
    assert found == flood(clusters, (x, y), members)


def test_corrections_are_carried_out_in_their_order() -> None:
    first = Correct(image="a", point=(2, 0), members=(1,), to=0)
    # After the first one the pixel (2, 0) is a 0, and so belongs to the region of 0.
    second = Correct(image="a", point=(0, 0), members=(0,), to=300)
    clusters = MAP.astype(np.uint16)
    assert corrected(clusters, [first]).tolist() == [[0, 0, 0, 2], [3, 0, 0, 1]]
    assert corrected(clusters, [first, second]).tolist() == [[300, 300, 300, 2], [3, 300, 300, 1]]
    assert corrected(clusters, [second, first]).tolist() == [[300, 300, 0, 2], [3, 300, 300, 1]]
    assert corrected(clusters, [first, second]).dtype == np.uint16
    assert clusters.tolist() == MAP.tolist()
