"""The verbs on the classes of a finished run: `name`, `merge` and `hide`; the network is not touched."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from contextseg.classes import Classes
from contextseg.errors import ClassesError
from contextseg.run_folder import RunFolder


def name(run: str | Path, names: Mapping[int, str]) -> Classes:
    """Give names to classes, such as ``name(run, {3: "sky", 7: "road"})``.

    Args:
        run: the run folder.
        names: class id -> name; with none, nothing is written.

    Returns:
        The classes as they are now.

    Raises:
        RunError: the folder holds no run.
        ClassesError: there is no such class, or the name cannot be used.
    """
    return _write(run, _read(run).rename(names)) if names else _read(run)


def merge(run: str | Path, into: int, others: Sequence[int], *, undo: bool = False) -> Classes:
    """Make other classes part of one: in every mask written from now on their pixels have its id.

    Args:
        run: the run folder.
        into: id of the class that stays.
        others: ids of the classes that become part of it.
        undo: take exactly this merge back.

    Returns:
        The classes as they are now.

    Raises:
        RunError: the folder holds no run.
        ClassesError: there is no such class, the merges would go round in a circle, or there is nothing to undo.
    """
    return _write(run, _read(run).merge(into, others, undo=undo))


def hide(run: str | Path, ids: Sequence[int], *, undo: bool = False) -> Classes:
    """Make classes background: in every mask written from now on their pixels have no class.

    Args:
        run: the run folder.
        ids: of the classes.
        undo: show them again.

    Returns:
        The classes as they are now.

    Raises:
        RunError: the folder holds no run.
        ClassesError: there is no such class, or it is part of another one.
    """
    classes = _read(run)
    changed = classes.hide(ids, undo=undo)  # refuses ids that there are not
    for i in () if undo else ids:
        if (into := classes.entries[i].merged_into) is not None:
            raise ClassesError(f"class {i} is part of class {into}, shown with it; hide that one, or undo the merge")
    return _write(run, changed)


def classes_table(classes: Classes) -> Table:
    """Return the classes as a table for the screen, each with its colour."""
    table = Table("id", "", "name", "state")
    for entry in classes.entries:
        red, green, blue = entry.colour
        state = "hidden" if entry.hidden else ""
        if entry.merged_into is not None:
            state = f"part of {entry.merged_into}"
        swatch = Text("  ", style=f"on rgb({red},{green},{blue})")
        table.add_row(str(entry.id), swatch, Text(entry.name), state)  # not str: "[red]" would be read as markup
    return table


def _read(run: str | Path) -> Classes:
    folder = RunFolder.open(Path(run))
    return Classes.read(folder.classes, folder.settings().n_classes)


def _write(run: str | Path, classes: Classes) -> Classes:
    classes.write(RunFolder.open(Path(run)).classes)
    return classes
