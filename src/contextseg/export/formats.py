"""The formats of masks by name."""

from contextseg.export.coco import CocoPanopticWriter, CocoRleWriter
from contextseg.export.datumaro import DatumaroWriter
from contextseg.export.fiftyone import FiftyOneWriter
from contextseg.export.indexed_png import PngWriter
from contextseg.export.label_studio import LabelStudioWriter
from contextseg.export.voc import VocWriter
from contextseg.export.writer import MaskWriter

MASK_WRITERS: dict[str, type[MaskWriter]] = {
    "png": PngWriter,
    "voc": VocWriter,
    "coco-panoptic": CocoPanopticWriter,
    "coco-rle": CocoRleWriter,
    "label-studio": LabelStudioWriter,
    "datumaro": DatumaroWriter,
    "fiftyone": FiftyOneWriter,
}
