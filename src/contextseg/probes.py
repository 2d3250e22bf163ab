"""Probes: what a little supervision makes of the frozen embeddings of a run.

A probe **reads labels**, those of a training split, so its scores are not those of an unsupervised method: they say how
well the embeddings tell classes apart, and are kept apart from the run's own. Nothing of the run is changed.

Shape suffixes: N pixels; D dimensions; C classes; M neighbours; h, w cells.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from contextseg.clustering.kmeans import scores
from contextseg.clustering.sampling import points_per_image
from contextseg.conventions import IGNORE
from contextseg.data.labelled import LabelledImages
from contextseg.errors import DataError, SettingsError
from contextseg.predictor import Predictor
from contextseg.progress import progress
from contextseg.randomness import keyed_rng
from contextseg.refinement import Scorer

PIXELS = 20_000
"""Labelled pixels that a probe learns from, as many of each image as of any other; at least one of each."""
NEIGHBOURS = 20
"""Neighbours that have a vote in the k-NN probe."""
_ITERATIONS = 200  # of L-BFGS, at most
_DECAY = 1e-5  # weight of the squared norm of the linear probe's matrix: without it separable classes have no optimum
_SIMILARITIES = 2**25  # of pixels and neighbours that exist at one time

Probe = Callable[[Tensor], Tensor]
"""Embeddings (N, D) float32 to scores for the classes (N, C) float32."""


def linear_probe(points_ND: Tensor, labels_N: Tensor, n_classes: int) -> Probe:
    """Fit a linear classifier: multinomial logistic regression on all points at once, by L-BFGS from zero.

    Args:
        points_ND: float32 embeddings.
        labels_N: int64 classes.
        n_classes: C.
    """
    weight_CD = torch.zeros(n_classes, points_ND.shape[1], device=points_ND.device, requires_grad=True)
    bias_C = torch.zeros(n_classes, device=points_ND.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight_CD, bias_C], max_iter=_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> float:
        optimizer.zero_grad()
        value = F.cross_entropy(F.linear(points_ND, weight_CD, bias_C), labels_N) + _DECAY * weight_CD.square().sum()
        value.backward()
        return float(value.detach())

    optimizer.step(loss)
    weight_CD, bias_C = weight_CD.detach(), bias_C.detach()
    return lambda points: F.linear(points, weight_CD, bias_C)


def knn_probe(points_ND: Tensor, labels_N: Tensor, n_classes: int) -> Probe:
    """Keep the points; a pixel's score for a class is the share of it among its nearest points (Euclidean distance).

    Args:
        points_ND: float32 embeddings.
        labels_N: int64 classes.
        n_classes: C.
    """
    classes_NC = F.one_hot(labels_N, n_classes).float()
    n_neighbours = min(NEIGHBOURS, len(points_ND))

    def votes(chunk_ND: Tensor) -> Tensor:
        nearest_NM = scores(chunk_ND, points_ND).topk(n_neighbours).indices
        return classes_NC[nearest_NM].mean(1)

    return lambda points: torch.cat([votes(chunk) for chunk in points.split(max(1, _SIMILARITIES // len(points_ND)))])


PROBES: dict[str, Callable[[Tensor, Tensor, int], Probe]] = {"linear": linear_probe, "knn": knn_probe}
"""The probes by name."""
PARAMETERS: dict[str, dict[str, int]] = {
    "linear": {"pixels": PIXELS},
    "knn": {"pixels": PIXELS, "neighbours": NEIGHBOURS},
}
"""What the scores of a probe hang on besides, for their context."""


def fit_probe(name: str, predictor: Predictor, train: LabelledImages, console: Console) -> Scorer:
    """Fit a probe to the embeddings of a labelled split.

    Args:
        name: of the probe, in `PROBES`.
        predictor: of a finished run; its network and its clusters are left as they are.
        train: the split whose labels are read.
        console: where it is said that labels are read, and progress is shown.

    Returns:
        From images to the scores of their cells for the classes.

    Raises:
        SettingsError: there is no such probe.
        DataError: the split cannot be read, or holds no labelled pixel.
    """
    if name not in PROBES:
        raise SettingsError(f"probe: got '{name}', expected one of {', '.join(PROBES)}")
    console.print(f"the {name} probe reads the labels of {len(train)} images", highlight=False)
    device = predictor.centers.device
    points_ND, labels_N = (values.to(device) for values in sample_pixels(predictor, train, console))
    probe = PROBES[name](points_ND, labels_N, train.space.n_classes)

    def score(image: NDArray[np.uint8]) -> Tensor:
        embedded_Dhw = predictor.embed(image)
        return probe(embedded_Dhw.flatten(1).T.to(device)).T.reshape(-1, *embedded_Dhw.shape[1:]).cpu()

    return score


def sample_pixels(predictor: Predictor, labelled: LabelledImages, console: Console) -> tuple[Tensor, Tensor]:
    """Draw labelled pixels of each image, and embed them.

    Returns:
        (N, D) float32 embeddings, bilinear between cells as scores are, and (N,) int64 classes.

    Raises:
        DataError: the split cannot be read, or holds no labelled pixel.
    """
    settings, per_image = predictor.settings, points_per_image(PIXELS, len(labelled))
    points, labels = [], []
    with progress(console, "embedding labelled pixels", len(labelled)) as advance:
        for index in range(len(labelled)):
            image, label_HW = labelled.read(
                index, shorter_px=settings.data.image_px, max_pixels=settings.data.max_pixels
            )
            rows_N, columns_N = np.nonzero(label_HW != IGNORE)
            chosen = keyed_rng(settings.seed, "probe pixels", index).permutation(len(rows_N))[:per_image]
            rows_N, columns_N = rows_N[chosen], columns_N[chosen]
            points.append(_at_pixels(predictor.embed(image), rows_N, columns_N, label_HW.shape))
            labels.append(torch.from_numpy(label_HW[rows_N, columns_N]).long())
            advance(1)
    if not sum(map(len, labels)):
        raise DataError(f"{labelled.root}: no labelled pixel in the split that the probe reads; check the label files")
    return torch.cat(points), torch.cat(labels)


def _at_pixels(
    embedded_Dhw: Tensor, rows_N: NDArray[np.intp], columns_N: NDArray[np.intp], size: tuple[int, ...]
) -> Tensor:
    """Return (N, D): the embeddings at pixels of an image of a size, as if they were resized to it."""
    places_N2 = np.stack([(2 * columns_N + 1) / size[1] - 1, (2 * rows_N + 1) / size[0] - 1], axis=1)
    grid_11N2 = torch.from_numpy(places_N2.astype(np.float32))[None, None]
    found_1D1N = F.grid_sample(embedded_Dhw[None], grid_11N2, padding_mode="border", align_corners=False)
    return found_1D1N[0, :, 0].T
