"""One table for a comparison: on screen, as Markdown, as CSV, and as a plot with error bars."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from contextseg.comparison.rows import Row, mean_std
from contextseg.files import write_atomically

COLUMNS = ("method", "start", "backbone", "px", "epochs", "K", "accuracy %", "mIoU %", "cluster use", "images/s")
_NONE = "–"
_INCHES_PER_ROW = 0.4


def cells(row: Row) -> list[str]:
    """Return a row's cells in the order of `COLUMNS`: mean, standard deviation and number of seeds where it has any."""
    settings, trained = row.settings, row.images_per_s is not None
    return [
        row.name,
        settings.describe_start(),
        _NONE if settings.method == "lab" else settings.backbone.name,
        str(settings.data.image_px),
        str(settings.training.epochs) if trained else _NONE,
        str(settings.n_classes),
        mean_std(row.percent("accuracy")),
        mean_std(row.percent("miou")),
        _NONE if row.cluster_use is None else f"{row.cluster_use:.2f}",
        _NONE if row.images_per_s is None else f"{row.images_per_s:.1f}",
    ]


def screen_table(rows: Sequence[Row], title: str) -> Table:
    """Return the table for the screen, best mean IoU first as everywhere."""
    table = Table(*COLUMNS, title=Text(title))
    for row in ranked(rows):
        table.add_row(*(Text(cell) for cell in cells(row)))
    return table


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown."""
    lines = [COLUMNS, ("---",) * len(COLUMNS), *(cells(row) for row in ranked(rows))]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def comma_separated(rows: Sequence[Row]) -> str:
    """Return one line for each run, so that every mean can be computed again."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("method", "seed", "start", "backbone", "image_px", "epochs", "n_classes", "accuracy", "miou"))
    for row in ranked(rows):
        settings = row.settings
        for seed, scores in zip(row.seeds, row.scores, strict=True):
            about = (settings.describe_start(), settings.backbone.name, settings.data.image_px)
            writer.writerow(
                (row.name, seed, *about, settings.training.epochs, settings.n_classes, scores.accuracy, scores.miou)
            )
    return text.getvalue()


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the mean IoU of each row: a bar for the mean, a line for one standard deviation, a dot for each seed."""
    from matplotlib.figure import Figure

    upwards = list(reversed(ranked(rows)))
    figure = Figure(figsize=(7, 1.2 + _INCHES_PER_ROW * len(upwards)), layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(upwards):
        values = row.percent("miou")
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / max(1, len(values) - 1)
        axes.barh(place, mean, height=0.6, color="#9ecae1", xerr=variance**0.5, ecolor="#333333", capsize=3)
        axes.plot(values, [place] * len(values), "o", color="#08519c", markersize=4)
    axes.set_yticks(range(len(upwards)), [row.name for row in upwards])
    axes.set_xlabel("mean IoU, %, last epoch")
    axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    write_atomically(path, buffer.getvalue())


def ranked(rows: Sequence[Row]) -> list[Row]:
    """Return the rows, best mean IoU first."""
    return sorted(rows, key=lambda row: -sum(row.percent("miou")) / len(row.scores))
