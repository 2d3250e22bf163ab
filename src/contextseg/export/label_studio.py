"""Predictions for Label Studio: tasks with a brush mask for each class, and the labelling interface that shows them.

Shape suffixes: H, W image height and width in pixels.
"""

import urllib.parse
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from contextseg.classes import Classes, looked_up
from contextseg.export.json_array import JsonArray
from contextseg.export.writer import file_name
from contextseg.files import atomic, write_atomically

_IMAGE, _LABEL = "image", "label"  # names of the two parts of the interface
_COUNT_BITS = np.array([3, 4, 8, 16])  # the four lengths of a run's count
_VALUE_BITS = 8
_CHANNELS = 4  # a brush mask is an RGBA image


class LabelStudioWriter:
    """Writes tasks.json and labels.xml; see `MaskWriter`.

    A task's image is ``/data/local-files/?d=`` and its path: Label Studio serves it from its own local storage.
    """

    def __init__(self, out: Path, classes: Classes) -> None:
        self.out = out
        self.names = {entry.id + 1: entry.name for entry in classes.shown()}
        self.values_K = classes.values(first=1, background=0)
        self.tasks = JsonArray()
        write_atomically(out / "labels.xml", _interface(classes))

    def add(self, image: Path, name: Path, clusters_HW: NDArray[np.unsignedinteger[Any]]) -> None:
        """Add the task of one image."""
        values_HW = looked_up(self.values_K, clusters_HW)
        height, width = values_HW.shape
        brushes = [
            {
                "id": f"class-{value - 1}",
                "from_name": _LABEL,
                "to_name": _IMAGE,
                "type": "brushlabels",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": brush_rle(values_HW == value), "brushlabels": [self.names[value]]},
            }
            for value in np.unique(values_HW).tolist()
            if value
        ]
        url = f"/data/local-files/?d={urllib.parse.quote(file_name(image, name))}"
        prediction = {"model_version": "contextseg", "result": brushes}
        self.tasks.append({"data": {_IMAGE: url}, "predictions": [prediction]})

    def finish(self) -> None:
        """Write the file of tasks."""
        with atomic(self.out / "tasks.json") as file:
            self.tasks.copy_to(file)


def brush_rle(mask_HW: NDArray[np.bool_]) -> list[int]:
    """Encode a mask as Label Studio does its brushes.

    The RGBA image that is 255 in the mask and 0 elsewhere, as a stream of bits: the number of its bytes (32 bits), the
    bits of a value less one (5), the four lengths of a count less one (4 each); then for each run a 1, which of the
    four lengths its count has (2), the count less one, and the value.

    Args:
        mask_HW: (H, W) bool.

    Returns:
        The bytes of the stream.
    """
    pixels = mask_HW.ravel()
    starts = np.flatnonzero(np.diff(pixels, prepend=~pixels[:1]))
    lengths = _CHANNELS * np.diff(starts, append=pixels.size)
    longest = 1 << int(_COUNT_BITS[-1])
    n_parts = -(-lengths // longest)
    counts = np.full(n_parts.sum(), longest)
    counts[np.cumsum(n_parts) - 1] = lengths - (n_parts - 1) * longest
    values = np.repeat(255 * pixels[starts].astype(np.int64), n_parts)

    which = np.searchsorted(1 << _COUNT_BITS, counts)
    n_bits = _COUNT_BITS[which]
    runs = ((((4 + which) << n_bits) | (counts - 1)) << _VALUE_BITS) | values
    head = f"{_CHANNELS * pixels.size:032b}{_VALUE_BITS - 1:05b}" + "".join(f"{bits - 1:04b}" for bits in _COUNT_BITS)
    head_bits = np.array(list(head), np.uint8)
    run_bits = _bits(runs, 1 + 2 + n_bits + _VALUE_BITS)
    return [int(byte) for byte in np.packbits(np.concatenate([head_bits, run_bits]))]


def _bits(numbers: NDArray[np.int64], n_bits: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the numbers one after the other in binary, each in its own number of bits, the highest first."""
    ends = np.cumsum(n_bits)
    bits = np.zeros(ends[-1], np.uint8)
    for place in range(int(n_bits.max())):
        long_enough = n_bits > place
        bits[ends[long_enough] - 1 - place] = (numbers[long_enough] >> place) & 1
    return bits


def _interface(classes: Classes) -> bytes:
    """Return the labelling interface: an image, and a brush for each class in its colour."""
    view = ElementTree.Element("View")
    ElementTree.SubElement(view, "Image", name=_IMAGE, value=f"${_IMAGE}", zoom="true")
    brushes = ElementTree.SubElement(view, "BrushLabels", name=_LABEL, toName=_IMAGE)
    for entry in classes.shown():
        ElementTree.SubElement(brushes, "Label", value=entry.name, background=f"#{bytes(entry.colour).hex()}")
    ElementTree.indent(view)
    return (ElementTree.tostring(view, encoding="unicode") + "\n").encode()
