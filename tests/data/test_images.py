import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contextseg.data.image_files import list_images, relative_name
from contextseg.data.images import (
    read_for_training,
    read_image,
    read_to_look_at,
    resize,
    resize_for_training,
    training_size,
)
from contextseg.errors import ImageError, SettingsError

# --- read_image: what cannot be read


def test_hard_folder(hard_folder):
    root, reasons = hard_folder
    names = [relative_name(path, root) for path in list_images(root)]
    assert set(reasons) < set(names)
    for name in names:
        if name in reasons:
            with pytest.raises(ImageError, match=f"{name}: {reasons[name]}") as caught:
                read_for_training(root / name, shorter_px=32, multiple=32)
            assert caught.value.path == root / name
        else:
            image = read_for_training(root / name, shorter_px=32, multiple=32)
            assert image.dtype == np.uint8
            # 48 x 64 -> 32 x 42.7, the nearest multiple is 32; the panorama is cropped to 4:1
            assert image.shape == ((32, 128, 3) if name == "wide.png" else (32, 32, 3))


def test_folder_instead_of_a_file(tmp_path):
    with pytest.raises(ImageError, match="is a folder, not an image file"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match=r"x\.jpg: does not exist"):
        read_image(tmp_path / "x.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path):
    Image.new("RGB", (20, 20)).save(tmp_path / "a.png")
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(ImageError, match="permission denied"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "webp", "bmp"])
def test_every_damaged_file_is_an_image_error_or_an_image(tmp_path, rng, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rng.integers(0, 256, (40, 30, 3), np.uint8)).save(path)
    whole = path.read_bytes()
    n_refused = 0
    for _ in range(60):
        damaged = bytearray(whole[: rng.integers(1, len(whole) + 1)])
        for place in rng.integers(0, min(len(damaged), 200), 3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            assert read_image(path).shape[2] == 3
        except ImageError:
            n_refused += 1
    assert n_refused > 10


def test_too_many_pixels_are_refused_before_decoding(tmp_path):
    path = tmp_path / "a.png"
    Image.new("1", (300, 200)).save(path)
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ImageError, match=r"has 300 x 200 = 60,000 pixels, more than max_pixels = 59,999; .* raise"):
        read_image(path, max_pixels=59_999)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_pillows_own_limit_does_not_hold_and_stays_as_it_was(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    monkeypatch.setattr("contextseg.data.images._LARGE_PIXELS", 100)
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (40, 30), "red").save(path)
    assert read_image(path).shape == (30, 40, 3)
    assert Image.MAX_IMAGE_PIXELS == 100
    path.write_bytes(b"x" * 100)
    with pytest.raises(ImageError, match="is not a JPEG"):
        read_image(path)
    assert Image.MAX_IMAGE_PIXELS == 100


def test_formats_that_start_programs_are_not_tried(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\nshowpage\n")
    with pytest.raises(ImageError, match="is not a JPEG"):
        read_image(tmp_path / "a.jpg")


# --- read_image: conversions

# What a viewer shows: 2 rows of 3 pixels, all different.
SHOWN = np.array([[10, 20, 30], [40, 50, 60]], np.uint8)

# EXIF names the sides of the picture at which row 0 and column 0 of the file lie. For 6, right and top:
# row 0 of the file is the right column read downwards (30, 60).
STORED = {
    1: [[10, 20, 30], [40, 50, 60]],
    2: [[30, 20, 10], [60, 50, 40]],
    3: [[60, 50, 40], [30, 20, 10]],
    4: [[40, 50, 60], [10, 20, 30]],
    5: [[10, 40], [20, 50], [30, 60]],
    6: [[30, 60], [20, 50], [10, 40]],
    7: [[60, 30], [50, 20], [40, 10]],
    8: [[40, 10], [50, 20], [60, 30]],
}


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jpg"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation(tmp_path, suffix, orientation):
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    # blocks of 16 pixels, so that JPEG keeps the values nearly
    stored = np.kron(np.array(STORED[orientation], np.uint8), np.ones((16, 16), np.uint8))
    options = {"jpg": {"quality": 100}, "webp": {"lossless": True}}.get(suffix, {})
    Image.fromarray(stored).convert("RGB").save(path, exif=exif, **options)
    image = read_image(path)
    assert image.shape == (32, 48, 3)
    np.testing.assert_allclose(image[8::16, 8::16, 0].astype(int), SHOWN, atol=2)


def test_exif_orientation_of_compressed_and_16_bit_tiff(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = np.array(STORED[6], np.uint16) * 100
    Image.fromarray(stored).save(tmp_path / "a.tif", exif=exif)
    Image.fromarray(stored).save(tmp_path / "b.tif", exif=exif, compression="tiff_lzw")
    image = read_image(tmp_path / "a.tif")
    assert image.shape == (2, 3, 3)
    np.testing.assert_array_equal(np.argsort(image[..., 0], axis=None), np.arange(6))
    np.testing.assert_array_equal(read_image(tmp_path / "b.tif"), image)


def test_damaged_exif_does_not_lose_the_picture(tmp_path):
    Image.new("RGB", (20, 16), "red").save(tmp_path / "a.png", exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xffbroken")
    assert read_image(tmp_path / "a.png").shape == (16, 20, 3)


def test_one_channel_and_one_bit_are_replicated(tmp_path):
    Image.fromarray(SHOWN).save(tmp_path / "grey.png")
    Image.fromarray(SHOWN > 35).save(tmp_path / "bit.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(SHOWN[..., None], 3, axis=2))
    np.testing.assert_array_equal(read_image(tmp_path / "bit.png")[..., 1], [[0, 0, 0], [255, 255, 255]])


def test_16_bit_is_stretched_between_its_percentiles(tmp_path):
    # 5000, 5010, ..., 15000: the 0.1 and 99.9 percentiles of these 1001 are 5010 and 14990
    values = (5000 + 10 * np.arange(1001, dtype=np.uint16)).reshape(7, 143)
    Image.fromarray(values).save(tmp_path / "a.png")
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.png")
    expected = np.clip((values.astype(float) - 5010) * 255 / 9980, 0, 255).round()
    np.testing.assert_allclose(image, np.repeat(expected[..., None], 3, axis=2), atol=1)  # 127.5 goes either way
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


def test_big_endian_16_bit(tmp_path):
    values = (np.arange(600, dtype=np.uint16) * 50).reshape(20, 30)
    Image.frombytes("I;16B", (30, 20), values.astype(">u2").tobytes()).save(tmp_path / "big.tif")
    Image.fromarray(values).save(tmp_path / "little.tif")
    np.testing.assert_array_equal(read_image(tmp_path / "big.tif"), read_image(tmp_path / "little.tif"))


def test_float_is_stretched_and_may_hold_nan(tmp_path):
    values = np.linspace(-3, 7, 2001, dtype=np.float32).reshape(3, 667)
    values[1, 5], values[2, 6], values[0, 7] = np.nan, np.inf, -np.inf
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")[..., 0]
    assert (image[1, 5], image[2, 6], image[0, 7]) == (0, 255, 0)
    assert image[0, 0] == 0
    assert image[2, -1] == 255
    # the middle of the range is the middle of the greys
    assert image[1, 333] in {127, 128}


@pytest.mark.parametrize("value", [7.5, np.nan])
def test_flat_float_is_black(tmp_path, value):
    Image.fromarray(np.full((20, 30), value, np.float32)).save(tmp_path / "a.tif")
    assert not read_image(tmp_path / "a.tif").any()


def test_32_bit_integers(tmp_path):
    values = 2**31 - 1 - np.arange(600, dtype=np.int32).reshape(20, 30)
    Image.fromarray(values).save(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif")[..., 0]
    assert image[0, 0] == 255
    assert image[-1, -1] == 0


def test_transparency_is_white(tmp_path):
    rgba = np.array([[[200, 100, 0, 255], [200, 100, 0, 0], [200, 100, 0, 51]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "rgba.png")
    # a fifth of the colour, four fifths of white: 40 + 204, 20 + 204, 0 + 204
    np.testing.assert_array_equal(
        read_image(tmp_path / "rgba.png"), [[[200, 100, 0], [255, 255, 255], [244, 224, 204]]]
    )
    Image.merge("LA", [Image.fromarray(rgba[..., 0]), Image.fromarray(rgba[..., 3])]).save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png")[0, :, 2], [200, 255, 244])


@pytest.mark.parametrize("transparency", [1, b"\xff\x00\xff"], ids=["index", "bytes"])
def test_palette_with_transparency(tmp_path, transparency):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode=None).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette([9, 8, 7, 50, 60, 70, 1, 2, 3])
    image.save(tmp_path / "plain.png")
    image.save(tmp_path / "clear.png", transparency=transparency)
    np.testing.assert_array_equal(read_image(tmp_path / "plain.png"), [[[9, 8, 7], [50, 60, 70], [1, 2, 3]]])
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), [[[9, 8, 7], [255, 255, 255], [1, 2, 3]]])


def test_cmyk(tmp_path):
    # full yellow ink on white paper
    Image.new("CMYK", (32, 16), (0, 0, 255, 0)).save(tmp_path / "a.jpg", quality=100)
    np.testing.assert_allclose(read_image(tmp_path / "a.jpg")[8, 8], [255, 255, 0], atol=2)


def test_first_frame(tmp_path):
    frames = [Image.new("RGB", (20, 16), colour) for colour in ("red", "blue")]
    for suffix in ("tif", "webp", "png"):
        path = tmp_path / f"a.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        np.testing.assert_allclose(read_image(path)[8, 8], [255, 0, 0], atol=2)


# --- the size for training


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (360, 480, (192, 256)),
        (480, 360, (256, 192)),
        (213, 320, (192, 288)),  # 288.45
        (300, 300, (192, 192)),
        (300, 320, (192, 192)),  # 204.8
        (300, 325, (192, 224)),  # 208, half way: up
        (10, 40, (192, 768)),
    ],
)
def test_training_size(height, width, expected):
    assert training_size(height, width, 192, 32) == expected


@given(height=st.integers(1, 5000), width=st.integers(1, 5000), n=st.integers(1, 20))
def test_training_size_is_the_nearest_multiple(height, width, n):
    h, w = training_size(height, width, 32 * n, 32)
    assert min(h, w) == 32 * n
    assert (h - w) * (height - width) >= 0
    longer = max(height, width) * 32 * n / min(height, width)
    assert max(h, w) % 32 == 0
    assert abs(max(h, w) - longer) <= 16 + 1e-6
    assert training_size(width, height, 32 * n, 32) == (w, h)


@pytest.mark.parametrize("shorter_px", [100, 16, 0])
def test_training_size_wants_a_multiple(shorter_px):
    with pytest.raises(SettingsError, match=f"shorter_px is {shorter_px}; it must be a multiple of 32, such as"):
        training_size(480, 640, shorter_px, 32)


def test_resize_keeps_the_picture_in_place():
    # dark above 1/4 of the height, red right of 2/3 of the width; bicubic reaches two pixels over an edge
    image = np.full((120, 180, 3), 200, np.uint8)
    image[:30] = 20
    image[:, 120:, 1:] = 0
    small = resize_for_training(image, 32, 32)
    assert small.shape == (32, 64, 3)  # 32 x 48 is half way, so up
    np.testing.assert_array_equal(small[:6, :40], 20)
    np.testing.assert_array_equal(small[10:, :40], 200)
    np.testing.assert_array_equal(small[10:, 46:], np.broadcast_to([200, 0, 0], (22, 18, 3)))


@pytest.mark.parametrize("portrait", [False, True])
def test_panoramas_lose_their_ends(portrait):
    # 20 x 200 is 10:1; the middle 80 columns, 60 to 139, are kept
    image = np.zeros((20, 200, 3), np.uint8)
    image[:, 60:140] = 255
    if portrait:
        image = image.swapaxes(0, 1)
    small = resize_for_training(image, 32, 32)
    assert small.shape == ((128, 32, 3) if portrait else (32, 128, 3))
    assert small.min() == 255


def test_antialiasing():
    # a board of single pixels becomes even grey, not a pattern
    board = np.repeat((np.indices((320, 320)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    assert np.ptp(resize_for_training(board, 32, 32)[2:-2, 2:-2].astype(int)) <= 2


def test_too_small_for_training(tmp_path):
    Image.new("RGB", (300, 15)).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="is too small: 300 x 15 pixels, each side must have at least 16"):
        read_for_training(tmp_path / "a.png", shorter_px=32, multiple=32)
    assert read_image(tmp_path / "a.png").shape == (15, 300, 3)


def test_a_large_jpeg_read_in_draft_looks_the_same(tmp_path, shared_data):
    # 8 x enlarged, so that the draft path is taken; smooth content, so that only the path can differ
    source = Image.open(next((shared_data / "msrc21" / "images" / "train").glob("*.jpg")))
    source.resize((source.width * 4, source.height * 4)).save(tmp_path / "a.jpg", quality=95)
    draft = read_for_training(tmp_path / "a.jpg", shorter_px=64, multiple=32)
    full = resize_for_training(read_image(tmp_path / "a.jpg"), 64, 32)
    assert read_image(tmp_path / "a.jpg", draft_px=128).shape[0] < source.height * 4
    assert draft.shape == full.shape
    assert np.abs(draft.astype(int) - full).mean() < 1.5


@pytest.mark.parametrize("orientation", STORED)
def test_what_is_read_to_be_looked_at_tells_its_own_size(tmp_path, orientation):
    """A JPEG of 203 x 331 as shown: read at a quarter of it for 20 px, at all of it for 104 px."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    shown = np.linspace(0, 255, 203 * 331).reshape(203, 331).round().astype(np.uint8)
    turned = {2: shown[:, ::-1], 3: shown[::-1, ::-1], 4: shown[::-1], 5: shown.T, 6: shown.T[::-1]}
    turned |= {1: shown, 7: shown[::-1, ::-1].T, 8: shown.T[:, ::-1]}
    Image.fromarray(turned[orientation]).convert("RGB").save(tmp_path / "a.jpg", exif=exif, quality=95)
    small, size = read_to_look_at(tmp_path / "a.jpg", shorter_px=20)
    whole, same_size = read_to_look_at(tmp_path / "a.jpg", shorter_px=104)
    assert size == same_size == whole.shape[:2] == (203, 331)
    assert small.shape == (51, 83, 3)
    assert np.array_equal(whole, read_image(tmp_path / "a.jpg"))
    assert np.abs(small[..., 0].astype(int) - np.asarray(Image.fromarray(shown).resize((83, 51)))).mean() < 3


def test_a_picture_of_many_times_the_size_is_resized_as_by_all_of_its_pixels(rng):
    noise = rng.integers(0, 256, (40, 60, 3), np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((1330, 877), Image.Resampling.BICUBIC))
    plain = np.asarray(Image.fromarray(large).resize((96, 64), Image.Resampling.BICUBIC))
    found = resize(large, 64, 96)
    assert found.shape == (64, 96, 3)
    assert np.abs(found.astype(int) - plain).mean() < 2
    assert resize(found, 64, 96) is found
