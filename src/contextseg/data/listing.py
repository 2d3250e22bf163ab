"""What people read of the data sets: the list of them, and what a check has found."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contextseg.data.check import CheckedSplit
from contextseg.data.data_set import DataSet
from contextseg.data.labelled import DATA_SETS


def print_data_sets(console: Console) -> None:
    """Print a table of the data sets; below it where they come from, and how their folders must look."""
    table = Table("name", "classes", "images")
    names_of: dict[tuple[str, str], list[str]] = {}
    for name, data_set in DATA_SETS.items():
        counts = (f"{split} {n_images:,}" for split, n_images in data_set.n_published.items())
        table.add_row(name, _n_classes(data_set), ", ".join(counts))
        names_of.setdefault((data_set.source, data_set.tree), []).append(name)
    console.print(table)
    for (source, tree), names in names_of.items():
        console.print(f"\n[bold]{', '.join(names)}[/]: {source}\n{tree}", highlight=False, soft_wrap=True)


def print_checked(console: Console, checked: list[CheckedSplit]) -> None:
    """Print what a check has found: a row for each split, and below a line for each fault."""
    table = Table("split", "images", "published", "found")
    for one in checked:
        n_published = "" if one.n_published is None else f"{one.n_published:,}"
        found = Text(f"faults: {len(one.faults)}", "red") if one.faults else Text("nothing wrong", "green")
        table.add_row(one.name, f"{one.n_images:,}", n_published, found)
    console.print(table)
    for one in checked:
        for fault in one.faults:
            console.print(Text(f"{one.name}: {fault}"), soft_wrap=True)


def _n_classes(data_set: DataSet) -> str:
    return "classes.txt" if callable(data_set.code) else str(data_set.code.space.n_classes)
