"""k-means over the points of two processes is that of one process which has them all, however they are cut."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from two_processes import both

from contextseg.clustering.kmeans import KMeans
from contextseg.collectives import gather_rows, gather_stream, rank
from contextseg.errors import TrainingError
from contextseg.training.processes import start_fabric

# For each batch of the stream, how many points each process has of it.
EVEN = [(300, 300)]
UNEVEN = [(37, 563)]
ALL_IN_THE_SECOND = [(0, 600)]
BATCHES = [(80, 20), (0, 100), (33, 67), (50, 50), (199, 1)]


def directions(n: int = 600, dim: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    blobs = torch.randn(9, dim, generator=generator).repeat(-(-n // 9), 1)[:n]
    return F.normalize(blobs + 0.7 * torch.randn(n, dim, generator=generator), dim=1)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)[:, None]


def of_one(points: Tensor, sizes: list[tuple[int, int]]) -> list[Tensor]:
    """Return the batches of one process that has all the points."""
    return list(points.split([sum(of_batch) for of_batch in sizes]))


def of_two(points: Tensor, sizes: list[tuple[int, int]]) -> list[list[Tensor]]:
    """Return the batches of each of two processes."""
    parts = points.split([n for of_batch in sizes for n in of_batch])
    return [list(parts[0::2]), list(parts[1::2])]


def fitted(stream: list[list[Tensor]], options: dict[str, Any]) -> tuple[Tensor, Tensor, float, int]:
    start_fabric("cpu")
    kmeans = KMeans(**options).fit(gather_rows(part) for part in stream[rank()])
    return kmeans.centers_, kmeans.counts_, kmeans.inertia_, kmeans.n_iter_


@pytest.mark.parametrize("sizes", [EVEN, UNEVEN, ALL_IN_THE_SECOND, BATCHES])
@pytest.mark.parametrize(
    "options", [{"seed": 3}, {"spherical": False, "n_restarts": 1}, {"max_points": 130}], ids=["unit", "free", "stream"]
)
def test_the_same_with_one_and_with_two(options: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    points, options = directions(), {"n_clusters": 7, **options}
    one = KMeans(**options).fit(of_one(points, sizes))
    for centers, counts, inertia, n_iter in both(fitted, of_two(points, sizes), options):
        assert torch.equal(centers, one.centers_)  # the very same points in the same order: no tolerance
        assert torch.equal(counts, one.counts_)
        assert (inertia, n_iter) == (one.inertia_, one.n_iter_)


class FromStart(KMeans):
    """Begins from given centres instead of a draw."""

    def __init__(self, start: Tensor) -> None:
        super().__init__(len(start), spherical=False, n_restarts=1, max_iter=1)
        self._start = start

    def _plus_plus(self, points: Tensor, restart: int) -> Tensor:
        return self._start


def from_start(streams: list[list[list[Tensor]]], start: Tensor) -> list[tuple[list[float], list[int], float]]:
    start_fabric("cpu")
    fits = [FromStart(start).fit(gather_rows(part) for part in of_each[rank()]) for of_each in streams]
    return [(fit.centers_[:, 0].tolist(), fit.counts_.tolist(), fit.inertia_) for fit in fits]


def test_an_empty_cluster_goes_to_the_farthest_point_of_both() -> None:
    # All four points are nearest to the centre 1; 100 has none. The farthest is 10 (distance 9), in whichever process
    # it lies, so the centres become the mean of all, 13 / 4 = 3.25, and 10. Then 0, 1, 2 -> 3.25 and 10 -> 10:
    # 3.25^2 + 2.25^2 + 1.25^2 + 0 = 10.5625 + 5.0625 + 1.5625 = 17.1875.
    streams = [of_two(column(0, 1, 2, 10), [(n_first, 4 - n_first)]) for n_first in range(5)]
    assert both(from_start, streams, column(1, 100)) == [[([3.25, 10.0], [3, 1], 17.1875)] * 5] * 2


def test_an_error_of_one_is_raised_in_both() -> None:
    for points, message in ((torch.eye(4), "4 points cannot make 5 clusters"), (torch.eye(6) / 0, "not finite")):
        for error in both(fitted, of_two(points, [(1, len(points) - 1)]), {"n_clusters": 5}):
            assert isinstance(error, TrainingError)
            assert message in str(error)


def streamed(streams: list[list[Tensor]]) -> list[list[float]]:
    start_fabric("cpu")
    return [part[:, 0].tolist() for part in gather_stream(iter(streams[rank()]))]


def test_streams_of_other_lengths_are_joined_in_rounds() -> None:
    first, second = [column(0, 1), column(5), column(6)], [column(2, 3, 4)]
    for streams, expected in (
        ([first, second], [[0, 1, 2, 3, 4], [5], [6]]),
        ([second, first], [[2, 3, 4, 0, 1], [5], [6]]),
        ([[], second], [[2, 3, 4]]),
        ([[], []], []),
    ):
        assert both(streamed, streams) == [expected] * 2
