"""Verify a copy of a data set: every image and every label is opened."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from contextseg.data.data_set import DataSet, SplitFiles, tell_fault
from contextseg.data.images import read_image
from contextseg.data.label_files import LabelCode, first_few, read_values, show_value
from contextseg.data.threads import map_ahead
from contextseg.errors import DataError, ImageError


@dataclass(frozen=True)
class CheckedSplit:
    """What was found in one split.

    Attributes:
        name: of the split.
        n_images: images that are there.
        n_published: images that it should have, None where nobody says so.
        faults: what is wrong, a sentence for each kind, with the number of files and an example.
    """

    name: str
    n_images: int
    n_published: int | None
    faults: tuple[str, ...]


def check_copy(
    data_set: DataSet,
    root: Path,
    split: str | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[CheckedSplit]:
    """Check the files of a data set: number, pairs, whether they can be read, sizes, and the values in the labels.

    Args:
        data_set: what the folder should hold.
        root: the folder.
        split: one split; None checks all, and misses those that are not there.
        on_progress: called with (pairs done, pairs in all) after each pair.

    Raises:
        DataError: the folder is not laid out like the data set, the split is unknown, or a list cannot be read.
    """
    found = data_set.files(root, split)
    code = data_set.code_of(root)
    n_pairs = sum(len(_pairs(files)) for files in found)
    n_done = 0
    checked = []
    for files in found:
        wrong: dict[str, list[str]] = {}
        for faults in map_ahead(lambda pair: list(_pair_faults(*pair, code)), _pairs(files)):
            for what, example in faults:
                wrong.setdefault(what, []).append(example)
            n_done += 1
            if on_progress is not None:
                on_progress(n_done, n_pairs)
        checked.append(_checked(data_set, files, [tell_fault(what, names) for what, names in wrong.items()]))
    return checked if split is not None else checked + _absent(data_set, checked)


def _pairs(files: SplitFiles) -> list[tuple[Path, Path]]:
    return [(image, files.labels[name]) for name, image in files.images.items() if name in files.labels]


def _pair_faults(image: Path, label: Path, code: LabelCode) -> Iterator[tuple[str, str]]:
    """Yield the kind of each fault of a pair, and how this pair shows it."""
    size = None
    try:
        size = read_image(image).shape[:2]
    except ImageError as error:
        yield "images cannot be read", f"{image.name} {error.reason}"
    try:
        values = read_values(label, colours=code.has_colours)
    except DataError as error:
        yield "labels cannot be read", str(error)
        return
    if size is not None and size != values.shape:
        yield (
            "labels have another size than their image",
            f"{label.name} ({values.shape[1]} x {values.shape[0]} for {size[1]} x {size[0]})",
        )
    if unknown := code.unknown(values):
        yield "labels hold values that stand for no class", f"{label.name} ({first_few(map(show_value, unknown))})"


def _checked(data_set: DataSet, files: SplitFiles, faults: list[str]) -> CheckedSplit:
    n_images, n_published = len(files.images), data_set.n_published.get(files.name)
    if n_published is not None and n_images != n_published:
        faults = [f"{n_images:,} images are there, {n_published:,} are published", *faults]
    return CheckedSplit(files.name, n_images, n_published, (*files.faults(), *faults))


def _absent(data_set: DataSet, checked: list[CheckedSplit]) -> list[CheckedSplit]:
    """Return the published splits that are not there at all; a folder without splits misses none."""
    if not any(one.name in data_set.n_published for one in checked):
        return []
    missing: dict[str, CheckedSplit] = {}
    for name, n_images in data_set.n_published.items():
        # "val-curated" and "val-all" are one part of the data: the first stands for it.
        missing.setdefault(_part(name), CheckedSplit(name, 0, n_images, ("is not there",)))
    there = {_part(one.name) for one in checked}
    return [one for part, one in missing.items() if part not in there]


def _part(split: str) -> str:
    return split.partition("-")[0]
