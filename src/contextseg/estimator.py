"""`ContextSegmenter`: the verbs in Python, on arrays, files and folders."""

import html
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from torch import Tensor

from contextseg.classes import Classes, looked_up
from contextseg.conventions import ignore_value
from contextseg.data.images import read_image, rgb_array
from contextseg.errors import DataError, RunError
from contextseg.export.indexed_png import overlay
from contextseg.pixel_clusters import Prediction, best_cluster, best_ids
from contextseg.predictor import Predictor, checked
from contextseg.run_folder import RunFolder
from contextseg.settings import Settings, make_settings
from contextseg.training.fit import fit

Picture = NDArray[np.uint8] | Image.Image | str | Path


class ContextSegmenter:
    """Semantic segmentation learnt from unlabelled images; follows scikit-learn's conventions.

    Args:
        n_classes: how many classes to find; "auto" lets the images decide.
        run: the run folder to write; a temporary one, which ends with this object, by default.
        verbose: show progress.
        settings: any further setting, nested as in YAML: ``training={"epochs": 5}, seed=1``.

    Attributes:
        run_: the finished run.

    Raises:
        SettingsError: a setting is unknown or malformed.

    Example:
        >>> segmenter = ContextSegmenter(n_classes=6, method="lab")
        >>> masks = segmenter.fit("photos/").predict("photos/one.jpg").clusters  # doctest: +SKIP
    """

    run_: RunFolder

    def __init__(
        self, n_classes: int | Literal["auto"], *, run: str | Path | None = None, verbose: bool = False, **settings: Any
    ) -> None:
        self.settings: Settings = make_settings({"n_classes": n_classes, **settings})
        self.run = None if run is None else Path(run)
        self.verbose = verbose
        self._predictor: Predictor | None = None

    @classmethod
    def load(cls, run: str | Path) -> Self:
        """Open a finished run.

        Raises:
            RunError: the folder holds no finished run.
        """
        folder = RunFolder.open(Path(run))
        predictor = Predictor.load(folder)
        values: Mapping[str, Any] = folder.settings().model_dump(exclude_unset=True)
        loaded = cls(**values, run=run)
        loaded.run_, loaded._predictor = folder, predictor
        return loaded

    def fit(self, images: str | Path | Sequence[Picture]) -> Self:
        """Learn the classes.

        Args:
            images: a folder, or a sequence of files, PIL images or (H, W, 3) uint8 RGB arrays. Labels are never read.

        Raises:
            DataError: there are no images.
            TrainingError: fewer usable images than classes.
            RunError: the run folder is not empty.
        """
        out = self.run or self._temporary_run()
        console = Console(quiet=not self.verbose)
        if isinstance(images, str | Path):
            self.run_ = fit(Path(images), out, self.settings, console=console)
        else:
            with tempfile.TemporaryDirectory(prefix="contextseg-") as folder:
                if len(images) == 0:
                    raise DataError("there are no images: got an empty sequence")
                for index, image in enumerate(images):
                    Image.fromarray(self._array(image)).save(Path(folder) / f"{index:08d}.png", compress_level=1)
                self.run_ = fit(Path(folder), out, self.settings, console=console)
        self._predictor = Predictor.load(self.run_)
        return self

    def predict(self, image: Picture) -> Prediction:
        """Return the cluster and the confidence of each pixel of an image of any size.

        Raises:
            RunError: there is nothing to predict with before `fit`.
            ImageError: the file cannot be read.
        """
        return best_cluster(*self._scored(image))

    def overlay(self, image: Picture, *, alpha: float = 0.5) -> Image.Image:
        """Return an image of any size under its classes, in the colours, merges and hidden classes of the run.

        Args:
            image: as for `predict`.
            alpha: weight of the classes, 0 (the image alone) to 1.

        Raises:
            RunError: there is nothing to predict with before `fit`.
            ImageError: the file cannot be read.
            DataError: alpha is out of range.
        """
        clusters_HW, classes = best_ids(*self._scored(image)), self._classes()
        shown_HW = looked_up(classes.values(background=ignore_value(len(classes.entries))), clusters_HW)
        return Image.fromarray(overlay(self._array(image), shown_HW, classes.colours_K3, alpha))

    def _repr_html_(self) -> str:
        """Show the method, and the classes once there are some, in a notebook."""
        settings = self.settings if self._predictor is None else self._predictor.settings
        state = "not fitted" if self._predictor is None else f"run in {html.escape(str(self.run_.path))}"
        shown = () if self._predictor is None else self._classes().shown()
        swatches = "".join(
            '<span style="display:inline-block;margin-right:1em">'
            f'<span style="color:rgb{entry.colour}">\u25a0</span> {entry.id} {html.escape(entry.name)}</span>'
            for entry in shown
        )
        return f"<div><b>{settings.method}</b>, {settings.n_classes} classes, {state}<br>{swatches}</div>"

    def _scored(self, image: Picture) -> tuple[Tensor, tuple[int, int]]:
        """Return the scores of an image's cells, and its size; a file is read as `predict` reads it."""
        predictor = self._fitted()
        if isinstance(image, str | Path):
            pixels, size = predictor.read(Path(image))
        else:
            pixels = self._array(image)
            size = pixels.shape[0], pixels.shape[1]
        return predictor.score(pixels), size

    def _fitted(self) -> Predictor:
        if self._predictor is None:
            raise RunError("there is no network yet; call fit(images), or ContextSegmenter.load(run)")
        return self._predictor

    def _classes(self) -> Classes:
        return Classes.read(self.run_.classes, self._fitted().settings.n_classes)

    def _temporary_run(self) -> Path:
        folder = tempfile.mkdtemp(prefix="contextseg-")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _array(self, image: Picture) -> NDArray[np.uint8]:
        if isinstance(image, str | Path):
            return read_image(Path(image), max_pixels=self.settings.data.max_pixels)
        return checked(rgb_array(image) if isinstance(image, Image.Image) else image)
