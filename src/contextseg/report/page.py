"""The page itself: what the files of a run say, laid out for `templates/report.html`.

Everything is inside the one file: it opens without a network. Shape suffixes: H, W pixels; K clusters, D dimensions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jinja2
import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from contextseg.classes import Classes, SegmentClass
from contextseg.evaluation.matching import SURPLUS
from contextseg.evaluation.scores import Scores, read_scores
from contextseg.evaluation.table import percent
from contextseg.report import charts
from contextseg.report.pictures import confidence_colours, data_uri, fit
from contextseg.report.survey import Survey
from contextseg.run_folder import RunFolder

_EXAMPLE_PX = 384  # longer side of an example
_BACKGROUND = (0, 0, 0)  # colour of hidden classes


@dataclass(frozen=True)
class Example:
    """An image with its prediction.

    Attributes:
        name: of the image.
        image_HW3: uint8 RGB.
        clusters_HW: ids, 0 to K - 1.
        confidence_HW: float32 in 0-1.
    """

    name: str
    image_HW3: NDArray[np.uint8]
    clusters_HW: NDArray[np.unsignedinteger[Any]]
    confidence_HW: NDArray[np.float32]


@dataclass(frozen=True)
class Sample:
    """What the run says of some images.

    Attributes:
        survey: of all images of the sample.
        examples: a few of them.
        n_listed: images that the sample was drawn from.
        unread: name and reason of the images of the sample that could not be read.
    """

    survey: Survey
    examples: Sequence[Example]
    n_listed: int
    unread: Sequence[tuple[str, str]]


def render_page(run: RunFolder, *, metric: str, sample: Sample | None = None) -> str:
    """Return the page of a finished run as HTML.

    Args:
        run: its settings, meta.json, metrics, classes, centres, and where they exist its scores and choosing.json.
        metric: of the centres, "cosine" or "euclidean".
        sample: predictions; without them the page has no pictures.

    Raises:
        RunError: a file of the run is missing or broken.
        ClassesError: classes.json is malformed.
        DataError: scores.json is malformed.
    """
    settings = run.settings()
    classes = Classes.read(run.classes, settings.n_classes)
    with safe_open(run.weights, framework="numpy") as file:
        tree = charts.merge_tree(file.get_tensor("centers"), metric)
    scores = read_scores(run.path / "scores.json") if (run.path / "scores.json").exists() else None
    choosing = run.read_json("choosing.json") if (run.path / "choosing.json").exists() else None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("contextseg.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "css": _css}
    return environment.get_template("report.html").render(
        name=run.path.resolve().name,
        settings=settings,
        meta={"finished": "not noted"} | run.read_json("meta.json"),
        charts=[*_training_charts(run.metrics()), *_choosing_charts(choosing)],
        plot=charts,
        choosing=choosing,
        classes=classes.entries,
        clusters=_clusters(classes, sample),
        metric=metric,
        tree=tree,
        sample=sample,
        scale=_confidence_scale(),
        examples=[] if sample is None else [_pictures(example, classes) for example in sample.examples],
        scores=scores,
        confusion=None if scores is None else _confusion(scores),
    )


def _training_charts(metrics: Sequence[dict[str, Any]]) -> list[charts.Chart]:
    steps = [line for line in metrics if "step" in line]
    epochs = [line for line in metrics if "step" not in line]
    if not steps or not epochs:
        return []
    parts = {}
    for part in steps[0].keys() - {"epoch", "step"}:
        n_steps, middles, parts[part] = charts.step_means([line[part] for line in steps])
    title = "loss" if n_steps == 1 else f"loss, means of {n_steps} steps"
    numbers = [line["epoch"] + 1 for line in epochs]
    return [
        charts.line_chart(title, "step", middles, {part: parts[part] for part in sorted(parts, key=_loss_first)}),
        *(
            charts.line_chart(title, "epoch", numbers, {title: [line[key] for line in epochs]})
            for title, key in (("cluster use", "cluster_use"), ("images/s", "images_per_s"))
        ),
    ]


def _loss_first(part: str) -> tuple[bool, str]:
    return part != "loss", part


def _choosing_charts(choosing: dict[str, Any] | None) -> list[charts.Chart]:
    if choosing is None:
        return []
    curve = {"agreement of groupings": choosing["stability"]}
    return [
        charts.line_chart("agreement of groupings", "classes", choosing["n_classes"], curve, marked=choosing["chosen"])
    ]


@dataclass(frozen=True)
class Cluster:
    """A cluster as the page shows it; the share is None where no image was looked at."""

    entry: SegmentClass
    state: str
    share: float | None
    confidence: float | None
    typical: Sequence[Any]
    uncertain: Sequence[Any]


def _clusters(classes: Classes, sample: Sample | None) -> list[Cluster]:
    """Return all clusters, the largest first."""

    def state(entry: SegmentClass) -> str:
        if entry.merged_into is not None:
            return f"part of {entry.merged_into}"
        return "hidden" if entry.hidden else ""

    if sample is None:
        return [Cluster(entry, state(entry), None, None, (), ()) for entry in classes.entries]
    survey = sample.survey
    share_K, confidence_K = survey.share_K().tolist(), survey.confidence_K().tolist()
    found = [
        Cluster(
            entry,
            state(entry),
            share_K[entry.id],
            confidence_K[entry.id] if share_K[entry.id] else None,
            survey.typical(entry.id),
            survey.uncertain(entry.id),
        )
        for entry in classes.entries
    ]
    return sorted(found, key=lambda cluster: -share_K[cluster.entry.id])


def _pictures(example: Example, classes: Classes) -> dict[str, str]:
    """Return the URIs of an example's three pictures; the mask is coloured as people have merged and hidden classes."""
    colours = np.array([*classes.colours_K3.tolist(), _BACKGROUND], np.uint8)
    colours_K3 = colours[classes.values(background=len(classes.entries))]
    return {
        "name": example.name,
        "image": data_uri(fit(example.image_HW3, _EXAMPLE_PX)),
        "mask": data_uri(colours_K3[fit(example.clusters_HW, _EXAMPLE_PX)], "PNG"),
        "confidence": data_uri(confidence_colours(fit(example.confidence_HW, _EXAMPLE_PX))),
    }


def _confidence_scale() -> str:
    """Return the colours of confidence 0 to 1 as stops of a CSS gradient."""
    stops = confidence_colours(np.linspace(0, 1, 9, dtype=np.float32)[None])[0].tolist()
    return ", ".join(_css(stop) for stop in stops)


def _css(colour: Sequence[int]) -> str:
    return "rgb({} {} {})".format(*colour)


@dataclass(frozen=True)
class Confusion:
    """The confusion matrix with a class a row; clusters stand in the order of the classes that they were matched to.

    Attributes:
        clusters: the cluster of each column.
        matched: for each class the cluster that was matched to it, or None.
        rows: for each class the share of its pixels that each cluster has; None for a class without pixels.
    """

    clusters: list[int]
    matched: list[int | None]
    rows: list[list[float] | None]


def _confusion(scores: Scores) -> Confusion:
    n_classes = scores.matrix.shape[1]
    class_of = scores.cluster_to_class.tolist()
    order = sorted(range(len(class_of)), key=lambda k: (class_of[k] == SURPLUS, class_of[k]))
    rows = [column[order] / column.sum() if column.any() else None for column in scores.matrix.T]
    return Confusion(
        order,
        [class_of.index(c) if c in class_of else None for c in range(n_classes)],
        [None if row is None else row.tolist() for row in rows],
    )
