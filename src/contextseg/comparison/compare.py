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
from contextseg.settings import METHOD_SECTIONS, load_settings, make_settings

_NOT_OF_ALL_ROWS = {
    "seed": "each row is run with the seeds 0, 1, ..; --seeds says how many",
    "method": "it is what tells rows apart; --methods names them",
}


def compare(
    data: str | Path,
    methods: Sequence[str],
    out: str | Path,
    *,
    n_seeds: int = 3,
    settings: Mapping[str, Any] | None = None,
    split: str | None = None,
    data_set: str | None = None,
    images: str | Path | None = None,
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
        settings: nested settings of all rows, laid over what files say; K is the set's number of classes unless either
            says otherwise.
        split: the split that is scored; all by default.
        data_set: name of the labelled set; by default the first that fits the folder.
        images: the images to train on; those of `data` by default.
        console: where progress and table are shown; nowhere by default.

    Returns:
        The rows, in the order of `methods`.

    Raises:
        SettingsError: a method is unknown, or `settings` do not fit it, or name a seed or a method; none is run then.
        DataError: the set cannot be used.
    """
    data, out, images = Path(data), Path(out), Path(images or data)
    console = console or Console(quiet=True)
    labelled = open_labelled(data, split, data_set)
    rows = _rows(methods, labelled.space.n_classes, settings or {})
    for seed in range(n_seeds):
        for name, values in rows.items():
            run_row(name, values, seed, images=images, labelled=labelled, out=out, split=split, console=console)
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


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings with others laid over them.

    >>> merged({"seed": 1, "views": {"flip_p": 0.5, "grey_p": 0.2}}, {"views": {"grey_p": 0.0}})
    {'seed': 1, 'views': {'flip_p': 0.5, 'grey_p': 0.0}}
    """
    result = dict(below)
    for key, value in above.items():
        own = below.get(key)
        result[key] = merged(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    return result


def _rows(methods: Sequence[str], n_classes: int, settings: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return name -> settings of each row: those of all rows, over its own, over the set's number of classes."""
    for key, instead in _NOT_OF_ALL_ROWS.items():
        if key in settings:
            raise SettingsError(f"{key}: {instead}")
    rows = {row_name(method): merged({"n_classes": n_classes} | _own_settings(method), settings) for method in methods}
    if len(rows) < len(methods):
        raise SettingsError(f"methods={','.join(methods)}: each row needs a name of its own")
    for values in rows.values():
        make_settings(values)  # rather now than after the rows before it have been run
    return rows


def _own_settings(method: str) -> dict[str, Any]:
    if method.endswith((".yaml", ".yml")):
        return load_settings(Path(method))
    if method not in METHOD_SECTIONS:
        raise SettingsError(
            f"methods: there is no '{method}'; there are {', '.join(sorted(METHOD_SECTIONS))}, "
            "and files of settings that end in .yaml"
        )
    return {"method": method}
