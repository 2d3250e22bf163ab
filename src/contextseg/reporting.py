"""The verb `report`: predictions over a sample of images, and the page that shows them beside the run's files."""

from pathlib import Path

import numpy as np
from rich.console import Console

from contextseg.data.image_files import list_images, relative_name
from contextseg.data.images import read_image
from contextseg.errors import ImageError
from contextseg.files import write_atomically
from contextseg.predictor import Predictor
from contextseg.progress import progress
from contextseg.randomness import keyed_rng
from contextseg.report.page import Example, Sample, render_page
from contextseg.report.pictures import fit
from contextseg.report.survey import Survey
from contextseg.run_folder import RunFolder

_LONGER_PX = 512  # images are shown, and so predicted, at most this long
_N_EXAMPLES = 8


def report(
    run: str | Path,
    images: str | Path | None = None,
    *,
    n_images: int = 200,
    device: str = "cpu",
    console: Console | None = None,
) -> Path:
    """Write RUN/report.html: one file that holds everything and opens without a network.

    The page shows the scores of the last evaluation, if there was one.

    Args:
        run: a finished run.
        images: a folder of images, or one image, to show what the clusters look like; without them the page has no
            pictures.
        n_images: images that are looked at, at most, drawn at random by the run's seed.
        device: where the network runs.
        console: where progress is shown; nowhere by default.

    Returns:
        The page.

    Raises:
        RunError: the run is not finished.
        ClassesError: its classes.json is malformed.
        DataError: there are no images, or scores.json is malformed.
    """
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder, device=device)
    sample = None if images is None else _sample(predictor, Path(images), n_images, console or Console(quiet=True))
    metric = "cosine" if predictor.spherical else "euclidean"
    path = folder.path / "report.html"
    write_atomically(path, render_page(folder, metric=metric, sample=sample).encode())
    return path


def _sample(predictor: Predictor, images: Path, n_images: int, console: Console) -> Sample:
    """Predict some images of a folder."""
    settings, paths = predictor.settings, list_images(images)
    order = keyed_rng(settings.seed, "report").permutation(len(paths))[:n_images]
    survey = Survey(settings.n_classes)
    examples: list[Example] = []
    unread: list[tuple[str, str]] = []
    with progress(console, "predicting", len(order)) as advance:
        for path in (paths[index] for index in order):
            name = relative_name(path, images)
            try:
                pixels = read_image(path, max_pixels=settings.data.max_pixels, draft_px=_LONGER_PX)
            except ImageError as error:
                unread.append((name, error.reason))
            else:
                image = np.ascontiguousarray(fit(pixels, _LONGER_PX))
                found = predictor.predict(image)
                survey.add(image, found.clusters, found.confidence)
                if len(examples) < _N_EXAMPLES:
                    examples.append(Example(name, image, found.clusters, found.confidence))
            advance(1)
    return Sample(survey, examples, len(paths), unread)
