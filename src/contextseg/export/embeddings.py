"""Embeddings as NumPy files."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from contextseg.files import atomic


def write_embeddings(path: Path, embedded_Dhw: NDArray[np.floating]) -> None:
    """Write one image's embeddings, (D, h, w) float16, whole or not at all; its folder is made if need be.

    Raises:
        OSError: the file cannot be written.
    """
    with atomic(path) as file:
        np.save(file, embedded_Dhw.astype(np.float16))
