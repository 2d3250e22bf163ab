"""What is sent to the page."""

import io

import numpy as np
from PIL import Image

from contextseg.review.pictures import cut_out, jpeg, planes, reduced


def test_planes_take_the_nearest_pixel_of_the_mask() -> None:
    clusters = np.arange(24, dtype=np.uint16).reshape(4, 6)
    confidence = (10 * np.arange(24, dtype=np.uint8)).reshape(4, 6)
    # 4 x 6 to 2 x 3: the centre of each new pixel lies at the corner of four; the one after it is taken.
    found = planes(clusters, confidence, 3)
    assert found.tolist() == [[[7, 9, 11], [19, 21, 23]], [[70, 90, 110], [190, 210, 230]]]
    assert found.dtype == np.uint16
    assert np.array_equal(planes(clusters, None, 6), clusters[None])
    assert np.array_equal(planes(clusters, None, 600), clusters[None])


def test_a_cut_out_shows_the_largest_region_and_dims_the_rest() -> None:
    picture = np.full((40, 60, 3), 200, np.uint8)
    clusters = np.zeros((20, 30), np.uint8)  # half of the picture's size
    clusters[1:3, 1:3] = 1  # a small region
    clusters[8:13, 10:20] = 1  # rows 16:26, columns 20:40 of the picture
    # side 20 * 1.3 = 26; rows centred on 21, columns on 30
    shown = cut_out(picture, clusters, 1)
    assert shown.shape == (26, 26, 3)
    expected = np.full((26, 26), 70)
    expected[8:18, 3:23] = 200
    assert shown[..., 0].tolist() == expected.tolist()
    assert (picture == 200).all()


def test_a_cut_out_stays_inside_of_the_picture() -> None:
    clusters = np.zeros((10, 12), np.uint8)
    clusters[:, 11] = 1
    assert cut_out(np.zeros((10, 12, 3), np.uint8), clusters, 1).shape == (10, 12, 3)
    assert cut_out(np.zeros((10, 12, 3), np.uint8), clusters, 0).shape == (10, 12, 3)


def test_pictures_keep_their_ratio() -> None:
    assert reduced(np.zeros((30, 90, 3), np.uint8), 45).shape == (15, 45, 3)
    with Image.open(io.BytesIO(jpeg(np.zeros((30, 90, 3), np.uint8)))) as image:
        assert (image.format, image.size) == ("JPEG", (90, 30))
