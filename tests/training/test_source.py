"""The images of a run as batches: each once, of one size, and few at a time."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contextseg.conventions import SIZE_MULTIPLE_PX
from contextseg.data.cache import ImageCache
from contextseg.settings import make_settings
from contextseg.training.images import SiameseSource

SIZES = [(32, 64), (64, 32), (32, 64), (32, 64), (96, 32), (64, 32), (32, 64)]


@pytest.fixture
def source(tmp_path: Path) -> SiameseSource:
    rng = np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.glob("*.png"))
    cache = ImageCache.build(paths, tmp_path, tmp_path / "cache", shorter_px=32, multiple=SIZE_MULTIPLE_PX)
    settings = make_settings({"n_classes": 2, "data": {"image_px": 32}, "views": {"frame_px": 32}})
    return SiameseSource(cache, settings, torch.device("cpu"))


def seen(source: SiameseSource, first: int | None = None, after: int = 0) -> list[int]:
    return [index for indices, _, _ in source.whole(first, after=after) for index in indices]


def test_whole_images_are_those_of_the_cache_and_know_where_their_cells_lie(source: SiameseSource) -> None:
    assert sorted(seen(source)) == list(range(len(SIZES)))
    for indices, images, coordinates in source.whole():
        for index, image, where in zip(indices, images, coordinates, strict=True):
            assert np.array_equal((image * 255).round().byte().movedim(0, -1).numpy(), source.cache[index])
            height, width = source.cache.shapes[index]
            assert where.shape == (2, height // 4, width // 4)
            assert where[:, 0, 0].tolist() == pytest.approx([2 / height, 2 / width])  # the middle of the first cell


def test_the_first_images_and_those_after_them_are_all_images_once(source: SiameseSource) -> None:
    for count in range(len(SIZES) + 2):
        first, rest = seen(source, first=count), seen(source, after=count)
        assert len(first) == min(count, len(SIZES))
        assert sorted(first + rest) == list(range(len(SIZES)))


def test_large_images_come_one_by_one(source: SiameseSource, monkeypatch: pytest.MonkeyPatch) -> None:
    assert max(len(indices) for indices, _, _ in source.whole()) == 4
    monkeypatch.setattr("contextseg.training.images.pixels_at_once", lambda _: 2 * 32 * 64 + 1)
    assert max(len(indices) for indices, _, _ in source.whole()) == 2
    monkeypatch.setattr("contextseg.training.images.pixels_at_once", lambda _: 1)
    assert {len(indices) for indices, _, _ in source.whole()} == {1}
    assert sorted(seen(source)) == list(range(len(SIZES)))
