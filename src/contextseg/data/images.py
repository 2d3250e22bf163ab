"""Image files to RGB arrays: how a file is read, and the size it trains at.

Convention: arrays are (H, W, 3) uint8 in sRGB, row 0 at the top of the picture as a viewer shows it. Resizing
is bicubic with antialiasing and half-pixel centres.
"""

import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from contextseg.conventions import MAX_PIXELS, STRETCH_PERCENTILES
from contextseg.data.tars import is_tar, list_tar, read_member, tar_around
from contextseg.errors import ImageError, SettingsError

MIN_SIDE_PX = 16
"""Images with a side below this are not trained on: there is nothing to crop a view from."""
MAX_ASPECT = 4
"""Longer images are centre-cropped to this ratio, so that a panorama does not fill the cache."""

# Chosen by content, not by name. Pillow knows more formats, but some of them start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF")
# Above this, images are decoded one at a time: that bounds memory when several threads read.
_LARGE_PIXELS = 50_000_000
_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = 5  # from this one on the file lies on its side
_PILLOW_LIMIT = threading.Lock()


def read_image(path: Path, *, max_pixels: int = MAX_PIXELS, draft_px: int | None = None) -> NDArray[np.uint8]:
    """Read an image file as RGB.

    * EXIF orientation is applied.
    * One channel of 8 bits or 1 bit is replicated; palettes are expanded.
    * One channel of 16 bits, 32 bits or floats is stretched linearly from its own 0.1 to 99.9 percentile to
      0-255. If both are equal the image is 0. Values that are not finite do not count; NaN becomes 0.
    * Three channels of 16 bits keep the upper 8 bits.
    * Transparency is composited over white.
    * CMYK, YCbCr and Lab are converted by Pillow, without their colour profiles.
    * The first frame of a file with several is read.

    Args:
        path: a JPEG, PNG, TIFF, WebP, BMP or GIF file, known by its content.
        max_pixels: files with more pixels are refused before they are decoded.
        draft_px: a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both sides keep this many
            pixels; None reads every pixel.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ImageError: for whatever is wrong with the file.
    """
    return _read(path, max_pixels, draft_px)[0]


def read_to_look_at(
    path: Path, *, shorter_px: int, max_pixels: int = MAX_PIXELS
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Read an image file that is looked at with its shorter side at `shorter_px`: as `read_image`, and its own size.

    A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size, rounded up, where both sides keep twice that; the last halving
    is left to the antialiased resize. A photograph of 12 megapixels is read in a quarter of the time. Of 1000 sizes
    four are looked at 32 px longer or shorter than by all of their pixels, as the ratio of the sides is rounded.

    Returns:
        (h, w, 3) uint8, and (H, W) of the image as a viewer shows it.

    Raises:
        ImageError: for whatever is wrong with the file.
    """
    return _read(path, max_pixels, 2 * shorter_px)


def _read(path: Path, max_pixels: int, draft_px: int | None) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    try:
        with _opened(path) as file:
            return _decode(path, file, max_pixels, draft_px)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(path, "is not a JPEG, PNG, TIFF, WebP, BMP or GIF image that can be read") from error
    except PermissionError as error:
        raise ImageError(path, "may not be read: permission denied") from error
    except MemoryError as error:
        raise ImageError(path, "does not fit into memory; make it smaller") from error
    except Exception as error:
        # Decoders raise whatever damaged bytes lead them to: OSError, SyntaxError, struct.error and others.
        raise ImageError(path, f"is truncated or damaged: {error}") from error


def read_for_training(path: Path, *, shorter_px: int, multiple: int, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Read an image file at training size.

    Args:
        path: the image file.
        shorter_px: shorter side of the result.
        multiple: both sides of the result are multiples of this.
        max_pixels: files with more pixels are refused.

    Returns:
        (h, w, 3) uint8, of `training_size`.

    Raises:
        ImageError: the file cannot be read, or a side is below `MIN_SIDE_PX`.
        SettingsError: `shorter_px` is not a multiple of `multiple`.
    """
    image, (height, width) = read_to_look_at(path, shorter_px=shorter_px, max_pixels=max_pixels)
    if min(height, width) < MIN_SIDE_PX:
        raise ImageError(path, f"is too small: {width} x {height} pixels, each side must have at least {MIN_SIDE_PX}")
    return resize_for_training(image, shorter_px, multiple)


def resize_for_training(image: NDArray[np.uint8], shorter_px: int, multiple: int) -> NDArray[np.uint8]:
    """Resize an image to `training_size`; one longer than 4:1 is first centre-cropped to 4:1.

    Args:
        image: (H, W, 3) uint8.
        shorter_px: shorter side of the result.
        multiple: both sides of the result are multiples of this.

    Returns:
        (h, w, 3) uint8.

    Raises:
        SettingsError: `shorter_px` is not a multiple of `multiple`.
    """
    height, width = image.shape[:2]
    crop_h, crop_w = min(height, MAX_ASPECT * width), min(width, MAX_ASPECT * height)
    top, left = (height - crop_h) // 2, (width - crop_w) // 2
    cropped = np.ascontiguousarray(image[top : top + crop_h, left : left + crop_w])
    return resize(cropped, *training_size(crop_h, crop_w, shorter_px, multiple))


def resize(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resize an image, (H, W, 3) uint8, to (height, width, 3): bicubic, antialiased.

    One of four times the size or more is first halved, or brought to a third and so on, by means of its pixels, in a
    fifth of the time.
    """
    if image.shape[:2] == (height, width):
        return image
    picture = Image.fromarray(image)
    return np.array(picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0))


def training_size(height: int, width: int, shorter_px: int, multiple: int) -> tuple[int, int]:
    """Return the (height, width) at which an image trains.

    The shorter side becomes `shorter_px`; the longer one keeps the ratio, rounded to the nearest multiple
    (half up).

    Args:
        height: of the image, in pixels.
        width: of the image, in pixels.
        shorter_px: shorter side of the result.
        multiple: both sides of the result are multiples of this.

    Raises:
        SettingsError: `shorter_px` is not a multiple of `multiple`.

    >>> training_size(480, 640, 192, 32)
    (192, 256)
    >>> training_size(640, 100, 64, 32)
    (416, 64)
    """
    if shorter_px < multiple or shorter_px % multiple:
        nearest = max(1, round(shorter_px / multiple)) * multiple
        raise SettingsError(f"shorter_px is {shorter_px}; it must be a multiple of {multiple}, such as {nearest}")
    shorter, longer = sorted((height, width))
    # round(longer * shorter_px / shorter / multiple) in integers, so that no platform rounds otherwise
    n_multiples = (2 * longer * shorter_px + shorter * multiple) // (2 * shorter * multiple)
    longer_px = n_multiples * multiple
    return (shorter_px, longer_px) if height <= width else (longer_px, shorter_px)


def _opened(path: Path) -> BinaryIO:
    """Open an image file, or the member of a tar file, that may be read."""
    if (tar := tar_around(path)) is not None:
        return BytesIO(read_member(tar, path))
    if is_tar(path):
        raise ImageError(path, list_tar(path).fault or "is a tar file, not an image")
    _check_file(path)
    # By file, not by name: Pillow maps a named TIFF into memory, and scrambles it where EXIF turns it.
    return path.open("rb")


def _check_file(path: Path) -> None:
    """Refuse what must not even be opened: a named pipe, for one, would wait for ever."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        what = "is a link to a file that does not exist" if path.is_symlink() else "does not exist"
        raise ImageError(path, what) from error
    except OSError as error:
        raise ImageError(path, f"cannot be reached: {error.strerror}") from error
    if stat.S_ISDIR(status.st_mode):
        raise ImageError(path, "is a folder, not an image file")
    if not stat.S_ISREG(status.st_mode):
        raise ImageError(path, "is not a regular file")
    if status.st_size == 0:
        raise ImageError(path, "is empty (0 bytes)")


def _decode(
    path: Path, file: BinaryIO, max_pixels: int, draft_px: int | None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Return the pixels of an open file, and its own size, (H, W); raises whatever the decoder raises."""
    with without_pillow_limit():
        image = Image.open(file, formats=_FORMATS)
    n_pixels = image.width * image.height
    if n_pixels > max_pixels:
        size = f"{image.width} x {image.height} = {n_pixels:,} pixels"
        limit = f"max_pixels = {max_pixels:,}"
        raise ImageError(path, f"has {size}, more than {limit}; make it smaller or raise max_pixels")
    own = image.height, image.width
    if draft_px is not None:
        image.draft(None, (draft_px, draft_px))
    is_draft = own != (image.height, image.width)
    with without_pillow_limit() if n_pixels > _LARGE_PIXELS else nullcontext():
        image.load()
        orientation = _orientation(image)
        pixels = np.array(_upright(to_rgb(image), orientation))
    if not is_draft:
        return pixels, (pixels.shape[0], pixels.shape[1])
    return pixels, own[::-1] if orientation >= _SIDEWAYS else own


@contextmanager
def without_pillow_limit() -> Iterator[None]:
    """Lift Pillow's limit on pixels, since ours is checked instead.

    Pillow's is a module variable, and warning filters are shared between threads as well: so one thread at a
    time, and no longer than needed.
    """
    with _PILLOW_LIMIT:
        limit = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


def rgb_array(image: Image.Image) -> NDArray[np.uint8]:
    """Return an image that Pillow has read, (H, W, 3) uint8, by the rules of `read_image`."""
    image.load()
    return np.array(_upright(to_rgb(image), _orientation(image)))


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB as `read_image` does, but for EXIF orientation."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return Image.fromarray(_stretch(np.asarray(image))).convert("RGB")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
    return image.convert("RGB")


def _stretch(values: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Map values (H, W) of any depth linearly to 0-255, from the 0.1 to the 99.9 percentile."""
    wide = values.astype(np.float64)
    finite = wide[np.isfinite(wide)]
    if finite.size == 0:
        return np.zeros(wide.shape, np.uint8)
    low, high = np.percentile(finite, STRETCH_PERCENTILES).tolist()
    if high <= low:
        return np.zeros(wide.shape, np.uint8)
    scaled: NDArray[np.float64] = np.clip((wide - low) * (255 / (high - low)), 0, 255)
    return np.nan_to_num(scaled.round(), nan=0).astype(np.uint8)


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """Return how a loaded file lies, by its EXIF data: 1, or a key of `_UPRIGHT`; Pillow has turned TIFF already."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION)
    except Exception:
        # Damaged EXIF data raise various errors, and are no reason to lose the picture.
        return 1
    return orientation if orientation in _UPRIGHT else 1
