"""The verb `export`: masks in the format of the tool that they are taken to, or the run itself as an ONNX file."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from rich.console import Console

from contextseg.classes import Classes
from contextseg.data.image_files import check_some_used, list_images
from contextseg.errors import ImageError, RunError, SettingsError
from contextseg.export.embeddings import write_embeddings
from contextseg.export.formats import MASK_WRITERS
from contextseg.export.geotiff import GeoTiffWriter
from contextseg.export.names import mask_names
from contextseg.export.writer import MaskWriter
from contextseg.onnx_export import write_onnx
from contextseg.pixel_clusters import best_ids
from contextseg.predictor import Predictor
from contextseg.progress import progress
from contextseg.run_folder import RunFolder
from contextseg.windows import check_scale, predict_windows

Add = Callable[[Path, Path], None]
"""Exports one image, given its file and the relative name of its mask."""


def export(
    run: str | Path,
    images: str | Path | None,
    out: str | Path,
    *,
    format: str,
    scale: float | None = None,
    device: str = "cpu",
    console: Console | None = None,
) -> list[tuple[str, str]]:
    """Predict a folder of images and write the masks in one of the `FORMATS`; docs/exports.md describes them.

    Merged classes are one class, hidden ones are background. An image that cannot be read is left out. The format
    "onnx" takes no images: it is the run as one file, see `write_onnx`.

    Args:
        run: a finished run.
        images: a folder that is searched with its subfolders, or one image; None for onnx alone.
        out: a new or an empty folder; a file for onnx.
        format: "onnx" or a key of `FORMATS`.
        scale: for geotiff alone: pixels of the network per pixel of the raster, 1 by default.
        device: where the network runs; an ONNX file is made on the CPU.
        console: where progress is shown; nowhere by default.

    Returns:
        Name and reason of each image that was left out.

    Raises:
        SettingsError: there is no such format, it takes no images or needs some, or the scale is out of range or
            without effect.
        RunError: the run is not finished, or `out` is not empty.
        ClassesError: classes.json is malformed.
        DataError: there are no images, none of them can be used, or the format cannot hold these classes.
        LibraryError: a library that the format needs is not installed.
    """
    if format not in {"onnx", *FORMATS}:
        raise SettingsError(f"format: got '{format}'; there are {', '.join(FORMATS)} and onnx")
    if scale is not None and format != "geotiff":
        raise SettingsError(f"scale: got {scale:g}, but only geotiff reads it; the format is {format}")
    run, out = Path(run), Path(out)
    folder = RunFolder.open(run)
    classes = Classes.read(folder.classes, folder.settings().n_classes)
    if format == "onnx":
        if device != "cpu":
            raise SettingsError(f"device: got {device}, but an ONNX file is made on the CPU; leave it out")
        if images is not None:
            raise SettingsError(f"images: got {images}, but an ONNX file is made of the run alone; leave them out")
        write_onnx(Predictor.load(folder), out, classes)
        return []
    if images is None:
        raise SettingsError(f"images: got none, but {format} holds masks of images; give a folder of them")
    images, predictor = Path(images), Predictor.load(folder, device=device)
    names = mask_names(list_images(images), images)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out}: is not empty; give a new folder, so that no old mask stays among the new ones")
    left_out: list[tuple[str, str]] = []
    with (
        FORMATS[format](predictor, classes, out, 1.0 if scale is None else scale) as add,
        progress(console or Console(quiet=True), "exporting", len(names)) as advance,
    ):
        for path, name in names.items():
            try:
                add(path, name)
            except ImageError as error:
                left_out.append((str(path), error.reason))
            advance(1)
    check_some_used(left_out, len(names))
    return left_out


def _masks(writer_class: type[MaskWriter]) -> Callable[..., AbstractContextManager[Add]]:
    @contextmanager
    def exporter(predictor: Predictor, classes: Classes, out: Path, _scale: float) -> Iterator[Add]:
        writer = writer_class(out, classes)

        def add(image: Path, name: Path) -> None:
            pixels, size = predictor.read(image)
            writer.add(image, name, best_ids(predictor.score(pixels), size))

        yield add
        writer.finish()

    return exporter


@contextmanager
def _geotiff(predictor: Predictor, classes: Classes, out: Path, scale: float) -> Iterator[Add]:
    check_scale(scale)
    writer = GeoTiffWriter(out, classes)

    def add(image: Path, name: Path) -> None:
        with writer.open(image) as raster:
            windows = predict_windows(predictor, raster.read, raster.size, scale, raster.is_valid)
            writer.add(raster, name.with_suffix(".tif"), windows)

    yield add


@contextmanager
def _npy(predictor: Predictor, classes: Classes, out: Path, _scale: float) -> Iterator[Add]:
    def add(image: Path, name: Path) -> None:
        pixels, _ = predictor.read(image)
        write_embeddings(out / name.with_suffix(".npy"), predictor.embed(pixels).numpy())

    yield add


FORMATS: dict[str, Callable[[Predictor, Classes, Path, float], AbstractContextManager[Add]]] = {
    **{name: _masks(writer) for name, writer in MASK_WRITERS.items()},
    "geotiff": _geotiff,
    "npy": _npy,
}
"""What a person may ask for -> how it is begun; the body then adds images, and its end finishes the export."""
