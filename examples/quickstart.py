"""From a folder of images to masks in ten lines: python examples/quickstart.py PHOTOS MASKS N_CLASSES."""

import sys
from pathlib import Path

from contextseg import ContextSegmenter
from contextseg.colours import palette
from contextseg.data.image_files import list_images
from contextseg.export.indexed_png import write_mask
from contextseg.export.names import mask_names

photos, masks, n_classes = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
segmenter = ContextSegmenter(n_classes=n_classes, verbose=True).fit(photos)
for path, name in mask_names(list_images(photos), photos).items():
    write_mask(masks / name, segmenter.predict(path).clusters, palette(n_classes))
