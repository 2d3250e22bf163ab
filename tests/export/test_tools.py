"""The tools' own readers, where they are installed (``pip install -e .[dev]``), find the pixels and the names."""

import json
from pathlib import Path

import numpy as np
import pytest

from contextseg.export.coco import CocoPanopticWriter, CocoRleWriter
from contextseg.export.datumaro import DatumaroWriter
from contextseg.export.label_studio import LabelStudioWriter
from contextseg.export.voc import VocWriter

# These libraries warn of their own and of each other's old ways.
pytestmark = pytest.mark.filterwarnings("default")


def read_by_datumaro(path: Path, format_name: str) -> dict[str, np.ndarray]:
    """Return the names of each item's pixels."""
    datumaro = pytest.importorskip("datumaro", reason="datumaro is not installed")
    dataset = datumaro.Dataset.import_from(str(path), format_name)
    labels = [label.name for label in dataset.categories()[datumaro.AnnotationType.label].items]
    found = {}
    for item in dataset:
        masks = [annotation for annotation in item.annotations if annotation.type == datumaro.AnnotationType.mask]
        size = masks[0].image.shape if masks else item.media.size
        found[item.id] = np.full(size, "", "<U20")
        for mask in masks:
            found[item.id][mask.image.astype(bool)] = labels[mask.label]
    return found


@pytest.mark.parametrize(
    ("writer_class", "format_name", "images", "background"),
    [
        (VocWriter, "voc_segmentation", "JPEGImages", ""),  # CVAT reads its "Segmentation mask 1.1" by Datumaro too
        (DatumaroWriter, "common_semantic_segmentation", None, "background"),
        (CocoPanopticWriter, "coco_panoptic", "images", ""),
        (CocoRleWriter, "coco_instances", "images", ""),
    ],
)
def test_datumaro(exported, writer_class, format_name, images, background):
    found = exported(writer_class)
    if images is not None:
        found.images.rename(found.path / images)
    read = read_by_datumaro(found.path, format_name)
    separator = "__" if writer_class is DatumaroWriter else "/"
    assert len(read) == len(found.names)
    for image, names in found.names.items():
        stem = Path(image).with_suffix("").as_posix().replace("/", separator)
        assert np.array_equal(read[stem], np.where(names == "", background, names))


def test_label_studio(exported):
    brush = pytest.importorskip("label_studio_converter.brush", reason="label-studio-converter is not installed")
    found = exported(LabelStudioWriter)
    tasks = json.loads((found.path / "tasks.json").read_text(encoding="utf-8"))
    for task, names in zip(tasks, found.names.values(), strict=True):
        read = np.full(names.shape, "", names.dtype)
        for result in task["predictions"][0]["result"]:
            mask = brush.decode_rle(result["value"]["rle"]).reshape(*names.shape, 4)[..., 3]
            (read[mask == 255],) = result["value"]["brushlabels"]
        assert np.array_equal(read, names)
