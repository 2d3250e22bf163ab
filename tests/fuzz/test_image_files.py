import io
from pathlib import Path

import numpy as np
import pytest
from damage import damaged_file, inputs, used_or_refused
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from contextseg.data.images import read_for_training, read_image
from contextseg.data.label_files import read_values
from contextseg.errors import DataError, ImageError

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (18, 22, 3), np.uint8))
EXIF = Image.Exif()
EXIF[0x0112] = 6


def encoded(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, **options)  # type: ignore[arg-type]
    return file.getvalue()


IMAGES = {
    "jpeg": encoded(PICTURE, format="JPEG", exif=EXIF),
    "png": encoded(PICTURE.convert("P"), format="PNG", transparency=3),
    "tiff": encoded(PICTURE, format="TIFF", compression="tiff_lzw"),
    "webp": encoded(PICTURE, format="WEBP", exif=EXIF),
    "bmp": encoded(PICTURE, format="BMP"),
    "gif": encoded(PICTURE, format="GIF", save_all=True, append_images=[PICTURE.rotate(90)]),
}
LABELS = {
    "png": encoded(PICTURE.convert("P"), format="PNG"),
    "tiff": encoded(Image.fromarray(np.arange(396, dtype=np.uint16).reshape(18, 22)), format="TIFF"),
}
MAX_PIXELS = 100_000


@pytest.mark.parametrize("kind", IMAGES)
@inputs
@given(data=st.data())
def test_image(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / f"image.{kind}"
    with damaged_file(path, IMAGES[kind], data):
        with used_or_refused(path):
            image = read_image(path, max_pixels=MAX_PIXELS)
            assert image.dtype == np.uint8
            assert image.shape[0] * image.shape[1] <= MAX_PIXELS
        read_for_training(path, shorter_px=32, multiple=32, max_pixels=MAX_PIXELS)


@pytest.mark.parametrize("kind", LABELS)
@inputs
@given(data=st.data())
def test_label(tmp_path_factory: pytest.TempPathFactory, kind: str, data: st.DataObject) -> None:
    path = tmp_path_factory.getbasetemp() / f"label.{kind}"
    with damaged_file(path, LABELS[kind], data):
        assert read_values(path, colours=True, max_pixels=MAX_PIXELS).ndim == 2


@pytest.mark.parametrize("kind", sorted(IMAGES))
def test_more_pixels_than_the_limit_are_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(encoded(Image.new("L", (4000, 3000)), format=kind))
    with pytest.raises(ImageError, match="has 4000 x 3000 = 12,000,000 pixels, more than max_pixels = 9,999,999"):
        read_image(path, max_pixels=9_999_999)


@pytest.mark.parametrize("kind", LABELS)
def test_more_pixels_than_the_limit_are_refused_in_labels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"bomb.{kind}"
    path.write_bytes(encoded(Image.new("L", (4000, 3000)), format=kind))
    with pytest.raises(DataError, match="the label has 4000 x 3000 pixels, more than 9,999,999"):
        read_values(path, max_pixels=9_999_999)
