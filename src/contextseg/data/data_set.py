"""What a data set is to contextseg: where its files lie, and what its labels stand for."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from contextseg.data.image_files import IMAGE_SUFFIXES, walk_files
from contextseg.data.label_files import LabelCode, first_few
from contextseg.errors import DataError


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split, not yet paired.

    Attributes:
        name: of the split; it says how the images were chosen where there is a choice.
        images: name that an image shares with its label -> image file, in order.
        labels: the same for the label files.
        image_place: where the images are looked for, in words.
        label_place: where the labels are looked for, in words.
        listed: the names that a list says make up the split; None where every file counts.
    """

    name: str
    images: Mapping[str, Path]
    labels: Mapping[str, Path]
    image_place: str
    label_place: str
    listed: Collection[str] | None = None

    def only(self, listed: Collection[str]) -> Self:
        """Return the split that these names make up."""
        chosen = set(listed)
        images, labels = (
            {shared: path for shared, path in files.items() if shared in chosen} for files in (self.images, self.labels)
        )
        return replace(self, images=images, labels=labels, listed=chosen)

    def faults(self) -> list[str]:
        """Say what keeps images and labels from pairing up, a sentence for each kind."""
        absent = sorted(set(self.listed or ()) - self.images.keys())
        no_label = [path.name for name, path in self.images.items() if name not in self.labels]
        no_image = [path.name for name, path in self.labels.items() if name not in self.images]
        found = {
            f"listed images are not in {self.image_place}": absent,
            f"images have no label in {self.label_place}": no_label,
            f"labels have no image in {self.image_place}": no_image,
        }
        if not (self.images or self.labels or absent):
            suffixes = " ".join(sorted(IMAGE_SUFFIXES))
            why = (
                f"expected files ending in {suffixes}" if self.listed is None else f"none there is part of {self.name}"
            )
            return [f"{self.image_place}: no images found; {why}"]
        return [tell_fault(what, names) for what, names in found.items() if names]


@dataclass(frozen=True)
class DataSet:
    """A data set in the layout in which users have it on disk.

    Attributes:
        title: its name in the field.
        source: the project that it comes from, and its page, by name.
        tree: what its folder must look like.
        fits: whether a folder looks like that.
        find: the files of a split, or of each split that is there (None); raises `DataError` for an unknown split.
        code: what the labels stand for; made from the folder where it says so itself.
        n_published: split -> number of images that its authors, or the field, say it has.
    """

    title: str
    source: str
    tree: str
    fits: Callable[[Path], bool]
    find: Callable[[Path, str | None], list[SplitFiles]]
    code: LabelCode | Callable[[Path], LabelCode]
    n_published: Mapping[str, int] = field(default_factory=dict)

    @property
    def expected(self) -> str:
        """Where the data come from and what their folder must look like."""
        return f"Source: {self.source}; nothing is downloaded. Expected:\n{self.tree}"

    def code_of(self, root: Path) -> LabelCode:
        """Return what the labels in a folder stand for.

        Raises:
            DataError: the folder should say so, and does not.
        """
        return self.code(root) if callable(self.code) else self.code

    def files(self, root: Path, split: str | None) -> list[SplitFiles]:
        """Find the files of one split, or of all that are there (None), at least one.

        Raises:
            DataError: the folder is not laid out as the data set is, or the split is unknown.
        """
        if not root.is_dir():
            raise DataError(f"{root}: no such folder, so no {self.title}. {self.expected}")
        found = self.find(root, split) if self.fits(root) else []
        if not found:
            raise DataError(f"{root}: holds no {self.title} ({folders_in(root)}). {self.expected}")
        return found


def files_by_name(folder: Path, suffixes: Collection[str], endings: tuple[str, ...] = ("",)) -> dict[str, Path]:
    """Return the files below a folder by the name that an image shares with its label.

    Args:
        folder: may be missing.
        suffixes: of the files, lower case, with the dot.
        endings: a file counts if its name without suffix ends in one of these; the first that fits is cut off.

    Returns:
        Relative path without suffix and ending -> file, in order.

    Raises:
        DataError: two files have one name.
    """
    files: dict[str, Path] = {}
    for path in walk_files(folder, suffixes) if folder.is_dir() else ():
        stem = path.relative_to(folder).with_suffix("").as_posix()
        ending = next((ending for ending in endings if stem.endswith(ending)), None)
        if ending is None:
            continue
        name = stem.removesuffix(ending)
        if name in files:
            raise DataError(f"{folder}: {files[name].name} and {path.name} would share one label; rename one of them")
        files[name] = path
    return files


def chosen_splits(root: Path, split: str | None, known: Collection[str]) -> list[str]:
    """Return the splits that a split stands for; None stands for all that are known.

    Raises:
        DataError: the split is unknown.
    """
    if split is None:
        return list(known)
    if split not in known:
        raise DataError(f"{root}: no split '{split}'; there are: {', '.join(known) or 'none'}")
    return [split]


def read_list(path: Path) -> list[str]:
    """Return the names in a file, one a line.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of names, one a line: {error}") from error


def tell_fault(what: str, names: Collection[str]) -> str:
    """Return a fault as one sentence: how many files have it, and the first of them."""
    return f"{len(names):,} {what}: {first_few(names)}"


def folders_in(root: Path) -> str:
    """Return the folders of a folder, for an error."""
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir())
    return f"its folders: {first_few(folders)}"
