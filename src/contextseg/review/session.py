"""What the page can ask: the classes, a page of images, one picture; and what it can tell: a decision.

Shape suffixes: N images, K clusters.
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextseg.errors import ClassesError, DataError
from contextseg.export.indexed_png import PngWriter
from contextseg.files import write_atomically
from contextseg.review.actions import Action, Correct
from contextseg.review.collection import Collection, count_pixels
from contextseg.review.corrections import Clusters, corrected
from contextseg.review.history import History, Timeline
from contextseg.review.pictures import cut_out, jpeg, planes, reduced

THUMBNAIL_PX = 256
VIEW_PX = 1600
"""Longest side of the picture that fills the window."""
N_EXAMPLES = 4
"""Cut-outs of each cluster."""
_EXAMPLE_PX = 128
_MIN_SHARE = 0.01  # of an image, for it to be found by the name of a class


class Review:
    """One run under review.

    Args:
        collection: the images and their masks.
        history: the decisions.
        thumbnails: folder of small pictures that are made once.
    """

    def __init__(self, collection: Collection, history: History, thumbnails: Path) -> None:
        self.collection = collection
        self.history = history
        self._thumbnails = thumbnails
        self._corrected_counts: dict[tuple[int, tuple[Correct, ...]], NDArray[np.int64]] = {}

    @property
    def timeline(self) -> Timeline:
        """The decisions so far."""
        return self.history.timeline

    def state(self) -> dict[str, Any]:
        """Return the classes with their share of all pixels, and what can be undone."""
        classes, counts_K = self.timeline.classes, self._counts_NK().sum(0)
        survivors = classes.survivors()
        shares_K = np.bincount(survivors, weights=counts_K, minlength=len(survivors)) / max(1, counts_K.sum())
        undo, redo = self.timeline.past[1:], self.timeline.future
        return {
            "classes": [
                {**entry.model_dump(mode="json"), "survivor": int(survivor), "share": float(share)}
                for entry, survivor, share in zip(classes.entries, survivors, shares_K, strict=True)
            ],
            "undo": type(undo[-1].action).__name__.lower() if undo else None,
            "redo": type(redo[-1].action).__name__.lower() if redo else None,
            "corrections": sum(isinstance(step.action, Correct) for step in undo),
        }

    def page(self, start: int, length: int, *, search: str = "", uncertain_first: bool = False) -> dict[str, Any]:
        """Return a part of the images that are found.

        Args:
            start: of the part, counted in what is found.
            length: of the part.
            search: a part of the file's name, or of the name of a class that covers 1 % of the image or more;
                capitals do not matter.
            uncertain_first: by mean confidence, lowest first; else by name.
        """
        found = np.flatnonzero(self._matches_N(search.strip().casefold()))
        if uncertain_first:
            found = found[np.argsort(self.collection.confidence_N[found], kind="stable")]
        part = found[start : start + length].tolist()
        return {"total": len(found), "images": [self._describe(index) for index in part]}

    def record(self, action: Action) -> None:
        """Carry out an action; see `History.record`."""
        self.history.record(action)

    def correct(self, index: int, point: tuple[int, int], to: int) -> None:
        """Give the region under a point another class.

        Args:
            index: of the image.
            point: (x, y) in pixels of the mask.
            to: id of the class.

        Raises:
            DataError: the point lies outside of the image.
            ClassesError: there is no such class, or the region is of this class already.
        """
        clusters_HW, (x, y), survivors = self.clusters(index), point, self.timeline.classes.survivors()
        height, width = clusters_HW.shape
        if not (0 <= x < width and 0 <= y < height):
            raise DataError(f"the point ({x}, {y}) lies outside of the image, which is {width} x {height} pixels")
        if not 0 <= to < len(survivors):
            raise ClassesError(f"there is no class {to}; ids go from 0 to {len(survivors) - 1}")
        current = survivors[clusters_HW[y, x]]
        if current == survivors[to]:
            raise ClassesError(f"the region is of class '{self.timeline.classes.entries[current].name}' already")
        members = tuple(np.flatnonzero(survivors == current).tolist())
        self.record(Correct(image=self.collection.names[index], point=point, members=members, to=to))

    def clusters(self, index: int) -> Clusters:
        """Read a mask with its corrections, (H, W)."""
        corrections = self.timeline.corrections(self.collection.names[index])
        return corrected(self.collection.clusters(index), corrections)

    def thumbnail(self, index: int) -> bytes:
        """Return an image as a small JPEG."""
        return self._kept(index, "jpg", lambda: jpeg(self._reduced(index, THUMBNAIL_PX)))

    def view(self, index: int) -> bytes:
        """Return an image as a JPEG that fills a window."""
        return jpeg(self._reduced(index, VIEW_PX))

    def planes(self, index: int, longest_px: int) -> tuple[Clusters, tuple[int, ...]]:
        """Return clusters and confidence for showing, see `pictures.planes`, and the mask's own (height, width)."""
        clusters_HW = self.clusters(index)
        return planes(clusters_HW, self.collection.confidence(index), longest_px), clusters_HW.shape

    def example(self, cluster: int, number: int) -> bytes:
        """Return a JPEG of the largest region of a cluster, in one of the images that hold most of it.

        Raises:
            DataError: so many images do not hold it.
        """
        counts_N = self.collection.counts_NK[:, cluster]
        best = np.argsort(-counts_N, kind="stable")[: number + 1]
        if len(best) <= number or counts_N[best[number]] == 0:
            raise DataError(f"cluster {cluster} has no example {number}")
        index = int(best[number])

        def make() -> bytes:
            picture = self._reduced(index, 2 * THUMBNAIL_PX)
            return jpeg(reduced(cut_out(picture, self.collection.clusters(index), cluster), _EXAMPLE_PX))

        return self._kept(index, f"{cluster}.jpg", make)

    def export(self, out: Path, advance: Callable[[int], None]) -> None:
        """Write all masks as indexed PNGs, with the names, merges, hidden classes and corrections of this moment.

        Args:
            out: gets the masks and classes.json.
            advance: is called with the number of masks just written.

        Raises:
            ImageError: a mask cannot be read.
            OSError: a file cannot be written.
        """
        corrections = {name: self.timeline.corrections(name) for name in self._corrected_names()}
        writer = PngWriter(out, self.timeline.classes)
        for index, name in enumerate(self.collection.names):
            clusters_HW = corrected(self.collection.clusters(index), corrections.get(name, []))
            writer.add(self.collection.images[index], Path(name), clusters_HW)
            advance(1)

    def _corrected_names(self) -> set[str]:
        return {step.action.image for step in self.timeline.past if isinstance(step.action, Correct)}

    def _counts_NK(self) -> NDArray[np.int64]:
        """Return the pixels of each cluster in each mask, corrections counted."""
        counts_NK = self.collection.counts_NK.copy()
        corrected_names = self._corrected_names()
        for index, name in enumerate(self.collection.names if corrected_names else ()):
            if name in corrected_names:
                key = (index, tuple(self.timeline.corrections(name)))
                if key not in self._corrected_counts:
                    counts_K = count_pixels(self.clusters(index), counts_NK.shape[1])
                    self._corrected_counts[key] = counts_K
                counts_NK[index] = self._corrected_counts[key]
        return counts_NK

    def _matches_N(self, text: str) -> NDArray[np.bool_]:
        """Return which images are found by a lower-case text."""
        if not text:
            return np.ones(len(self.collection.names), np.bool_)
        by_name = np.array([text in file.casefold() for file in self.collection.files])
        classes, survivors = self.timeline.classes, self.timeline.classes.survivors()
        wanted = [entry.id for entry in classes.entries if text in entry.name.casefold() and entry in classes.shown()]
        counts_NK = self._counts_NK()
        share_N = counts_NK[:, np.isin(survivors, wanted)].sum(1) / counts_NK.sum(1)
        return np.asarray(by_name | (share_N >= _MIN_SHARE))

    def _describe(self, index: int) -> dict[str, Any]:
        confidence = float(self.collection.confidence_N[index])
        return {
            "index": index,
            "file": self.collection.files[index],
            "confidence": None if math.isnan(confidence) else round(confidence, 4),
            "corrections": len(self.timeline.corrections(self.collection.names[index])),
        }

    def _reduced(self, index: int, longest_px: int) -> NDArray[np.uint8]:
        return reduced(self.collection.image(index, draft_px=longest_px), longest_px)

    def _kept(self, index: int, suffix: str, make: Callable[[], bytes]) -> bytes:
        """Return the content of a file that is made when it is missing or older than the image or its mask."""
        name = self.collection.names[index]
        path = self._thumbnails / f"{name}.{suffix}"
        sources = (self.collection.images[index], self.collection.masks / name)
        if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            write_atomically(path, make())
        return path.read_bytes()
