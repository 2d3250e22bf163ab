"""Label Studio's tasks, read by a decoder written from the description of its run lengths."""

import json
import urllib.parse
from xml.etree import ElementTree

import numpy as np
import pytest
from exported_masks import CLASSES
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from contextseg.export.label_studio import LabelStudioWriter, brush_rle


def decode(stream):
    """Return the bytes that a stream of run lengths stands for, bit by bit."""
    bits = "".join(f"{byte:08b}" for byte in stream)
    place = 0

    def read(n_bits):
        nonlocal place
        place += n_bits
        return int(bits[place - n_bits : place], 2)

    n_values, value_bits = read(32), read(5) + 1
    count_bits = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < n_values:
        is_run = read(1)
        n = read(count_bits[read(2)]) + 1
        values += [read(value_bits)] * n if is_run else [read(value_bits) for _ in range(n)]
    assert len(values) == n_values
    assert len(bits) - place < 8
    assert "1" not in bits[place:]
    return np.array(values, np.uint8)


def decoded_mask(stream, height, width):
    channels = decode(stream).reshape(height, width, 4)
    assert (channels == channels[..., :1]).all()
    assert set(np.unique(channels)) <= {0, 255}
    return channels[..., 3] == 255


def test_a_stream_by_hand():
    # One pixel in, two out: 12 bytes, the first 4 are 255. Counts are 4 and 8, less one 3 and 7, in 3 bits each.
    head = f"{12:032b}" + "00111" + "0010" + "0011" + "0111" + "1111"
    bits = head + "1" + "00" + "011" + "11111111" + "1" + "00" + "111" + "00000000"
    bits += "0" * (-len(bits) % 8)
    assert brush_rle(np.array([[True, False, False]])) == [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]


@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 70))))
def test_any_mask_comes_back(mask):
    assert np.array_equal(decoded_mask(brush_rle(mask), *mask.shape), mask)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 64, 65, 16383, 16384, 16385, 32768, 40000])
def test_runs_around_the_lengths_of_a_count(n):
    mask = np.concatenate([np.ones(n, bool), np.zeros(n + 1, bool), np.ones(1, bool)])[None]
    assert np.array_equal(decoded_mask(brush_rle(mask), *mask.shape), mask)


def test_tasks(exported):
    found = exported(LabelStudioWriter)
    tasks = json.loads((found.path / "tasks.json").read_text(encoding="utf-8"))
    for task, (image, names) in zip(tasks, found.names.items(), strict=True):
        url = urllib.parse.urlsplit(task["data"]["image"])
        assert url.path == "/data/local-files/"
        assert urllib.parse.parse_qs(url.query) == {"d": [image]}
        (prediction,) = task["predictions"]
        read = np.full(names.shape, "", names.dtype)
        for brush in prediction["result"]:
            assert (brush["original_height"], brush["original_width"]) == names.shape
            assert (brush["from_name"], brush["to_name"], brush["type"]) == ("label", "image", "brushlabels")
            mask = decoded_mask(brush["value"]["rle"], *names.shape)
            (read[mask],) = brush["value"]["brushlabels"]
        assert np.array_equal(read, names)
        assert len({brush["id"] for brush in prediction["result"]}) == len(prediction["result"])


def test_the_interface_names_the_labels_and_what_the_tasks_refer_to(exported):
    view = ElementTree.fromstring((exported(LabelStudioWriter).path / "labels.xml").read_text(encoding="utf-8"))
    image, brushes = view
    assert image.attrib["value"] == "$image"
    assert (brushes.tag, brushes.attrib) == ("BrushLabels", {"name": "label", "toName": image.attrib["name"]})
    labels = {label.attrib["value"]: label.attrib["background"] for label in brushes}
    assert labels == {entry.name: "#{:02x}{:02x}{:02x}".format(*entry.colour) for entry in CLASSES.shown()}
    assert labels["sky"] == "#6900e1"
