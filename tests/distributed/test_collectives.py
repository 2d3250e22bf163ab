"""What processes do together, in two of them and alone."""

import os
import signal
from datetime import timedelta

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from two_processes import Two, both

from contextseg import collectives
from contextseg.collectives import (
    all_sum,
    any_of_all,
    first_does,
    follow_first,
    gather,
    gather_rows,
    gather_stream,
    rank,
    share,
    world_size,
)
from contextseg.errors import DataError, ProcessError
from contextseg.training import processes
from contextseg.training.processes import process_errors, start_fabric


def exchanged() -> dict[str, object]:
    start_fabric("cpu")
    own = rank()
    value, following = torch.tensor([[1, 2], [3, 4]])[:, own], torch.full((2, 3), float(own)).T
    follow_first([following])
    return {
        "rank": (own, world_size()),
        "sum": all_sum(value).tolist(),
        "own": value.tolist(),
        "any": [any_of_all(own == 0), any_of_all(own == 1), any_of_all(False)],
        "gather": gather({"rank": own}),
        "rows": gather_rows(torch.arange(4.0)[1 + own :, None]).tolist(),
        "no rows": gather_rows(torch.arange(2)[2 * own :]).tolist(),
        "following": following.tolist(),
        "first": first_does(lambda: f"by {rank()}"),
        "share": [share([5, 6, 7]), share([5]), share([])],
    }


def test_in_two_processes() -> None:
    first, second = both(exchanged)
    assert [first.pop("rank"), second.pop("rank")] == [(0, 2), (1, 2)]
    assert [first.pop("own"), second.pop("own")] == [[1, 3], [2, 4]]  # what is summed is left as it was
    assert [first.pop("share"), second.pop("share")] == [[[5, 6], [5], []], [[7], [], []]]
    assert first == second
    assert first == {
        "sum": [3, 7],
        "any": [True, True, False],
        "gather": [{"rank": 0}, {"rank": 1}],
        "rows": [[1.0], [2.0], [3.0], [2.0], [3.0]],
        "no rows": [0, 1],
        "following": [[0.0, 0.0]] * 3,
        "first": "by 0",
    }


def test_alone_each_gives_back_what_it_is_given() -> None:
    value = torch.randn(3, 2)
    assert (rank(), world_size()) == (0, 1)
    assert all_sum(value) is value
    assert gather_rows(value) is value
    assert gather("a") == ["a"]
    assert list(gather_stream([value])) == [value]
    assert (any_of_all(True), any_of_all(False)) == (True, False)
    assert share([1, 2, 3]) == [1, 2, 3]
    assert first_does(lambda: 7) == 7


@given(st.integers(0, 40), st.integers(1, 9))
def test_shares_are_the_whole_and_differ_by_one_at_most(n_items: int, n_processes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collectives, "world_size", lambda: n_processes)
        shares: list[list[int]] = []
        for number in range(n_processes):
            patch.setattr(collectives, "rank", lambda number=number: number)
            shares.append(list(share(range(n_items))))
    assert [item for own in shares for item in own] == list(range(n_items))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def failing() -> None:
    start_fabric("cpu")

    def work() -> None:
        raise DataError(f"raised in {rank()}")

    first_does(work)


def test_the_error_of_the_first_is_raised_in_all() -> None:
    for error in both(failing):
        assert isinstance(error, DataError)
        assert str(error) == "raised in 0"


@process_errors()
def summed_after(signal_of_second: int, timeout: timedelta) -> Tensor:
    processes.TIMEOUT = timeout
    start_fabric("cpu")
    all_sum(torch.ones(1))
    if rank() == 1:
        os.kill(os.getpid(), signal_of_second)
    return all_sum(torch.ones(1))


@pytest.mark.parametrize(
    ("number", "timeout", "reason"),
    [
        (signal.SIGKILL, processes.TIMEOUT, "Connection"),  # closed or reset: at once
        (signal.SIGSTOP, timedelta(seconds=10), "10000ms"),
    ],
)
def test_a_process_that_is_killed_or_hangs_ends_the_others(number: int, timeout: timedelta, reason: str) -> None:
    two = Two(summed_after, number, timeout)
    error = two.result(0)
    two.processes[1].kill()
    assert isinstance(error, ProcessError)
    assert str(error).startswith("process 0 of 2 (from 0) cannot go on; where another has ended or hangs, the reason")
    assert reason in str(error)


def test_alone_a_runtime_error_is_left_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="of another kind"), process_errors():
        raise RuntimeError("of another kind")
