"""Damaged copies of a file, as a strategy, and what may come of them: it is used, or refused by one error, and soon.

The suite looks at a few inputs of each kind; `make fuzz` at as many as CONTEXTSEG_INPUTS says.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from contextseg.errors import ContextsegError

# Inputs take milliseconds, so one that takes longer than the deadline hangs. A test writes its inputs over one another,
# so that they may share its fixtures.
inputs = settings(
    max_examples=int(os.environ.get("CONTEXTSEG_INPUTS", "30")),
    deadline=timedelta(seconds=30),
    suppress_health_check=list(HealthCheck),
)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """Return the bytes of a file with some overwritten, and perhaps some cut out, doubled or missing at the end."""
    content = bytearray(whole)
    place = st.integers(0, len(whole) - 1)
    for start, values in draw(st.lists(st.tuples(place, st.binary(min_size=1, max_size=4)), max_size=6)):
        content[start : start + len(values)] = values
    start, end = sorted((draw(place), draw(place)))
    match draw(st.sampled_from(["keep", "keep", "cut", "double", "truncate"])):
        case "cut":
            del content[start:end]
        case "double":
            content[end:end] = content[start:end]
        case "truncate":
            del content[end:]
    return bytes(content)


@contextmanager
def damaged_file(path: Path, whole: bytes, data: st.DataObject) -> Iterator[None]:
    """The body uses or refuses a file that is damaged; after it the file is whole again, for the next input."""
    path.write_bytes(data.draw(damaged(whole)))
    with used_or_refused(path):
        yield
    path.write_bytes(whole)


@contextmanager
def used_or_refused(path: Path) -> Iterator[None]:
    """The body goes well, or raises an error of contextseg that names the file."""
    try:
        yield
    except ContextsegError as error:
        if str(path) not in str(error):
            raise AssertionError(f"does not name {path}: {error}") from error
