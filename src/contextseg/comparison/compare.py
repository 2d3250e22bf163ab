"""`compare`: train and evaluate a set of methods under one protocol, and print one honest table."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from contextseg.comparison.rows import Row, collect, run_row
from contextseg.comparison.tables import comma_separated, markdown, plot, screen_table
from contextseg.data.labelled import open_labelled
from contextseg.errors import SettingsError
from contextseg.files import write_atomically
from contextseg.settings import METHOD_SECTIONS, load_settings


def compare(
    data: Path,
    methods: Sequence[str],
    out: Path,
    *,
    n_seeds: int = 3,
    settings: Mapping[str, Any] | None = None,
    split: str | None = None,
    data_set: str | None = None,
    images: Path | None = None,
    console: Console | None = None,
) -> list[Row]:
    """Compare methods on a labelled set: same images, start and schedule for all, last epoch, every seed.

    Runs one after another, seed by seed, so that a comparison that is broken off has whole seeds; the same call goes on
    where it stopped. Training sees the images alone; labels are read after the last epoch.

    Args:
        data: the labelled set.
        methods: names of methods, or YAML files of settings such as ``recipes/picie-as-described.yaml``.
        out: gets a folder for each run, ``table.md``, ``table.csv`` and ``plot.png``.
        n_seeds: runs of each method, with the seeds 0, 1, ...
        settings: nested settings that all rows share; K is the set's number of classes unless they say otherwise.
        split: the split that is scored; all by default.
        data_set: name of the labelled set; by default the first that fits the folder.
        images: the images to train on; those of `data` by default.
        console: where progress and table are shown; nowhere by default.

    Returns:
        The rows, in the order of `methods`.

    Raises:
        SettingsError: a method is unknown, or the shared settings do not fit it.
        DataError: the set cannot be used.
    """
    console = console or Console(quiet=True)
    labelled = open_labelled(data, split, data_set)
    shared = {"n_classes": labelled.space.n_classes, **(settings or {})}
    rows = {row_name(method): merged(shared, _own_settings(method)) for method in methods}
    if len(rows) < len(methods):
        raise SettingsError(f"methods={','.join(methods)}: each row needs a name of its own")
    for seed in range(n_seeds):
        for name, values in rows.items():
            run_row(name, values, seed, images=images or data, labelled=labelled, out=out, split=split, console=console)
        write_tables(collect(out, list(rows), seed + 1), out)  # later seeds may have scores of another split
    found = collect(out, list(rows), n_seeds)
    console.print(screen_table(found, title=str(labelled)))
    return found


def write_tables(rows: Sequence[Row], out: Path) -> None:
    """Write ``table.md``, ``table.csv`` and ``plot.png``."""
    write_atomically(out / "table.md", markdown(rows).encode())
    write_atomically(out / "table.csv", comma_separated(rows).encode())
    plot(rows, out / "plot.png")


def row_name(method: str) -> str:
    """Return the name of a method's row: a recipe is named by its file.

    >>> row_name("picie"), row_name("recipes/picie-as-described.yaml")
    ('picie', 'picie-as-described')
    """
    return Path(method).stem if method.endswith((".yaml", ".yml")) else method


def merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with a row's own laid over those of all rows.

    >>> merged({"seed": 1, "views": {"flip_p": 0.5, "grey_p": 0.2}}, {"views": {"grey_p": 0.0}})
    {'seed': 1, 'views': {'flip_p': 0.5, 'grey_p': 0.0}}
    """
    result = dict(shared)
    for key, value in own.items():
        below = shared.get(key)
        result[key] = merged(below, value) if isinstance(below, Mapping) and isinstance(value, Mapping) else value
    return result


def _own_settings(method: str) -> dict[str, Any]:
    if method.endswith((".yaml", ".yml")):
        return load_settings(Path(method))
    if method not in METHOD_SECTIONS:
        raise SettingsError(
            f"methods: there is no '{method}'; there are {', '.join(sorted(METHOD_SECTIONS))}, "
            "and files of settings that end in .yaml"
        )
    return {"method": method}
