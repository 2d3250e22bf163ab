"""The name of each image's mask."""

import collections
from collections.abc import Sequence
from pathlib import Path

from contextseg.errors import DataError


def mask_names(paths: Sequence[Path], images: Path) -> dict[Path, Path]:
    """Return for each image the path of its mask, relative to the folder of masks.

    An image's mask lies in the image's sub-folder and ends in ".png"; images that differ in their suffix alone keep it
    (``a.jpg.png``). Where all images lie below `images`/images, that folder is left out of the names.

    Args:
        paths: the image files.
        images: the folder or the tar file that they were found in, or the one image.

    Raises:
        DataError: two images would have one mask, as a.jpg, a.png and a.jpg.png.
    """
    root = images.parent if list(paths) == [images] else images
    if (root / "images").is_dir() and all(path.is_relative_to(root / "images") for path in paths):
        root = root / "images"
    names = {path: path.relative_to(root.parent if path == root else root) for path in paths}
    n_same = collections.Counter(name.with_suffix("") for name in names.values())
    # a.jpg and a.png become a.jpg.png and a.png.png, any other a.jpg becomes a.png
    masks = {
        path: name.with_suffix(".png" if n_same[name.with_suffix("")] == 1 else f"{name.suffix}.png")
        for path, name in names.items()
    }
    if len(image_of := {name: path for path, name in masks.items()}) < len(masks):
        one, other = next((path, image_of[name]) for path, name in masks.items() if image_of[name] != path)
        raise DataError(f"{one} and {other}: both masks would be called {masks[one]}; rename one of the images")
    return masks
