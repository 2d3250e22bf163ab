"""Masks whose colour says the class, as VOC, CVAT and Datumaro read them.

A pixel's index is its class id + 1, and 0, in black, for background; its palette entry is the class's colour.
"""

import numpy as np
from numpy.typing import NDArray

from contextseg.classes import Classes
from contextseg.errors import DataError

BACKGROUND = "background"
"""Name of the index 0."""
_MAX_CLASSES = 254  # the index 255 is VOC's border


def background_first(classes: Classes, format_name: str) -> NDArray[np.uint8]:
    """Return the colours by index, black and then those of the classes: (K + 1, 3) uint8 RGB.

    Raises:
        DataError: there are too many classes, two that are shown have one colour, or one is black or is named as the
            background is.
    """
    if len(classes.entries) > _MAX_CLASSES:
        raise DataError(f"{format_name} holds at most {_MAX_CLASSES} classes; the run has {len(classes.entries)}")
    by_colour: dict[tuple[int, int, int], str] = {(0, 0, 0): BACKGROUND}
    for entry in classes.shown():
        if entry.name == BACKGROUND:
            raise DataError(
                f"class {entry.id} is named '{BACKGROUND}', which {format_name} keeps for pixels without a class: "
                f"hide it by `contextseg hide RUN {entry.id}`, or give it another name"
            )
        if (other := by_colour.setdefault(entry.colour, entry.name)) != entry.name:
            raise DataError(
                f"'{entry.name}' and '{other}' have the same colour {entry.colour}, and {format_name} tells classes "
                "by their colour; change one in classes.json"
            )
    return np.vstack([np.zeros((1, 3), np.uint8), classes.colours_K3])
