"""Progress of long work: what is done, the rate in images/s, the time left, and what was left out."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

Advance = Callable[[int], None]


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f} images/s", style="progress.data.speed")


@contextmanager
def progress(console: Console, title: str, n_images: int, done: int = 0) -> Iterator[Advance]:
    """Show a bar while the body runs; the body calls what it is given with the number of images just done."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=n_images, completed=done)
        yield lambda n: bar.advance(task, n)


def tell(console: Console, message: str, label: str = "", style: str = "yellow") -> None:
    """Print a line as it is, after a label in a style: names of files may look like Rich's markup, such as a[b].jpg."""
    console.print(Text.assemble((label, style), message), soft_wrap=True)


def tell_left_out(console: Console, left_out: Iterable[tuple[str, str]]) -> None:
    """Name images that cannot be used, and why, a line each."""
    for file, reason in left_out:
        tell(console, f" {file}: {reason}", "left out")
