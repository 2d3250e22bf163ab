"""COCO's stuff in its two shapes: panoptic PNGs, and run-length encoded masks.

Each class of an image is one segment. A category's id is the class id + 1: in COCO 0 means "no category". Hidden
classes are no category, and void in the PNGs.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects

from contextseg.classes import Classes, looked_up
from contextseg.export.indexed_png import save_png
from contextseg.export.json_array import JsonArray
from contextseg.export.writer import file_name
from contextseg.extras import import_extra
from contextseg.files import atomic


class _CocoFile:
    """A JSON file of COCO's, whose long parts are not held in memory."""

    def __init__(self, path: Path, classes: Classes) -> None:
        self.path = path
        self.categories = [
            {"id": entry.id + 1, "name": entry.name, "supercategory": "", "isthing": 0, "color": list(entry.colour)}
            for entry in classes.shown()
        ]
        self.images, self.annotations = JsonArray(), JsonArray()

    def add_image(self, name: str, size: tuple[int, ...]) -> int:
        """Add an image of (height, width), and return its id."""
        image_id = self.images.n_items + 1
        self.images.append({"id": image_id, "file_name": name, "height": size[0], "width": size[1]})
        return image_id

    def write(self) -> None:
        with atomic(self.path) as file:
            file.write(b'{"categories": ' + json.dumps(self.categories, ensure_ascii=False).encode())
            for key, array in ((b"images", self.images), (b"annotations", self.annotations)):
                file.write(b',\n"' + key + b'": ')
                array.copy_to(file)
            file.write(b"}\n")


class CocoPanopticWriter:
    """Writes annotations/panoptic_default.json and its PNGs; see `MaskWriter`."""

    def __init__(self, out: Path, classes: Classes) -> None:
        self.file = _CocoFile(out / "annotations" / "panoptic_default.json", classes)
        self.masks = self.file.path.with_suffix("")
        self.values_K = classes.values(first=1, background=0)

    def add(self, image: Path, name: Path, clusters_HW: NDArray[np.unsignedinteger[Any]]) -> None:
        """Write the PNG of one image, in which id = R + 256 G + 65536 B, and its segments."""
        values_HW = looked_up(self.values_K, clusters_HW)
        image_id = self.file.add_image(file_name(image, name), values_HW.shape)
        rgb_HW3 = np.stack([values_HW & 255, values_HW >> 8, np.zeros_like(values_HW)], axis=-1).astype(np.uint8)
        save_png(self.masks / name, Image.fromarray(rgb_HW3))
        segments = [
            {"id": value, "category_id": value, "area": area, "bbox": bbox, "iscrowd": 0}
            for value, area, bbox in _segments(values_HW)
        ]
        self.file.annotations.append({"image_id": image_id, "file_name": name.as_posix(), "segments_info": segments})

    def finish(self) -> None:
        """Write the JSON file."""
        self.masks.mkdir(parents=True, exist_ok=True)
        self.file.write()


class CocoRleWriter:
    """Writes annotations/instances_default.json with compressed run lengths; see `MaskWriter`."""

    def __init__(self, out: Path, classes: Classes) -> None:
        self.coco = import_extra("pycocotools.mask", "coco")
        self.file = _CocoFile(out / "annotations" / "instances_default.json", classes)
        self.values_K = classes.values(first=1, background=0)

    def add(self, image: Path, name: Path, clusters_HW: NDArray[np.unsignedinteger[Any]]) -> None:
        """Add one image and the masks of its classes."""
        values_HW = looked_up(self.values_K, clusters_HW)
        image_id = self.file.add_image(file_name(image, name), values_HW.shape)
        for value, area, bbox in _segments(values_HW):
            rle = self.coco.encode(np.asfortranarray(values_HW == value, dtype=np.uint8))
            self.file.annotations.append(
                {
                    "id": self.file.annotations.n_items + 1,
                    "image_id": image_id,
                    "category_id": value,
                    "segmentation": {"size": list(values_HW.shape), "counts": rle["counts"].decode("ascii")},
                    "area": area,
                    "bbox": bbox,
                    "iscrowd": 0,
                }
            )

    def finish(self) -> None:
        """Write the JSON file."""
        self.file.write()


def _segments(values_HW: NDArray[np.unsignedinteger[Any]]) -> list[tuple[int, int, list[int]]]:
    """Return value, pixels and box [x, y, width, height] of each value above 0 that there is."""
    found = []
    for value, box in enumerate(find_objects(values_HW), start=1):
        if box is not None:
            rows, columns = box
            area = int(np.count_nonzero(values_HW[box] == value))
            x, y = columns.start, rows.start
            found.append((value, area, [x, y, columns.stop - x, rows.stop - y]))
    return found
