"""What is worked on ahead, when the caller stops early."""

import threading

import pytest

from contextseg.data.threads import map_ahead


@pytest.mark.parametrize(("finish", "expected"), [(False, [0, 1, 2]), (True, [0, 1, 2, 3])])
def test_what_has_not_begun_is_dropped_unless_all_shall_be_finished(finish: bool, expected: list[int]) -> None:
    """Two threads take on four things; once the first is given out, they work on the next two."""
    begun, go_on, done = threading.Barrier(3), threading.Event(), []

    def one(number: int) -> None:
        if number in {1, 2}:
            begun.wait(timeout=30)
            go_on.wait(timeout=30)
        done.append(number)

    found = map_ahead(one, range(100), n_threads=2, finish=finish)
    next(found)
    begun.wait(timeout=30)
    threading.Timer(0.2, go_on.set).start()
    found.close()
    assert sorted(done) == expected
