"""Which files of a folder are images: folders, tars, and what holds labels and is never walked."""

import os
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from contextseg.classes import Classes
from contextseg.data.tars import is_tar, list_tar
from contextseg.errors import ClassesError, DataError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff", ".webp", ".bmp"})
"""Endings of image files; capitals do not matter."""
LABEL_FOLDERS = frozenset(
    {"label", "labels", "annotation", "annotations", "mask", "masks", "gt", "groundtruth", "ground_truth"}
    | {"gtfine", "gtcoarse"}  # Cityscapes
    | {"segmentationclass", "segmentationclassaug", "segmentationobject"}  # PASCAL VOC
    | {"annotations_instance", "stuffthingmaps"}  # ADE20K, COCO-Stuff
    | {"trainannot", "valannot", "testannot"}  # CamVid
)
"""Sub-folders that hold label images by custom, lower case. They are never walked: a label must not be trained on."""


def list_images(root: Path) -> list[Path]:
    """Return the image files at or below a folder, sorted by their relative path.

    Files count by their suffix (`IMAGE_SUFFIXES`); whether they can be read shows later. Hidden files and
    folders are skipped, and so are folders named as in `LABEL_FOLDERS`, and runs and masks of contextseg, known by
    their classes.json. Where a folder holds `images/` and one named so, only `images/` is walked. The rules hold below
    `root`, not for `root` itself.

    A tar file counts as a folder. In it WebDataset's rule holds: what follows the first dot of a name is its kind, so
    ``1.jpg`` is an image and ``1.seg.png`` is none. One that is damaged is listed itself, beside what it still gives:
    reading it says what is wrong.

    Args:
        root: a folder, a tar file, or one image file.

    Raises:
        DataError: there is no such folder, no image in it, or two images in one sample of a tar.
    """
    if is_tar(root):
        return _in_tar(root)
    if root.is_file():
        if root.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(
                f"{root}: is no image file; expected a folder of images, or a file ending in {_suffix_list()} .tar"
            )
        return [root]
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected a folder that holds images ({_suffix_list()})")
    files = walk_files(root, {*IMAGE_SUFFIXES, ".tar"})
    images = [image for file in files for image in (_in_tar(file) if is_tar(file) else [file])]
    if not images:
        raise DataError(
            f"{root}: no images found; expected files ending in {_suffix_list()}, in the folder, below it or in its "
            f"tars (hidden folders and folders named {', '.join(sorted(LABEL_FOLDERS))} are skipped)"
        )
    return images


def walk_files(root: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files below a folder that end in one of the suffixes, by the rules of `list_images`.

    Links to folders are followed, each real folder once. A dangling link is listed if its name fits.

    Args:
        root: an existing folder.
        suffixes: lower case, with the dot.

    Raises:
        DataError: a folder cannot be listed.
    """
    found: list[Path] = []
    seen: set[Path] = set()
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        real = folder.resolve()
        if real in seen:
            continue
        seen.add(real)
        folders, files = _without_labels(*_list_folder(folder))
        if folder != root and folder / "classes.json" in files and _are_ours(folder / "classes.json"):
            continue
        found += [file for file in files if file.suffix.lower() in suffixes]
        waiting += reversed(folders)
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def relative_name(path: Path, root: Path) -> str:
    """Return the name of a file in a data set: its path below the root with forward slashes.

    >>> relative_name(Path("photos/may/a.jpg"), Path("photos"))
    'may/a.jpg'
    >>> relative_name(Path("photos/a.jpg"), Path("photos/a.jpg"))
    'a.jpg'
    """
    return path.name if path == root else path.relative_to(root).as_posix()


def check_some_used(left_out: Sequence[tuple[str, str]], n_images: int) -> None:
    """Refuse to end as if all were well where no image has been of use.

    Args:
        left_out: name and reason of each image that was left out.
        n_images: how many there were.

    Raises:
        DataError: that is all of them.
    """
    if left_out and len(left_out) == n_images:
        others = f"; {n_images - 1} more were left out" if n_images > 1 else ""
        raise DataError(f"no image could be used. {': '.join(left_out[0])}{others}")


def _list_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the folders and the other entries of a folder, sorted, without hidden ones."""
    try:
        with os.scandir(folder) as entries:
            shown = sorted((entry.name, entry.is_dir()) for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from error
    return [folder / name for name, is_dir in shown if is_dir], [folder / name for name, is_dir in shown if not is_dir]


def _without_labels(folders: list[Path], files: list[Path]) -> tuple[list[Path], list[Path]]:
    pictures = [folder for folder in folders if folder.name.lower() not in LABEL_FOLDERS]
    images = [folder for folder in pictures if folder.name.lower() == "images"]
    if images and len(pictures) < len(folders):
        return images, []
    return pictures, files


def _are_ours(classes: Path) -> bool:
    try:
        Classes.read(classes)
    except ClassesError:
        return False
    return True


def _suffix_list() -> str:
    return " ".join(sorted(IMAGE_SUFFIXES))


def _in_tar(tar: Path) -> list[Path]:
    """Return the images in a tar file by the rules of `list_images`, sorted; and itself where it has a fault."""
    listing = list_tar(tar)
    images: dict[PurePosixPath, Path] = {}
    for name in sorted(listing.places):
        path = PurePosixPath(name)
        key, _, kind = path.name.partition(".")
        folders = {folder.lower() for folder in path.parts[:-1]}
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or f".{kind.lower()}" not in IMAGE_SUFFIXES or folders & LABEL_FOLDERS:
            continue
        if (sample := path.with_name(key)) in images:
            raise DataError(
                f"{tar}: {images[sample].name} and {path.name} are one sample, and a label must not be trained on; "
                f"give labels a kind of their own, such as {key}.seg.png"
            )
        images[sample] = tar / name
    return [*images.values(), *([] if listing.fault is None else [tar])]
