"""The table that a person reads: the scores of each class, and the numbers of the whole set."""

from collections.abc import Iterator, Mapping

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from contextseg.evaluation.matching import SURPLUS
from contextseg.evaluation.scores import Scores

_UNDEFINED = "–"


def scores_table(scores: Scores) -> Table:
    """Return the scores as a table, in percent with one decimal.

    A class row holds the cluster matched to it, its IoU, its accuracy (recall), its share of the labelled pixels, and
    its boundary F where boundaries were counted; a dash stands where a class has no cluster or a score is 0/0. The last
    rows are of the whole set: mean IoU, mean boundary F, and the accuracy over all pixels; then IoU and
    accuracy of each group of classes, by its sub-matrix, and of the many-to-one matching if there are more clusters
    than classes. The caption says how many pixels surplus clusters hold, if any, and which options were on.
    """
    with_boundaries = scores.boundaries is not None
    table = Table("class")
    for title in ("cluster", "IoU %", "accuracy %", "pixels %", *(["boundary F %"] if with_boundaries else [])):
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
            *([percent(one["boundary_f"])] if with_boundaries else []),
        )
    table.add_section()
    table.add_row("mean IoU", "", percent(scores.miou), "", "")
    if with_boundaries:
        table.add_row("mean boundary F", "", "", "", "", percent(scores.boundary_f))
    table.add_row("accuracy", "", "", percent(scores.accuracy), "")
    for group in scores.groups:
        of_group = [percent(scores.submatrices[f"{figure}_{group}_submatrix"]) for figure in ("miou", "accuracy")]
        table.add_row(f"{group}, sub-matrix", "", *of_group, "")
    if len(scores.matrix) > len(scores.per_class):
        many_to_one = [percent(figure) for figure in (scores.miou_many_to_one, scores.accuracy_many_to_one)]
        table.add_row("many-to-one", "", *many_to_one, "")
    table.caption = "\n".join(_notes(scores)) or None
    return table


def percent(fraction: float | None) -> str:
    """Return a fraction of 1 as percent with one decimal, or a mark where there is none."""
    return _UNDEFINED if fraction is None else f"{100 * fraction:.1f}"


def _notes(scores: Scores) -> Iterator[str]:
    surplus_K = scores.cluster_to_class == SURPLUS
    if surplus_K.any():
        share = int(scores.matrix[surplus_K].sum()) / int(scores.matrix.sum())
        yield f"surplus clusters: {surplus_K.sum()}, with {percent(share)} % of the pixels, counted as wrong"
    for option, value in scores.options.items():
        parameters = value.items() if isinstance(value, Mapping) else ()
        yield f"{option}: " + (", ".join(f"{key} {escape(str(one))}" for key, one in parameters) or "on")
