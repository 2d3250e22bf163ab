"""The table that a person reads: per-class IoU and accuracy, and the two numbers of the whole set."""

from rich.table import Table
from rich.text import Text

from contextseg.evaluation.matching import SURPLUS
from contextseg.evaluation.scores import Scores

_UNDEFINED = "–"


def scores_table(scores: Scores) -> Table:
    """Return the scores as a table, in percent with one decimal.

    A class row holds the cluster matched to it, its IoU, its accuracy (recall) and its share of the labelled
    pixels; a dash stands where a class has no cluster or a score is 0/0. The last two rows are the mean IoU
    and the accuracy over all pixels. The caption says how many pixels surplus clusters hold, if any.
    """
    table = Table("class")
    for title in ("cluster", "IoU %", "accuracy %", "pixels %"):
        table.add_column(title, justify="right")
    cluster_of = {int(c): str(k) for k, c in enumerate(scores.cluster_to_class) if c != SURPLUS}
    n_pixels = int(scores.matrix.sum())
    for class_id, (name, one) in enumerate(scores.per_class.items()):
        table.add_row(
            Text(name),  # not str: a name such as "[red]" would be read as markup
            cluster_of.get(class_id, _UNDEFINED),
            percent(one["iou"]),
            percent(one["recall"]),
            percent(one["n_pixels"] / n_pixels),
        )
    table.add_section()
    table.add_row("mean IoU", "", percent(scores.miou), "", "")
    table.add_row("accuracy", "", "", percent(scores.accuracy), "")

    surplus_K = scores.cluster_to_class == SURPLUS
    if surplus_K.any():
        share = int(scores.matrix[surplus_K].sum()) / n_pixels
        n_surplus = int(surplus_K.sum())
        table.caption = f"surplus clusters: {n_surplus}, with {percent(share)} % of the pixels, counted as wrong"
    return table


def percent(fraction: float | None) -> str:
    """Return a fraction of 1 as percent with one decimal, or a mark where there is none."""
    return _UNDEFINED if fraction is None else f"{100 * fraction:.1f}"
