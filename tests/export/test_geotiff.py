"""GeoTIFFs, read back by rasterio: the places, the pixels, and how much memory it takes."""

import sys
import warnings

import numpy as np
import pytest
import rasterio
from exported_masks import CLASSES
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from contextseg.classes import Classes
from contextseg.errors import ImageError, LibraryError
from contextseg.export.geotiff import GeoTiffWriter

# pixels of 0.5 x 0.25 m, turned a little, so that no swap of axes can pass
PLACE = {"crs": "EPSG:32633", "transform": Affine(0.5, 0.125, 400_000, 0.0625, -0.25, 5_800_000)}


def write_raster(path, values_CHW, colours=None, **profile):
    count, height, width = values_CHW.shape
    profile = {"driver": "GTiff", "count": count, "height": height, "width": width, "dtype": values_CHW.dtype} | profile
    with rasterio.open(path, "w", **profile) as target:
        target.write(values_CHW)
        if colours is not None:
            target.colorinterp = colours
    return path


def windows_of(clusters_HW, step=20):
    """Yield the clusters in windows of uneven sizes."""
    height, width = clusters_HW.shape
    for left in range(0, width, 3 * step):
        for top in range(0, height, step):
            rows, columns = slice(top, min(top + step, height)), slice(left, min(left + 3 * step, width))
            yield rows, columns, clusters_HW[rows, columns]


def test_places_names_and_pixels(tmp_path, rng):
    values = rng.integers(1, 256, (3, 70, 130), np.uint8)
    values[:, 10:20, 30:60] = 0
    path = write_raster(tmp_path / "in.tif", values, nodata=0, photometric="rgb", **PLACE)
    clusters = rng.integers(0, 6, (70, 130), np.uint8)
    writer = GeoTiffWriter(tmp_path / "out", CLASSES)
    with writer.open(path) as raster:
        assert raster.size == (70, 130)
        whole = raster.read(slice(0, 70), slice(0, 130))
        assert np.array_equal(raster.read(slice(7, 9), slice(40, 99)), whole[7:9, 40:99])
        writer.add(raster, tmp_path / "out" / "may" / "map.tif", windows_of(clusters))
    assert np.array_equal(whole, np.moveaxis(values, 0, -1))
    expected = np.array([0, 255, 2, 3, 2, 5], np.uint8)[clusters]  # 1 is hidden, 4 is part of 2
    expected[10:20, 30:60] = 255
    with rasterio.open(tmp_path / "out" / "may" / "map.tif") as written:
        assert written.crs == rasterio.CRS.from_string(PLACE["crs"])
        assert written.transform == PLACE["transform"]
        assert (written.nodata, written.dtypes, written.block_shapes) == (255, ("uint8",), [(512, 512)])
        assert np.array_equal(written.read(1), expected)
        assert np.array_equal(written.dataset_mask() == 0, expected == 255)
        assert {id_: written.colormap(1)[id_][:3] for id_ in range(6)} == {e.id: e.colour for e in CLASSES.entries}
        names = {key: name for key, name in written.tags(1).items() if key.startswith("class_")}
    assert names == {"class_0": "sky", "class_2": "dirt road", "class_3": "Häuser & Höfe", "class_5": "class 5"}
    assert {file.name for file in (tmp_path / "out").rglob("*")} == {"may", "map.tif", "classes.json"}


def test_more_classes_than_a_byte_holds(tmp_path, rng):
    path = write_raster(tmp_path / "in.tif", rng.integers(0, 256, (3, 5, 9), np.uint8), **PLACE)
    clusters = np.full((5, 9), 255, np.uint16)
    clusters[2, 3:5] = 299, 7
    writer = GeoTiffWriter(tmp_path / "out", Classes.numbered(300).hide([7]))
    with writer.open(path) as raster:
        writer.add(raster, tmp_path / "out" / "map.tif", windows_of(clusters))
    with rasterio.open(tmp_path / "out" / "map.tif") as written:
        assert written.nodata == 65535
        assert written.read(1)[2].tolist() == [255, 255, 255, 299, 65535, 255, 255, 255, 255]


def read_whole(tmp_path, path):
    writer = GeoTiffWriter(tmp_path / "out", Classes.numbered(2))
    with writer.open(path) as raster:
        both = slice(0, raster.size[0]), slice(0, raster.size[1])
        return raster.read(*both), raster.is_valid(*both)


def test_bands_are_taken_by_their_colour(tmp_path, rng):
    values = rng.integers(0, 256, (4, 6, 7), np.uint8)
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.undefined, ColorInterp.red]
    pixels, valid = read_whole(tmp_path, write_raster(tmp_path / "in.tif", values, colours, **PLACE))
    assert np.array_equal(pixels, np.stack([values[3], values[1], values[0]], axis=-1))
    assert valid.all()


def test_one_band_is_grey_and_stretched_without_what_is_no_data(tmp_path):
    # 1001 values from 100 to 1100, and no data beside them. The 0.1 percentile is 101, the 99.9 one 1099.
    values = np.full((1, 2, 1001), -9999, np.float32)
    values[0, 0] = np.arange(100, 1101)
    values[0, 1, 0] = np.nan
    pixels, valid = read_whole(tmp_path, write_raster(tmp_path / "in.tif", values, nodata=-9999, **PLACE))
    assert np.array_equal(valid[0], np.ones(1001, bool))
    assert not valid[1, 1:].any()
    expected = np.clip((np.arange(100, 1101) - 101) * 255 / 998, 0, 255).round()
    assert np.array_equal(pixels[0], np.repeat(expected[:, None], 3, axis=1))
    assert (pixels[1] == 0).all()


def test_where_alpha_is_0_is_white_and_no_data(tmp_path, rng):
    values = rng.integers(0, 200, (4, 6, 7), np.uint8)
    values[3] = 255
    values[3, 2, 4] = 0
    colours = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    pixels, valid = read_whole(tmp_path, write_raster(tmp_path / "in.tif", values, colours, **PLACE))
    assert pixels[2, 4].tolist() == [255, 255, 255]
    assert pixels[2, 5].tolist() == values[:3, 2, 5].tolist()
    assert np.argwhere(~valid).tolist() == [[2, 4]]


def test_a_raster_of_one_value_is_black(tmp_path):
    values = np.full((3, 4, 5), 700, np.uint16)
    pixels, _ = read_whole(tmp_path, write_raster(tmp_path / "in.tif", values, **PLACE))
    assert (pixels == 0).all()


def test_what_is_no_georeferenced_raster_is_told(tmp_path, rng):
    writer = GeoTiffWriter(tmp_path / "out", Classes.numbered(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)
        nowhere = write_raster(tmp_path / "nowhere.tif", rng.integers(0, 256, (3, 4, 5), np.uint8))
    with pytest.raises(ImageError, match=r"nowhere.tif: has neither CRS nor transform"), writer.open(nowhere):
        pass
    (tmp_path / "text.tif").write_text("not a raster")
    with pytest.raises(ImageError, match=r"text.tif: cannot be read as a raster"), writer.open(tmp_path / "text.tif"):
        pass


def test_a_raster_that_breaks_off_leaves_no_file(tmp_path, rng):
    path = write_raster(tmp_path / "in.tif", rng.integers(0, 256, (3, 64, 64), np.uint8), compress="deflate", **PLACE)
    path.write_bytes(path.read_bytes()[:9000])
    writer = GeoTiffWriter(tmp_path / "out", Classes.numbered(2))

    def windows(raster):
        for rows in (slice(0, 32), slice(32, 64)):
            yield rows, slice(0, 64), raster.read(rows, slice(0, 64))[..., 0] % 2

    with pytest.raises(ImageError, match=r"in.tif: cannot be read as a raster"), writer.open(path) as raster:
        writer.add(raster, tmp_path / "out" / "map.tif", windows(raster))
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["classes.json"]


def test_an_absent_library_is_named_with_what_installs_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(LibraryError, match=r"rasterio, which is not installed: pip install 'contextseg\[geo\]'"):
        GeoTiffWriter(tmp_path / "out", Classes.numbered(2))
    assert not (tmp_path / "out").exists()
