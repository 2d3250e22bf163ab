"""Label files: the values that they store, and the classes that these stand for.

Only `evaluate`, the probes and `contextseg datasets check` come here; training never does.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from contextseg.conventions import IGNORE, MAX_PIXELS
from contextseg.data.images import without_pillow_limit
from contextseg.data.label_space import LabelSpace
from contextseg.errors import DataError

UNKNOWN = -1
"""Class of a value that stands for none."""

_FIRST_COLOUR = 1 << 24
# Pillow spreads grey PNGs of 2 and 4 bits over 0-255; labels need the stored values back.
_GREY_STEP = {"L;2": 85, "L;4": 17}
_N_SHOWN = 3


@dataclass(frozen=True)
class LabelCode:
    """What the values in the label files of a data set stand for.

    Attributes:
        space: the classes.
        class_of_value: id in a label file, or `colour` of one, -> class id or `IGNORE`; other values are errors.
    """

    space: LabelSpace
    class_of_value: Mapping[int, int]

    @property
    def has_colours(self) -> bool:
        """Whether label files may be colour images."""
        return max(self.class_of_value) >= _FIRST_COLOUR

    def classes(self, values: NDArray[np.int64]) -> NDArray[np.int16]:
        """Return the classes (H, W) of values (H, W): class ids, `IGNORE`, or `UNKNOWN`."""
        known = np.array(sorted(self.class_of_value), np.int64)
        class_of_known = np.array([self.class_of_value[value] for value in known.tolist()], np.int16)
        place = np.searchsorted(known, values).clip(max=len(known) - 1)
        return np.where(known[place] == values, class_of_known[place], np.int16(UNKNOWN))

    def unknown(self, values: NDArray[np.int64]) -> list[int]:
        """Return the values that stand for nothing, ascending."""
        found: list[int] = np.unique(values[self.classes(values) == UNKNOWN]).tolist()
        return found


def colour(red: int, green: int, blue: int) -> int:
    """Return the value of a colour in a label file, apart from all ids.

    >>> colour(0, 0, 255) == 255
    False
    """
    return _FIRST_COLOUR + (red << 16) + (green << 8) + blue


def read_classes(path: Path, code: LabelCode, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read a label file as classes.

    Args:
        path: a PNG or TIFF.
        code: what its values stand for.
        max_pixels: a file with more is refused before it is decoded.

    Returns:
        (H, W) uint8: class ids, or `IGNORE`.

    Raises:
        DataError: the file cannot be read, is no map of ids, or holds a value that stands for no class.
    """
    values = read_values(path, colours=code.has_colours, max_pixels=max_pixels)
    classes = code.classes(values)
    if (classes == UNKNOWN).any():
        unknown = first_few(map(show_value, code.unknown(values)))
        ignored = f", or {IGNORE} for ignored pixels" if IGNORE in code.class_of_value else ""
        raise DataError(
            f"{path}: holds the label {unknown}, expected {_show_known(code)} for the {code.space.n_classes} "
            f"classes{ignored}"
        )
    return classes.astype(np.uint8)


def read_values(path: Path, *, colours: bool = False, max_pixels: int = MAX_PIXELS) -> NDArray[np.int64]:
    """Read the values of a label file as they are stored: palette indices, not the colours that these show.

    Args:
        path: a PNG or TIFF.
        colours: whether it may be a colour image, whose values are `colour`.
        max_pixels: a file with more is refused before it is decoded.

    Returns:
        (H, W) int64.

    Raises:
        DataError: the file cannot be read, or is no map of ids.
    """
    try:
        with without_pillow_limit(), Image.open(path, formats=("PNG", "TIFF")) as image:
            if image.width * image.height > max_pixels:
                raise DataError(
                    f"{path}: the label has {image.width} x {image.height} pixels, more than {max_pixels:,}"
                )
            mode, step = image.mode, _grey_step(image)
            stored = np.asarray(image)
    except DataError:
        raise
    except Exception as error:
        # Decoders raise whatever damaged bytes lead them to; see read_image.
        raise DataError(f"{path}: the label cannot be read: {error}") from error
    if colours and mode == "RGB":
        packed: NDArray[np.int64] = _FIRST_COLOUR + stored.astype(np.int64) @ (1 << 16, 1 << 8, 1)
        return packed
    if stored.ndim != 2 or stored.dtype.kind not in "bui":
        also = "or colours of mode RGB" if colours else "if its colours stand for classes, convert them to ids first"
        raise DataError(
            f"{path}: the label is an image of mode {mode}, expected a single-channel PNG of class ids (mode L or P); "
            f"{also}"
        )
    ids: NDArray[np.int64] = stored.astype(np.int64) // step
    return ids


def show_value(value: int) -> str:
    """Return a value as people write it.

    >>> show_value(7), show_value(colour(255, 0, 0))
    ('7', '(255, 0, 0)')
    """
    if not _FIRST_COLOUR <= value < 2 * _FIRST_COLOUR:
        return str(value)
    return str(tuple((value - _FIRST_COLOUR).to_bytes(3)))


def first_few(things: Iterable[str]) -> str:
    """Return some things as one line: the first three of them.

    >>> first_few(["a", "b", "c", "d"])
    'a, b, c, ...'
    """
    shown = list(islice(things, _N_SHOWN + 1))
    return ", ".join([*shown[:_N_SHOWN], "..."] if len(shown) > _N_SHOWN else shown) or "none"


def _show_known(code: LabelCode) -> str:
    """Return the values that stand for a class: "0 to 10, 12" and colours."""
    known = sorted(code.class_of_value.keys() - {IGNORE})
    ids = [value for value in known if value < _FIRST_COLOUR]
    starts = [value for value in ids if value - 1 not in ids]
    ends = [value for value in ids if value + 1 not in ids]
    runs = [str(a) if a == b else f"{a} to {b}" for a, b in zip(starts, ends, strict=True)]
    return ", ".join([*runs, *map(show_value, known[len(ids) :])])


def _grey_step(image: ImageFile.ImageFile) -> int:
    """Return what the stored values have been multiplied by."""
    if not image.tile:
        return 1
    decoder = image.tile[0][3]
    return _GREY_STEP.get(str(decoder[0] if isinstance(decoder, tuple) else decoder), 1)
