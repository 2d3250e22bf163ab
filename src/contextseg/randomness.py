"""Random draws that can be repeated without a table.

Every random draw of a run comes from a generator keyed by *what it is for*: the seed, the epoch, the index of
the image and the name of the stream. The same key gives the same draw in any order, in any process and after a
resumed run.
"""

import zlib

import numpy as np


def keyed_rng(seed: int, stream: str, *key: int) -> np.random.Generator:
    """Return the generator of one key.

    Args:
        seed: the seed of the run, >= 0.
        stream: what the draws are for, such as ``"photometric-1"``.
        key: integers >= 0 that tell draws of a stream apart, such as (epoch, index).

    >>> first, again = (keyed_rng(0, "crop", 3, 14).integers(100, size=5) for _ in range(2))
    >>> first.tolist() == again.tolist()
    True
    """
    return np.random.default_rng([seed, zlib.crc32(stream.encode()), *key])
