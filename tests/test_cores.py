"""The cores that torch may use are shared out, and all of them come back."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from contextseg.cores import map_looks, map_on_cores


@pytest.fixture(autouse=True)
def _cores() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


def of_a_new_thread() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(torch.get_num_threads).result()


@pytest.mark.parametrize(
    ("n_cores", "n_threads", "share"), [(1, 1, 1), (4, 4, 1), (8, 8, 1), (12, 6, 2), (16, 8, 2), (17, 5, 3)]
)
def test_no_more_than_eight_threads_share_the_cores(n_cores: int, n_threads: int, share: int) -> None:
    torch.set_num_threads(n_cores)
    together = threading.Barrier(n_threads)

    def one(_: int) -> tuple[int, int]:
        together.wait(timeout=30)  # so that each thread has one
        return threading.get_ident(), torch.get_num_threads()

    threads, shares = zip(*map_on_cores(one, range(n_threads)), strict=True)
    assert len(set(threads)) == n_threads
    assert set(shares) == {share}


def test_two_callers_at_once_leave_all_cores() -> None:
    first = map_on_cores(abs, range(10))
    next(first)

    def second() -> int:
        list(map_on_cores(abs, range(10)))
        return torch.get_num_threads()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(second).result() == 4
    list(first)
    assert of_a_new_thread() == torch.get_num_threads() == 4


def test_the_count_is_that_of_now() -> None:
    list(map_on_cores(abs, range(10)))
    torch.set_num_threads(2)
    list(map_on_cores(abs, range(10)))
    assert of_a_new_thread() == 2


def test_as_many_threads_as_before_where_one_thing_fails() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_on_cores(lambda thing: 1 // thing, [2, 1, 0, 1]))
    assert of_a_new_thread() == torch.get_num_threads() == 4


@pytest.mark.parametrize(("device_type", "caller_looks"), [("cpu", False), ("cuda", True)])
def test_where_it_is_looked_and_finished(device_type: str, caller_looks: bool) -> None:
    """On a CPU in one thread, not the caller's; beside another device in the caller's, and finished in others."""

    def look(thing: int) -> tuple[int, int]:
        return thing, threading.get_ident()

    def finish(seen: tuple[int, int]) -> tuple[int, int, int]:
        return *seen, threading.get_ident()

    found = list(map_looks(look, finish, range(20), device_type))
    assert [thing for thing, *_ in found] == list(range(20))
    for _, looked, finished in found:
        assert finished != threading.get_ident()
        assert (looked == threading.get_ident()) is caller_looks
        assert (looked == finished) is not caller_looks
