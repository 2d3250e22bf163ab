"""What the clusters look like over a sample of images: their shares, their confidence, their typical regions.

Shape suffixes: H, W height and width in pixels; K clusters.
"""

import heapq
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from contextseg.report.pictures import cut_out, data_uri

N_TYPICAL, N_UNCERTAIN = 6, 3
_N_LARGEST = 32  # regions of a cluster that are held
_SIDE_PX = 160


@dataclass(frozen=True, order=True)
class Region:
    """The largest connected region of a cluster in one image.

    Attributes:
        share: of the image's pixels, 0-1; regions are ordered by it, of equal ones the earlier image's is the larger.
        order: minus the number of the image in the survey.
        confidence: mean over its pixels.
        picture: the region outlined on a part of its image, as a data URI.
    """

    share: float
    order: int
    confidence: float = field(compare=False)
    picture: str = field(compare=False, repr=False)


class Survey:
    """Adds up predictions image by image, in memory that does not grow with their number.

    Typical of a cluster are, among its `_N_LARGEST` largest regions of different images, those of the highest mean
    confidence; the least certain ones have the lowest. Regions are connected by their sides.

    Args:
        n_clusters: K.

    Attributes:
        n_images: how many have been added.
    """

    def __init__(self, n_clusters: int) -> None:
        self.n_images = 0
        self._pixels_K = np.zeros(n_clusters, np.int64)
        self._confidence_K = np.zeros(n_clusters)
        self._largest: list[list[Region]] = [[] for _ in range(n_clusters)]

    def add(
        self,
        image_HW3: NDArray[np.uint8],
        clusters_HW: NDArray[np.unsignedinteger[Any]],
        confidence_HW: NDArray[np.float32],
    ) -> None:
        """Add the prediction of one image.

        Args:
            image_HW3: (H, W, 3) uint8 RGB.
            clusters_HW: ids, 0 to K - 1.
            confidence_HW: 0-1.
        """
        n_clusters = len(self._pixels_K)
        self._pixels_K += np.bincount(clusters_HW.ravel(), minlength=n_clusters)
        self._confidence_K += np.bincount(clusters_HW.ravel(), confidence_HW.ravel(), n_clusters)
        for cluster, box in enumerate(ndimage.find_objects(clusters_HW.astype(np.int32) + 1)):
            if box is not None:
                self._add_region(cluster, image_HW3, largest_region(clusters_HW == cluster, box), confidence_HW)
        self.n_images += 1

    def share_K(self) -> NDArray[np.float64]:
        """Return the share of all pixels that each cluster holds, (K,)."""
        return np.asarray(self._pixels_K / self._pixels_K.sum())

    def confidence_K(self) -> NDArray[np.float64]:
        """Return the mean confidence over the pixels of each cluster, (K,); NaN where it has none."""
        with np.errstate(invalid="ignore"):
            return self._confidence_K / self._pixels_K

    def typical(self, cluster: int) -> list[Region]:
        """Return the `N_TYPICAL` surest of a cluster's largest regions, the surest first."""
        return self._by_confidence(cluster)[:N_TYPICAL]

    def uncertain(self, cluster: int) -> list[Region]:
        """Return the `N_UNCERTAIN` least sure of a cluster's largest regions, the least sure first; none is typical."""
        return self._by_confidence(cluster)[N_TYPICAL:][::-1][:N_UNCERTAIN]

    def _by_confidence(self, cluster: int) -> list[Region]:
        return sorted(self._largest[cluster], key=lambda region: (-region.confidence, -region.order))

    def _add_region(
        self,
        cluster: int,
        image_HW3: NDArray[np.uint8],
        region_HW: NDArray[np.bool_],
        confidence_HW: NDArray[np.float32],
    ) -> None:
        held, share = self._largest[cluster], float(region_HW.mean())
        if len(held) == _N_LARGEST and share <= held[0].share:
            return
        (box,) = ndimage.find_objects(region_HW.astype(np.int8))
        picture = data_uri(cut_out(image_HW3, region_HW, box, _SIDE_PX))
        region = Region(share, -self.n_images, float(confidence_HW[region_HW].mean()), picture)
        (heapq.heappush if len(held) < _N_LARGEST else heapq.heappushpop)(held, region)


def largest_region(mask_HW: NDArray[np.bool_], box: tuple[slice, ...]) -> NDArray[np.bool_]:
    """Return the largest region of a mask that is connected by its sides; the first in reading order of equal ones.

    Args:
        mask_HW: not empty.
        box: rows and columns outside of which the mask is False.
    """
    labelled, _ = ndimage.label(mask_HW[box])
    region_HW = np.zeros_like(mask_HW)
    region_HW[box] = labelled == 1 + np.bincount(labelled.ravel())[1:].argmax()
    return region_HW
