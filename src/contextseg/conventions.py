"""Numbers that every part of the package agrees on."""

STRIDE_PX = 4
"""Pixels of the network's input per cell of the feature grid, on each side."""
SIZE_MULTIPLE_PX = 32
"""The sides of every image that enters a network are multiples of this: the stride of the deepest map."""
MAX_PIXELS = 500_000_000
"""Image files with more pixels than this are left out, unless the settings say otherwise."""
FEW_CLASSES = 10
"""Up to so many, classes are found in another way: they are broad, and what tells many apart would part them."""
IGNORE = 255
"""Value of a pixel without a class, in label images and in 8-bit masks."""
IGNORE_16 = 65535
"""Value of a pixel without a class in 16-bit masks, which runs of more than 255 classes need."""
STRETCH_PERCENTILES = (0.1, 99.9)
"""Images of more than 8 bits are stretched to 0-255 from the first to the second of these."""


def ignore_value(n_classes: int) -> int:
    """Return the value of a pixel without a class in the masks of a run of so many classes."""
    return IGNORE if n_classes <= IGNORE else IGNORE_16


def pixels_at_once(device_type: str) -> int:
    """Return how many pixels of whole images are looked at together, at most, on a device of type "cpu", "cuda", ..

    On a CPU, maps that leave its cache cost more time than larger batches save.
    """
    return 2**18 if device_type == "cpu" else 2**20
