import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from contextseg.conventions import IGNORE
from contextseg.data.label_files import UNKNOWN, LabelCode, colour, first_few, read_classes, read_values, show_value
from contextseg.data.label_space import LabelSpace
from contextseg.errors import DataError

LABEL = np.array([[0, 1, 2], [255, 2, 0]], np.uint8)
SPACE = LabelSpace("three", ("sky", "sea", "rock"))
IDS = LabelCode(SPACE, {0: 0, 1: 1, 2: 2, 255: IGNORE})
COLOURS = LabelCode(SPACE, IDS.class_of_value | {colour(255, 0, 0): 1, colour(0, 0, 255): 2, colour(0, 0, 0): IGNORE})


def palette(label: np.ndarray) -> Image.Image:
    image = Image.frombytes("P", label.shape[::-1], label.tobytes())
    image.putpalette([c for i in range(256) for c in (255 - i, i, 7)])
    return image


@pytest.mark.parametrize(
    "label",
    [Image.fromarray(LABEL), palette(LABEL), Image.fromarray(LABEL.astype(np.uint16))],
    ids=["grey", "palette", "16 bit"],
)
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_ids_are_read_as_stored(tmp_path, label, suffix):
    path = tmp_path / f"a.{suffix}"
    label.save(path)
    for code in (IDS, COLOURS):
        classes = read_classes(path, code)
        assert classes.dtype == np.uint8
        np.testing.assert_array_equal(classes, LABEL)


def test_ids_in_few_bits_are_read_as_stored(tmp_path):
    # PNG optimisers store grey ids below 16 in 4 bits, which Pillow would spread over 0-255: 1 -> 17
    for bits, ids in ((2, np.arange(3)), (4, np.arange(12))):
        write_grey_png(tmp_path / "a.png", ids, bits)
        np.testing.assert_array_equal(read_values(tmp_path / "a.png"), ids[None])
    Image.fromarray(np.array([[False, True, True]])).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_values(tmp_path / "a.png"), [[0, 1, 1]])


def write_grey_png(path: Path, row: np.ndarray, bits: int) -> None:
    """Write one row of ids as a grey PNG of 2 or 4 bits, which Pillow cannot write."""
    packed = "".join(f"{value:0{bits}b}" for value in row).ljust(-(-len(row) * bits // 8) * 8, "0")
    data = bytes([0, *(int(packed[i : i + 8], 2) for i in range(0, len(packed), 8))])
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", len(row), 1, bits, 0, 0, 0, 0)),
        (b"IDAT", zlib.compress(data)),
        (b"IEND", b""),
    ]
    body = b"".join(struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in chunks)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_colours_where_they_stand_for_classes(tmp_path, suffix):
    # blue is the colour (0, 0, 255): its number is not the id 255
    rgb = np.array([[[255, 0, 0], [0, 0, 255], [0, 0, 0]], [[0, 0, 255], [0, 0, 255], [255, 0, 0]]], np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(rgb).save(path)
    np.testing.assert_array_equal(read_classes(path, COLOURS), [[1, 2, 255], [2, 2, 1]])
    rgb[0, 0] = [0, 1, 254]
    Image.fromarray(rgb).save(path)
    with pytest.raises(
        DataError,
        match=r"holds the label \(0, 1, 254\), expected 0 to 2, \(0, 0, 0\), \(0, 0, 255\), \(255, 0, 0\) for the 3 ",
    ):
        read_classes(path, COLOURS)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_colours_are_not_ids(tmp_path, mode):
    Image.new(mode, (3, 2)).save(tmp_path / "c.png")
    with pytest.raises(
        DataError,
        match=rf"c\.png: the label is an image of mode {mode}, expected a single-channel PNG of class ids .* convert",
    ):
        read_classes(tmp_path / "c.png", IDS)
    if mode != "RGB":
        with pytest.raises(DataError, match=rf"c\.png: the label is an image of mode {mode}.*; or colours of mode RGB"):
            read_classes(tmp_path / "c.png", COLOURS)


@pytest.mark.parametrize("content", [b"", b"text", None])
def test_label_that_cannot_be_read(tmp_path, content):
    path = tmp_path / "a.png"
    Image.fromarray(LABEL).save(path)
    path.write_bytes(path.read_bytes()[:45] if content is None else content)
    with pytest.raises(DataError, match=r"a\.png: the label cannot be read"):
        read_classes(path, IDS)
    with pytest.raises(DataError, match=r"none\.png: the label cannot be read"):
        read_classes(tmp_path / "none.png", IDS)


def test_ids_out_of_range(tmp_path):
    Image.fromarray(np.array([[0, 3, 255, 4, 9, 200]], np.uint8)).save(tmp_path / "c.png")
    with pytest.raises(
        DataError, match=r"c\.png: holds the label 3, 4, 9, \.\.\., expected 0 to 2 for the 3 classes, or 255"
    ):
        read_classes(tmp_path / "c.png", IDS)
    with pytest.raises(DataError, match=r"holds the label 0, 4, 9, \.\.\., expected 3 for the 1 classes$"):
        read_classes(tmp_path / "c.png", LabelCode(LabelSpace("one", ("a",)), {3: 0}))


def test_ids_of_32_bits(tmp_path):
    Image.fromarray(np.array([[1, 2**31 - 1]], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match="holds the label 2147483647, expected 0 to 2"):
        read_classes(tmp_path / "a.tif", IDS)


codes = st.dictionaries(st.integers(0, 300), st.integers(0, 254) | st.just(IGNORE), min_size=1, max_size=40)


@settings(max_examples=50, deadline=None)
@given(class_of_value=codes, values=st.lists(st.integers(-3, 400), min_size=1, max_size=30))
def test_values_are_looked_up(class_of_value, values):
    code = LabelCode(SPACE, class_of_value)
    stored = np.array(values, np.int64).reshape(1, -1)
    assert code.classes(stored).tolist() == [[class_of_value.get(value, UNKNOWN) for value in values]]
    assert code.unknown(stored) == sorted({value for value in values if value not in class_of_value})


channel = st.integers(0, 255)


@settings(max_examples=50, deadline=None)
@given(a=st.tuples(channel, channel, channel), b=st.tuples(channel, channel, channel))
def test_colours_are_told_apart_and_shown(a, b):
    assert (colour(*a) == colour(*b)) == (a == b)
    assert colour(*a) > 2**16  # no id of a label file of 8 or 16 bits
    assert show_value(colour(*a)) == f"({a[0]}, {a[1]}, {a[2]})"


def test_first_few():
    assert [first_few("abcd"[:n]) for n in range(5)] == ["none", "a", "a, b", "a, b, c", "a, b, c, ..."]
