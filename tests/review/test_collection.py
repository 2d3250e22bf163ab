"""Images, masks and counts by index."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from contextseg.errors import ClassesError, DataError, ImageError, RunError
from contextseg.review import collection
from contextseg.review.collection import missing, open_collection
from contextseg.review.session import Review

QUIET = Console(quiet=True)


def opened(case: tuple[Path, Path], n_clusters: int = 4) -> collection.Collection:
    run, images = case
    return open_collection(
        images, run / "review/masks", n_clusters, run / "counts.npz", max_pixels=10_000, console=QUIET
    )


def test_counts_by_hand(case: tuple[Path, Path]) -> None:
    found = opened(case)
    assert found.names == ("a/halves.png", "flat.png", "stripes.png")
    # halves: 3 rows of 4 zeros, 2 ones, 2 twos; 3 rows of 4 threes, 4 zeros
    assert found.counts_NK.tolist() == [[24, 6, 6, 12], [0, 0, 0, 48], [16, 16, 16, 0]]
    assert np.allclose(found.confidence_N, [0.5, 0.9, 0.25], atol=1 / 255)


@pytest.mark.parametrize("n_clusters", [256, 257])
def test_masks_of_bytes_and_of_more_are_counted_alike(tmp_path: Path, n_clusters: int) -> None:
    ids = (
        np.random.default_rng(0).integers(0, n_clusters, (40, 50)).astype(np.uint8 if n_clusters <= 256 else np.uint16)
    )
    for folder, picture in {"images": Image.new("RGB", (50, 40)), "masks": Image.fromarray(ids)}.items():
        (tmp_path / folder).mkdir()
        picture.save(tmp_path / folder / "a.png")
    found = open_collection(
        tmp_path / "images", tmp_path / "masks", n_clusters, tmp_path / "counts.npz", max_pixels=10_000, console=QUIET
    )
    assert np.array_equal(found.counts_NK, [np.bincount(ids.ravel(), minlength=n_clusters)])
    assert found.counts_NK.dtype == np.int64


def test_counts_are_kept_until_a_mask_changes(case: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    first = opened(case)
    counted: list[str] = []
    count = collection._count
    monkeypatch.setattr(
        collection, "_count", lambda masks, name, *rest: counted.append(name) or count(masks, name, *rest)
    )
    assert np.array_equal(opened(case).counts_NK, first.counts_NK)
    assert counted == []
    mask = case[0] / "review/masks/flat.png"
    Image.fromarray(np.ones((6, 8), np.uint8)).save(mask)
    os.utime(mask, ns=(1, 1))
    assert opened(case).counts_NK[1].tolist() == [0, 48, 0, 0]
    assert counted == ["flat.png"]


def test_an_image_without_a_mask_is_left_out(case: tuple[Path, Path]) -> None:
    run, images = case
    (run / "review/masks/flat.png").unlink()
    assert missing(images, run / "review/masks") == [images / "flat.png"]
    assert opened(case).names == ("a/halves.png", "stripes.png")
    with pytest.raises(RunError, match="holds no mask of the images"):
        open_collection(images, run, 4, run / "counts.npz", max_pixels=100, console=QUIET)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (
            Image.fromarray(np.full((6, 8), 255, np.uint8)),
            r"flat.png: holds the value 255, .* clusters 0\.\.3; .*--raw",
        ),
        (Image.new("RGB", (8, 6)), r"flat.png: is in colour \(RGB\)"),
        (None, "flat.png: is not a PNG that can be read"),
    ],
)
def test_a_mask_that_cannot_be_used(case: tuple[Path, Path], mask: Image.Image | None, message: str) -> None:
    path = case[0] / "review/masks/flat.png"
    path.write_bytes(b"no picture") if mask is None else mask.save(path)
    with pytest.raises(ImageError, match=message):
        opened(case)


def test_masks_without_confidence(case: tuple[Path, Path], reopen: Callable[[], Review]) -> None:
    (case[0] / "review/masks/confidence/flat.png").unlink()
    review = reopen()
    assert [image["confidence"] for image in review.page(0, 9)["images"]] == pytest.approx(
        [0.502, None, 0.251], abs=0.001
    )
    assert review.planes(1, 100)[0].shape == (1, 6, 8)
    # the unknown comes last
    assert [image["index"] for image in review.page(0, 9, uncertain_first=True)["images"]] == [2, 0, 1]


def test_search_and_pages(reopen: Callable[[], Review]) -> None:
    review = reopen()
    names = lambda **how: [image["file"] for image in review.page(0, 9, **how)["images"]]  # noqa: E731
    assert names() == ["a/halves.png", "flat.png", "stripes.bmp"]
    assert names(uncertain_first=True) == ["stripes.bmp", "a/halves.png", "flat.png"]
    assert names(search=" STRIP ") == ["stripes.bmp"]
    assert names(search="class 3") == ["a/halves.png", "flat.png"]
    assert names(search="nothing") == []
    part = review.page(1, 1, uncertain_first=True)
    assert (part["total"], [image["index"] for image in part["images"]]) == (3, [0])
    review.correct(1, (0, 0), 1)  # the whole of flat.png is class 1 now
    assert names(search="class 3") == ["a/halves.png"]
    assert names(search="class 1") == ["a/halves.png", "flat.png", "stripes.bmp"]


def test_shares_follow_merges_and_corrections(reopen: Callable[[], Review]) -> None:
    review = reopen()
    shares = lambda: [entry["share"] for entry in review.state()["classes"]]  # noqa: E731
    assert shares() == pytest.approx([40 / 144, 22 / 144, 22 / 144, 60 / 144])
    review.correct(1, (3, 3), 0)
    assert shares() == pytest.approx([88 / 144, 22 / 144, 22 / 144, 12 / 144])


def test_points_and_classes_that_do_not_exist(reopen: Callable[[], Review]) -> None:
    review = reopen()
    with pytest.raises(DataError, match=r"the point \(8, 0\) lies outside of the image, which is 8 x 6 pixels"):
        review.correct(0, (8, 0), 1)
    with pytest.raises(ClassesError, match="there is no class 4"):
        review.correct(0, (0, 0), 4)
