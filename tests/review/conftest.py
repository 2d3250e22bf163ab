"""A run under review."""

from collections.abc import Callable
from pathlib import Path

import pytest
from reviewed_run import MASKS, write_case
from rich.console import Console

from contextseg.review.serve import open_review
from contextseg.review.session import Review


@pytest.fixture
def case(tmp_path: Path) -> tuple[Path, Path]:
    return write_case(tmp_path, MASKS)


@pytest.fixture
def reopen(case: tuple[Path, Path]) -> Callable[[], Review]:
    """Open the review as a new start of the program does."""
    return lambda: open_review(*case, console=Console(quiet=True))
