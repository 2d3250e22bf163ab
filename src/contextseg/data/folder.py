"""Images and masks in two folders, with the same relative names: the layout for data of one's own."""

from pathlib import Path

from contextseg.conventions import IGNORE
from contextseg.data.data_set import DataSet, SplitFiles, chosen_splits, files_by_name
from contextseg.data.image_files import IMAGE_SUFFIXES, walk_files
from contextseg.data.label_files import LabelCode, read_values
from contextseg.data.label_space import LabelSpace
from contextseg.errors import DataError

_USUAL_SPLITS = ("train", "val", "test")


def is_folder(root: Path) -> bool:
    """Tell whether a folder holds images/ and labels/."""
    return (root / "images").is_dir() and (root / "labels").is_dir()


def find(
    root: Path,
    split: str | None,
    *,
    label_suffixes: frozenset[str] = frozenset({".png"}),
    image_endings: tuple[str, ...] = ("",),
    label_endings: tuple[str, ...] = ("",),
) -> list[SplitFiles]:
    """Find the files of a split: a folder right below images/.

    None takes everything below images/: as the splits train, val and test where there are no others, else as "all".

    Args:
        root: the data set.
        split: its name, or None.
        label_suffixes: of label files.
        image_endings: of the names of images, apart from what they share with their labels; see `files_by_name`.
        label_endings: the same for labels.

    Raises:
        DataError: the split is unknown, or two images would share one label.
    """
    folders = _subfolders(root / "images")
    if split is None:
        usual = [name for name in _USUAL_SPLITS if name in folders]
        chosen: list[str] | list[None] = usual if usual and _holds_only(root, usual) else [None]
    else:
        chosen = chosen_splits(root, split, folders)
    found = []
    for name in chosen:
        images, labels = (root / kind / (name or "") for kind in ("images", "labels"))
        suffixes = " or ".join(sorted(label_suffixes))
        found.append(
            SplitFiles(
                name or "all",
                files_by_name(images, IMAGE_SUFFIXES, image_endings),
                files_by_name(labels, label_suffixes, label_endings),
                image_place=str(images),
                label_place=f"{labels} (a {suffixes} of the same name)",
            )
        )
    return found


def read_code(root: Path) -> LabelCode:
    """Return the classes that classes.txt names; without it there are as many as the labels of all splits use.

    Raises:
        DataError: classes.txt or a label cannot be used.
    """
    space = LabelSpace(root.resolve().name, _class_names(root))
    return LabelCode(space, {i: i for i in range(space.n_classes)} | {IGNORE: IGNORE})


FOLDER = DataSet(
    title="image + mask folder",
    source="any images with masks",
    tree="""\
images/**/*.jpg, .png, .tif, ...     a split is a folder right below, such as images/val
labels/**/*.png                      the same names; value = class id, 255 = ignored
classes.txt                          optional: a name a line, the first is class 0""",
    fits=is_folder,
    find=find,
    code=read_code,
)


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _holds_only(root: Path, splits: list[str]) -> bool:
    """Tell whether images/ and labels/ hold nothing but the folders of these splits."""
    entries = [entry for kind in ("images", "labels") for entry in (root / kind).iterdir()]
    return {entry.name for entry in entries if not entry.name.startswith(".")} == set(splits)


def _class_names(root: Path) -> tuple[str, ...]:
    path = root / "classes.txt"
    if not path.exists():
        largest = max((_largest_id(label) for label in walk_files(root / "labels", {".png"})), default=-1)
        if largest < 0:
            raise DataError(f"{root}: the labels hold ignored pixels ({IGNORE}) only; expected class ids from 0")
        return tuple(f"class {i}" for i in range(largest + 1))
    try:
        names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as class names, one a line: {error}") from error
    return tuple(name.strip() for name in names)


def _largest_id(label: Path) -> int:
    values = read_values(label)
    largest = int(values.max(initial=-1, where=values != IGNORE))
    if largest > IGNORE:
        raise DataError(f"{label}: holds the label {largest}, expected class ids from 0 to {IGNORE - 1}")
    return largest
