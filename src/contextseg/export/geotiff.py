"""GeoTIFF in, GeoTIFF out, by windows: what lies where on the earth stays where it is.

Shape suffixes: H, W height and width of a window in pixels; C bands.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contextseg.classes import Classes, looked_up
from contextseg.conventions import STRETCH_PERCENTILES, ignore_value
from contextseg.errors import ImageError
from contextseg.extras import import_extra
from contextseg.files import atomic_path

_BLOCK_PX = 512
_CACHE_MIB = 32  # GDAL's own default is a share of the machine's memory
_SAMPLE_PX = 1024  # longest side of the reduced raster that the stretch is taken from


class Raster:
    """A georeferenced raster, read by windows as the network sees it; made by `open_raster`.

    Its red, green and blue bands are taken, or its first three, or one band three times. Values of more than 8 bits are
    stretched as photographs are, from the 0.1 to the 99.9 percentile of the valid ones. Where alpha is 0 it is white.

    Attributes:
        size: (height, width) in pixels.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.size: tuple[int, int] = (source.height, source.width)
        band_of = {colour.name: band for band, colour in enumerate(source.colorinterp, start=1)}
        self.alpha: int | None = band_of.get("alpha")
        if {"red", "green", "blue"} <= band_of.keys():
            self.bands = [band_of[colour] for colour in ("red", "green", "blue")]
        else:
            self.bands = [1, 2, 3] if source.count >= 3 else [1, 1, 1]
        self.range = None if source.dtypes[self.bands[0] - 1] == "uint8" else self._range()

    def read(self, rows: slice, columns: slice) -> NDArray[np.uint8]:
        """Return the pixels of a window, (H, W, 3) uint8 RGB."""
        window = _window(rows, columns)
        values_CHW = self.source.read(self.bands, window=window)
        if self.range is not None:
            low, high = self.range
            stretched = (values_CHW.astype(np.float32) - low) * (255 / max(high - low, 1e-12))
            values_CHW = np.nan_to_num(np.clip(stretched, 0, 255).round(), nan=0).astype(np.uint8)
        if self.alpha is not None:
            values_CHW[:, self.source.read(self.alpha, window=window) == 0] = 255
        return np.moveaxis(values_CHW, 0, -1)

    def is_valid(self, rows: slice, columns: slice) -> NDArray[np.bool_]:
        """Return which pixels of a window have data, (H, W) bool: by nodata, mask or alpha."""
        return np.asarray(self.source.dataset_mask(window=_window(rows, columns)) > 0)

    def _range(self) -> tuple[float, float]:
        shrink = max(1.0, max(self.size) / _SAMPLE_PX)
        shape = (3, *(max(1, round(side / shrink)) for side in self.size))
        sample = self.source.read(self.bands, out_shape=shape, masked=True).compressed().astype(np.float64)
        finite = sample[np.isfinite(sample)]
        low, high = np.percentile(finite, STRETCH_PERCENTILES) if finite.size else (0.0, 0.0)
        return float(low), float(high)


class GeoTiffWriter:
    """Writes for each raster a GeoTIFF of class ids with its CRS and transform, and classes.json.

    Pixels without data, and those of hidden classes, have the value 255 (65535 for more than 255 classes), which is the
    nodata value of what is written: the raster's own could be a class id.

    Args:
        out: the folder.
        classes: names, colours, merges and hidden classes.

    Raises:
        LibraryError: rasterio is not installed.
    """

    def __init__(self, out: Path, classes: Classes) -> None:
        self.rasterio = import_extra("rasterio", "geo")
        self.out, self.classes = out, classes
        self.nodata = ignore_value(len(classes.entries))
        self.values_K = classes.values(background=self.nodata)
        classes.write(out / "classes.json")

    @contextmanager
    def open(self, image: Path) -> Iterator[Raster]:
        """Open a raster to read.

        Raises:
            ImageError: it cannot be read, then or in the body, or it has no place on the earth.
        """
        errors = self.rasterio.errors
        try:
            with warnings.catch_warnings(), self.rasterio.Env(GDAL_CACHEMAX=_CACHE_MIB):
                warnings.simplefilter("ignore", errors.NotGeoreferencedWarning)  # it is told below
                with self.rasterio.open(image) as source:
                    if source.crs is None and source.transform.is_identity:
                        raise ImageError(image, "has neither CRS nor transform; other formats, such as png, take it")
                    yield Raster(source)
        except errors.RasterioError as error:
            raise ImageError(image, f"cannot be read as a raster: {error}") from error

    def add(self, raster: Raster, name: Path, windows: Iterator[tuple[slice, slice, NDArray[np.integer[Any]]]]) -> None:
        """Write the clusters of one raster, window by window; the file appears when it is whole.

        Args:
            raster: what `open` has given.
            name: relative path of the file.
            windows: rows, columns and the (H, W) cluster of each pixel, which cover the raster.
        """
        height, width = raster.size
        profile = {
            "driver": "GTiff",
            "height": height,
            "width": width,
            "count": 1,
            "dtype": self.values_K.dtype,
            "crs": raster.source.crs,
            "transform": raster.source.transform,
            "nodata": self.nodata,
            "tiled": True,
            "blockxsize": _BLOCK_PX,
            "blockysize": _BLOCK_PX,
            "compress": "deflate",
            "bigtiff": "if_safer",
        }
        with atomic_path(self.out / name) as path, self.rasterio.open(path, "w", **profile) as target:
            if self.values_K.dtype == np.uint8:
                target.write_colormap(1, dict(enumerate(map(tuple, self.classes.colours_K3.tolist()))))
            target.update_tags(1, **{f"class_{entry.id}": entry.name for entry in self.classes.shown()})
            for rows, columns, clusters_HW in windows:
                values_HW = np.where(raster.is_valid(rows, columns), looked_up(self.values_K, clusters_HW), self.nodata)
                target.write(values_HW.astype(self.values_K.dtype), 1, window=_window(rows, columns))


def _window(rows: slice, columns: slice) -> tuple[tuple[int, int], tuple[int, int]]:
    return (rows.start, rows.stop), (columns.start, columns.stop)
