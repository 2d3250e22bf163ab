"""Numbers that every part of the package agrees on."""

STRIDE_PX = 4
"""Pixels of the network's input per cell of the feature grid, on each side."""
SIZE_MULTIPLE_PX = 32
"""The sides of every image that enters a network are multiples of this: the stride of the deepest map."""
MAX_PIXELS = 500_000_000
"""Image files with more pixels than this are left out, unless the settings say otherwise."""
IGNORE = 255
"""Value of a pixel without a class, in label images and in 8-bit masks."""
