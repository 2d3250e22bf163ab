"""The embeddings of a run clustered afresh, as PiCIE does before its final evaluation."""

from collections.abc import Iterator
from pathlib import Path

from rich.console import Console
from torch import Tensor

from contextseg.clustering.kmeans import KMeans
from contextseg.clustering.sampling import points_per_image, sample_cells
from contextseg.data.image_files import list_images
from contextseg.errors import ImageError
from contextseg.predictor import Predictor
from contextseg.progress import progress, tell_left_out


def cluster_afresh(predictor: Predictor, images: Path, console: Console) -> Tensor:
    """Return new centres by k-means over the embeddings of unaugmented images; no label is read.

    There are as many as the run has classes, whatever method has found its own; seed, number of points, restarts and
    iterations are the run's.

    Args:
        predictor: of a finished run; it is left as it is.
        images: a folder of images, such as those of the training, or one image.
        console: where progress is shown, and images that are left out.

    Returns:
        (K, D) float32, on the predictor's device.

    Raises:
        DataError: there are no images.
        TrainingError: they have fewer cells than there are clusters.
    """
    settings = predictor.settings
    kmeans = KMeans(
        settings.n_classes, seed=settings.seed, spherical=predictor.spherical, **settings.clustering.model_dump()
    )
    return kmeans.fit(cell_points(predictor, images, console)).centers_.to(predictor.centers.device)


def cell_points(predictor: Predictor, images: Path, console: Console) -> Iterator[Tensor]:
    """Yield the embeddings of some cells of each image, (n, D) float32; together `clustering.max_points` at most.

    Args:
        predictor: of a finished run.
        images: a folder of images, or one image.
        console: where progress is shown, and images that are left out.

    Raises:
        DataError: there are no images.
    """
    settings, paths = predictor.settings, list_images(images)
    per_image = points_per_image(settings.clustering.max_points, len(paths))
    with progress(console, "clustering", len(paths)) as advance:
        for index, path in enumerate(paths):
            try:
                image, _ = predictor.read(path)
            except ImageError as error:
                tell_left_out(console, [(str(path), error.reason)])
            else:
                yield sample_cells(predictor.embed(image)[None], [index], (settings.seed, "final cells", 0), per_image)
            advance(1)
