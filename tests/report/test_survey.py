"""Shares, confidences and typical regions, on maps that are drawn by hand."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from contextseg.report.survey import N_TYPICAL, N_UNCERTAIN, Survey, largest_region

# Cluster 0 has two regions, of 5 pixels and of 2; cluster 1 one of 12, and a pixel that touches it nowhere.
CLUSTERS = np.array(
    [
        [0, 0, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 1, 1, 1, 1],
        [1, 0, 0, 1, 1],
    ],
    np.uint8,
)
ALL = (slice(None), slice(None))


def opened(uri: str) -> np.ndarray:
    head, _, content = uri.partition(",")
    assert head == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as image:
        return np.asarray(image)


def test_regions_are_connected_by_their_sides() -> None:
    region = largest_region(CLUSTERS == 0, ALL)
    assert np.argwhere(region).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0]]
    assert largest_region(CLUSTERS == 1, ALL).sum() == 12


def test_shares_and_confidence_by_hand() -> None:
    survey = Survey(3)
    confidence = np.where(CLUSTERS == 0, 0.25, 0.75).astype(np.float32)
    confidence[3, 1] = 0.95  # a pixel of cluster 0, not of its largest region
    survey.add(np.zeros((4, 5, 3), np.uint8), CLUSTERS, confidence)
    survey.add(np.zeros((1, 10, 3), np.uint8), np.zeros((1, 10), np.uint8), np.full((1, 10), 0.5, np.float32))
    np.testing.assert_allclose(survey.share_K(), [17 / 30, 13 / 30, 0])
    # cluster 0: 6 x 0.25, 0.95 and 10 x 0.5 over 17 pixels
    np.testing.assert_allclose(survey.confidence_K(), [(1.5 + 0.95 + 5) / 17, 0.75, np.nan], rtol=1e-6)
    small, whole = sorted(survey.typical(0))
    assert (small.share, small.confidence) == (5 / 20, 0.25)
    assert (whole.share, whole.confidence) == (1, 0.5)
    assert survey.typical(2) == []


def test_the_surest_of_the_largest_are_typical_and_the_least_sure_uncertain() -> None:
    # In image i cluster 1 is a bar of width i + 1 of 60; 50 images, so that the 18 smallest are not held.
    survey, rng = Survey(2), np.random.default_rng(0)
    sureness = rng.permutation(50) / 100 + 0.3
    for i in rng.permutation(50):
        clusters = np.zeros((4, 60), np.uint8)
        clusters[:, : i + 1] = 1
        survey.add(np.zeros((4, 60, 3), np.uint8), clusters, np.full((4, 60), sureness[i], np.float32))
    held = sorted(sureness[18:], reverse=True)
    assert [r.confidence for r in survey.typical(1)] == pytest.approx(held[:N_TYPICAL])
    assert [r.confidence for r in survey.uncertain(1)] == pytest.approx(held[::-1][:N_UNCERTAIN])
    assert min(region.share for region in survey.typical(1) + survey.uncertain(1)) >= 19 / 60


def test_with_few_images_none_is_both() -> None:
    survey = Survey(1)
    for i in range(N_TYPICAL + 1):
        survey.add(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.uint8), np.full((4, 4), 0.9 - i / 10, np.float32))
    assert len(survey.typical(0)) == N_TYPICAL
    (least,) = survey.uncertain(0)
    assert least.confidence == pytest.approx(0.9 - N_TYPICAL / 10)


def test_the_picture_shows_the_region_bright_in_a_white_line() -> None:
    # a red bar, wider than high, in a grey image; the cluster is the bar
    image = np.full((60, 80, 3), 128, np.uint8)
    image[20:30, 30:60] = (200, 0, 0)
    clusters = np.zeros((60, 80), np.uint8)
    clusters[20:30, 30:60] = 1
    survey = Survey(2)
    survey.add(image, clusters, np.ones((60, 80), np.float32))
    (region,) = survey.typical(1)
    picture = opened(region.picture).astype(int)
    # the square is 30 x 1.4 pixels wide, and 1 more by the rounding of its ends: it is 43 by 43, shown as 160 by 160
    assert picture.shape == (160, 160, 3)
    assert abs(picture[80, 80] - [200, 0, 0]).max() < 25
    assert abs(picture[5, 5] - 57).max() < 12  # 0.45 of the grey
    column = picture[:, 80].min(axis=1)  # red is dark here, white is not
    assert column[:70].max() > 180
    assert column[90:].max() > 180
