import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from contextseg.colours import _oklab, palette
from contextseg.errors import DataError
from contextseg.export.indexed_png import colourise, overlay, save_png, write_confidence, write_mask


def voc_colours(n):
    """The bit-shuffled colours of PASCAL VOC, without its black background."""
    colours = np.zeros((n, 3), np.uint8)
    for i in range(1, n + 1):
        for bit in range(8):
            for channel in range(3):
                colours[i - 1, channel] |= ((i >> (3 * bit + channel)) & 1) << (7 - bit)
    return colours


def closest_pairs(colours):
    """(3,) the smallest OKLab distance of two colours in normal, protan and deutan vision."""
    lab = _oklab(colours)
    distance = np.linalg.norm(lab[:, :, None] - lab[:, None], axis=-1)
    distance[:, np.arange(len(colours)), np.arange(len(colours))] = np.inf
    return distance.min(axis=(1, 2))


def read(path):
    with Image.open(path) as image:
        image.load()
        return image


def test_oklab_of_published_colours():
    # White and the sRGB primaries, as CSS Color 4 converters give them.
    lab = _oklab(np.array([[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]], np.uint8))[0]
    expected = [
        [1, 0, 0],
        [0.62796, 0.22486, 0.12585],
        [0.86644, -0.23389, 0.17950],
        [0.45201, -0.03246, -0.31153],
    ]
    np.testing.assert_allclose(lab, expected, atol=1e-4)


def test_colour_blind_eyes_see_the_same_greys():
    greys = _oklab(np.repeat(np.array([[0], [64], [200], [255]], np.uint8), 3, axis=1))
    np.testing.assert_allclose(greys[1:], greys[[0, 0]], atol=1e-4)


@pytest.mark.parametrize("n", [8, 21, 27, 64])
def test_colours_stay_apart_for_every_eye_and_more_than_those_of_voc(n):
    ours, voc = closest_pairs(palette(n)), closest_pairs(voc_colours(n))
    assert (ours > voc).all()
    assert ours.min() > 3 * voc.min()


def test_a_short_palette_is_the_start_of_a_long_one():
    colours = palette(300)
    assert colours.shape == (300, 3)
    assert colours.dtype == np.uint8
    np.testing.assert_array_equal(palette(27), colours[:27])
    assert len(np.unique(colours, axis=0)) == 300
    # Black belongs to ignored pixels.
    assert np.flatnonzero((colours == 0).all(axis=1)).tolist() == [255]


def test_the_first_colours_are_fixed():
    # Pictures of old and new runs must show a cluster in one colour.
    assert palette(6).tolist() == [
        [105, 0, 225],
        [135, 150, 0],
        [165, 165, 255],
        [135, 0, 60],
        [195, 225, 0],
        [150, 105, 150],
    ]


@pytest.mark.parametrize("n", [0, 4097])
def test_a_palette_of_an_impossible_size(n):
    with pytest.raises(DataError, match=rf"1\.\.4096 colours, such as 27; got {n}"):
        palette(n)


@pytest.mark.parametrize("n_clusters", [1, 2, 3, 16, 27, 255])
def test_pixel_values_are_cluster_ids(tmp_path, n_clusters):
    # Few clusters are the danger: a short palette would let Pillow pack pixels into 1, 2 or 4 bits.
    mask = np.random.default_rng(n_clusters).integers(0, n_clusters, (7, 13))
    mask[0, 0], mask[6, 12], mask[2, 5] = 0, n_clusters - 1, 255
    colours = palette(n_clusters)
    write_mask(tmp_path / "deep" / "mask.png", mask, colours)
    image = read(tmp_path / "deep" / "mask.png")
    assert image.mode == "P"
    assert image.size == (13, 7)
    np.testing.assert_array_equal(np.array(image), mask)
    np.testing.assert_array_equal(np.array(image.convert("RGB")), colourise(mask, colours))
    assert image.convert("RGB").getpixel((5, 2)) == (0, 0, 0)
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["mask.png"]


@pytest.mark.parametrize("n_clusters", [256, 300, 1000])
def test_many_clusters_are_stored_in_16_bits(tmp_path, n_clusters):
    mask = np.random.default_rng(0).integers(0, n_clusters, (5, 11)).astype(np.int32)
    mask[0, 0], mask[4, 10], mask[1, 2], mask[3, 3] = 255, n_clusters - 1, 0, 65535
    write_mask(tmp_path / "mask.png", mask, palette(n_clusters))
    image = read(tmp_path / "mask.png")
    assert image.mode == "I;16"
    assert image.size == (11, 5)
    np.testing.assert_array_equal(np.array(image), mask)
    colours = colourise(mask, palette(n_clusters))
    assert colours[3, 3].tolist() == [0, 0, 0]
    assert colours[4, 10].tolist() == palette(n_clusters)[-1].tolist()


@pytest.mark.parametrize(
    ("mask", "n_clusters", "message"),
    [
        (np.array([[0, 3]]), 3, r"cluster id 3 is outside the palette: expected 0\.\.2, or 255"),
        (np.array([[0, -1]]), 3, "cluster id -1 is outside"),
        (np.array([[0, 300]]), 300, r"cluster id 300 is outside the palette: expected 0\.\.299, or 65535"),
        (np.zeros((2, 3)), 3, r"shape \(H, W\) and integers; got \(2, 3\) float64"),
        (np.zeros((2, 3, 1), int), 3, r"got \(2, 3, 1\)"),
        (np.zeros((0, 3), int), 3, r"got \(0, 3\)"),
    ],
)
def test_an_unusable_mask_writes_no_file(tmp_path, mask, n_clusters, message):
    colours = palette(n_clusters)
    with pytest.raises(DataError, match=message):
        write_mask(tmp_path / "mask.png", mask, colours)
    with pytest.raises(DataError, match=message):
        colourise(mask, colours)
    assert list(tmp_path.iterdir()) == []


def test_a_malformed_palette(tmp_path):
    with pytest.raises(DataError, match=r"shape \(K, 3\) and dtype uint8; got \(4, 3\) float64"):
        write_mask(tmp_path / "mask.png", np.zeros((2, 3), int), np.zeros((4, 3)))


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "mask.png"
    write_mask(path, np.array([[0, 1, 2]]), palette(3))
    before = path.read_bytes()
    with pytest.raises(OSError, match="cannot write mode"):
        save_png(path, Image.new("YCbCr", (2, 3)))
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_confidence_by_hand(tmp_path):
    # 0.5 * 255 = 127.5, to the even 128; 0.2 * 255 = 51; 1.0005 is a rounding error of 1
    confidence = np.array([[0.0, 0.2, 0.5], [1.0, 1.0005, -0.0005]])
    write_confidence(tmp_path / "confidence.png", confidence)
    image = read(tmp_path / "confidence.png")
    assert image.mode == "L"
    assert np.array(image).tolist() == [[0, 51, 128], [255, 255, 0]]


@pytest.mark.parametrize(
    ("confidence", "message"),
    [
        (np.array([[0.2, 1.2]]), r"must lie in 0\.\.1; the map holds 0\.2\.\.1\.2"),
        (np.array([[-0.1, 0.2]]), r"holds -0\.1\.\.0\.2"),
        (np.array([[0.2, np.nan]]), r"holds nan\.\.nan"),
        (np.array([[0, 1]]), "holds floats; got .* int64"),
        (np.zeros((1, 2, 3)), r"got \(1, 2, 3\)"),
    ],
)
def test_an_unusable_confidence(tmp_path, confidence, message):
    with pytest.raises(DataError, match=message):
        write_confidence(tmp_path / "confidence.png", confidence)
    assert list(tmp_path.iterdir()) == []


def test_colourise_by_hand():
    colours = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)
    rgb = colourise(np.array([[0, 1, 255]]), colours)
    assert rgb.dtype == np.uint8
    assert rgb.tolist() == [[[10, 20, 30], [40, 50, 60], [0, 0, 0]]]


def test_overlay_by_hand():
    colours = np.array([[200, 0, 0], [0, 100, 255]], np.uint8)
    image = np.full((1, 3, 3), 100, np.uint8)
    mask = np.array([[0, 1, 255]])
    # 0.75 * 100 + 0.25 * (200, 0, 0) = (125, 75, 75); 75 + 0.25 * (0, 100, 255) = (75, 100, 138.75)
    assert overlay(image, mask, colours, alpha=0.25).tolist() == [[[125, 75, 75], [75, 100, 139], [100] * 3]]
    np.testing.assert_array_equal(overlay(image, mask, colours, alpha=0), image)
    np.testing.assert_array_equal(overlay(image, mask, colours, alpha=1)[:, :2], colourise(mask, colours)[:, :2])
    assert overlay(image, mask, colours).dtype == np.uint8


def test_overlay_of_things_that_do_not_fit():
    image, mask = np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2), int)
    with pytest.raises(DataError, match=r"size of its mask \(3, 2\); got \(2, 3, 3\) uint8"):
        overlay(image, mask, palette(2))
    with pytest.raises(DataError, match=r"alpha must lie in 0\.\.1, such as 0\.5; got 50"):
        overlay(image, mask.T, palette(2), alpha=50)


def test_torch_is_not_imported():
    modules = "contextseg.export.indexed_png, contextseg.export.contact_sheet, contextseg.evaluation.table"
    code = f"import {modules}, contextseg.evaluation.counts, sys; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
