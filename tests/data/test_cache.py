import json
import os
import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.data import cache as cache_module
from contextseg.data.cache import ImageCache
from contextseg.data.image_files import list_images
from contextseg.data.images import read_for_training
from contextseg.errors import DataError, ImageError, SettingsError, WriteError


@pytest.fixture
def root(tmp_path, rng):
    """Twelve images of three sizes; the sizes change from one name to the next."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for i in range(12):
        size = [(40, 50, 3), (50, 40, 3), (40, 90, 3)][i % 3]
        Image.fromarray(rng.integers(0, 256, size, np.uint8)).save(folder / "sub" / f"{i:02}.png")
    return folder


def build(root: Path, folder: Path, **changes: object) -> ImageCache:
    settings = {"shorter_px": 32, "multiple": 32} | changes
    return ImageCache.build(list_images(root), root, folder, **settings)  # type: ignore[arg-type]


def test_holds_what_was_decoded_in_order(root, tmp_path):
    cache = build(root, tmp_path / "cache")
    assert len(cache) == 12
    assert cache.names == [f"sub/{i:02}.png" for i in range(12)]
    # 50 / 40 * 32 = 40, nearest is 32; 90 / 40 * 32 = 72, nearest is 64
    assert cache.shapes == [(32, 32), (32, 32), (32, 64)] * 4
    assert cache.left_out == []
    for name, image, shape in zip(cache.names, cache, cache.shapes, strict=True):
        assert image.dtype == np.uint8
        assert image.shape == (*shape, 3)
        np.testing.assert_array_equal(image, read_for_training(root / name, shorter_px=32, multiple=32))


def test_indices(root, tmp_path):
    cache = build(root, tmp_path / "cache")
    np.testing.assert_array_equal(cache[-1], cache[11])
    with pytest.raises(IndexError, match="out of range"):
        cache[12]
    assert cache.by_shape() == {(32, 32): [0, 1, 3, 4, 6, 7, 9, 10], (32, 64): [2, 5, 8, 11]}


def test_memory_holds_the_images_that_are_in_use(root, tmp_path):
    cache = build(root, tmp_path / "cache")
    assert (tmp_path / "cache" / "images.raw").stat().st_size == 3 * 32 * (8 * 32 + 4 * 64)
    tracemalloc.start()
    total = sum(cache[i].nbytes for i in range(12))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < total / 3


def test_writing_to_an_image_does_not_reach_the_file(root, tmp_path):
    cache = build(root, tmp_path / "cache")
    before = cache[3].copy()
    cache[3][:] = 0
    np.testing.assert_array_equal(cache[3], before)


def test_a_file_that_was_cut_or_taken_away_while_it_is_used(root, tmp_path):
    cache = build(root, tmp_path / "cache")
    raw = tmp_path / "cache" / "images.raw"
    raw.write_bytes(raw.read_bytes()[:-1])
    cache[0]
    with pytest.raises(DataError, match=r"images\.raw: ends before image 11; with --resume it is made again"):
        cache[11]
    raw.unlink()
    with pytest.raises(DataError, match=r"images\.raw: cannot be read: No such file or directory"):
        cache[0]


def test_hard_folder(hard_folder, tmp_path):
    root, reasons = hard_folder
    calls: list[tuple[int, int]] = []
    cache = build(root, tmp_path / "cache", on_progress=lambda done, total: calls.append((done, total)))
    assert cache.names == ["GOOD.PNG", "cmyk.jpg", "good.jpg", "png_content.jpg", "wide.png"]
    assert [name for name, _ in cache.left_out] == sorted(reasons)
    assert dict(cache.left_out)["empty.jpg"] == "is empty (0 bytes)"
    assert calls == [(i, 12) for i in range(1, 13)]
    assert build(root, tmp_path / "cache").left_out == cache.left_out


def test_decoding_runs_ahead_by_a_few_images_only(root, tmp_path, monkeypatch):
    decoded: list[Path] = []
    ahead: list[int] = []

    def read(path, **settings):
        decoded.append(path)
        return read_for_training(path, **settings)

    monkeypatch.setattr(cache_module, "read_for_training", read)
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    build(root, tmp_path / "cache", on_progress=lambda done, total: ahead.append(len(decoded) - done))
    assert len(decoded) == 12
    assert max(ahead) <= 2


@pytest.mark.parametrize("max_bytes", [0, 3071, 3072, 20_000, 10**6])
def test_a_limit_changes_where_images_are_read_not_what_they_are(root, tmp_path, max_bytes):
    whole = build(root, tmp_path / "whole")
    cache = build(root, tmp_path / "cache", max_bytes=max_bytes)
    # 3072 bytes for 32 x 32, 6144 for 32 x 64: 3072, 6144, 12288, 15360, 18432 and then 24576
    assert cache.n_stored == {0: 0, 3071: 0, 3072: 1, 20_000: 5, 10**6: 12}[max_bytes]
    size = (tmp_path / "cache" / "images.raw").stat().st_size
    assert size == sum(image.nbytes for image in list(whole)[: cache.n_stored]) <= max_bytes
    assert (cache.names, cache.shapes, cache.fingerprint) == (whole.names, whole.shapes, whole.fingerprint)
    for again in (cache, pickle.loads(pickle.dumps(cache)), ImageCache(tmp_path / "cache")):
        for image, expected in zip(again, whole, strict=True):
            np.testing.assert_array_equal(image, expected)


def test_another_limit_builds_again(root, tmp_path):
    build(root, tmp_path / "cache", max_bytes=20_000)
    assert build(root, tmp_path / "cache").n_stored == 12
    assert build(root, tmp_path / "cache", max_bytes=3072).n_stored == 1


def test_an_image_beyond_the_limit_that_has_changed(root, tmp_path):
    cache = build(root, tmp_path / "cache", max_bytes=0)
    Image.new("RGB", (90, 40)).save(root / "sub" / "03.png")
    with pytest.raises(ImageError, match=r"03\.png: has changed since the images were read"):
        cache[3]
    (root / "sub" / "04.png").unlink()
    with pytest.raises(ImageError, match=r"04\.png: does not exist"):
        cache[4]


def test_one_file_beyond_the_limit(root, tmp_path):
    file = root / "sub" / "00.png"
    cache = ImageCache.build([file], file, tmp_path / "cache", shorter_px=32, max_bytes=0)
    np.testing.assert_array_equal(cache[0], read_for_training(file, shorter_px=32, multiple=32))


def test_a_complete_cache_is_reused(root, tmp_path, monkeypatch):
    first = build(root, tmp_path / "cache")
    monkeypatch.setattr(cache_module, "read_for_training", lambda path, **settings: pytest.fail("decoded again"))
    second = build(root, tmp_path / "cache")
    assert second.fingerprint == first.fingerprint
    assert len(second.fingerprint) == 64
    np.testing.assert_array_equal(second[7], first[7])


@pytest.mark.parametrize(
    "change", ["shorter_px", "multiple", "max_pixels", "new file", "touched", "content", "removed"]
)
def test_a_cache_of_something_else_is_built_again(root, tmp_path, change):
    first = build(root, tmp_path / "cache")
    settings = {
        "shorter_px": {"shorter_px": 64},
        "multiple": {"multiple": 16},
        "max_pixels": {"max_pixels": 3000},
    }
    file = root / "sub" / "05.png"
    if change == "new file":
        Image.new("RGB", (40, 40)).save(root / "a.png")
    elif change == "touched":
        os.utime(file, ns=(0, 1))
    elif change == "content":
        time = file.stat().st_mtime_ns
        Image.new("RGB", (40, 40), "red").save(file)
        os.utime(file, ns=(time, time))
    elif change == "removed":
        file.unlink()
    second = build(root, tmp_path / "cache", **settings.get(change, {}))
    assert second.fingerprint != first.fingerprint
    expected = {
        # 50 / 40 * 64 = 80 is half way between 64 and 96, 90 / 40 * 64 = 144 between 128 and 160: up
        "shorter_px": [(64, 96), (96, 64), (64, 160)] * 4,
        # 40 is half way between 32 and 48, 72 between 64 and 80: up
        "multiple": [(32, 48), (48, 32), (32, 80)] * 4,
        # 40 x 50 = 2000 and 40 x 90 = 3600
        "max_pixels": [(32, 32), (32, 32)] * 4,
        "new file": [(32, 32), *first.shapes],
        "touched": first.shapes,
        "content": [*first.shapes[:5], (32, 32), *first.shapes[6:]],
        "removed": first.shapes[:5] + first.shapes[6:],
    }
    assert second.shapes == expected[change]


def test_a_build_that_was_killed_is_done_again(root, tmp_path):
    folder = tmp_path / "cache"
    first = build(root, folder)
    pixels = [image.copy() for image in first]

    class Killed(BaseException):
        pass

    def kill(done, total):
        if done == 5:
            raise Killed

    with pytest.raises(Killed, match=r"^$"):
        build(root, folder, shorter_px=64, on_progress=kill)
    with pytest.raises(DataError, match="no complete image cache; build it with"):
        ImageCache(folder)
    assert not list(folder.glob("*.part"))
    for image, expected in zip(build(root, folder), pixels, strict=True):
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("damage", ["cut pixels", "no pixels", "cut index", "other index", "left-over part"])
def test_a_damaged_cache_is_built_again(root, tmp_path, damage):
    folder = tmp_path / "cache"
    first = build(root, folder)
    pixels = [image.copy() for image in first]
    raw, index = folder / "images.raw", folder / "index.json"
    if damage == "cut pixels":
        raw.write_bytes(raw.read_bytes()[:-1])
    elif damage == "no pixels":
        raw.unlink()
    elif damage == "cut index":
        index.write_bytes(index.read_bytes()[:-9])
    elif damage == "other index":
        index.write_text(json.dumps(["something", "else"]))
    else:
        index.unlink()
        (folder / ".images.raw.part").write_bytes(b"x" * 100_000)
    for image, expected in zip(build(root, folder), pixels, strict=True):
        np.testing.assert_array_equal(image, expected)
    assert sorted(path.name for path in folder.iterdir()) == ["images.raw", "index.json"]


def test_nothing_usable(tmp_path):
    (tmp_path / "photos").mkdir()
    for name in "abcd":
        (tmp_path / "photos" / f"{name}.jpg").touch()
    with pytest.raises(DataError, match=r"none of 4 image files can be used: a\.jpg is empty \(0 bytes\); b\.jpg"):
        build(tmp_path / "photos", tmp_path / "cache")


def test_one_file_is_a_root(root, tmp_path):
    file = root / "sub" / "00.png"
    cache = ImageCache.build([file], file, tmp_path / "cache", shorter_px=32)
    assert cache.names == ["00.png"]


def test_wrong_size_is_a_settings_error(root, tmp_path):
    with pytest.raises(SettingsError, match="shorter_px is 33; it must be a multiple of 32"):
        build(root, tmp_path / "cache", shorter_px=33)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_disk_full(root, tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    (folder / ".images.raw.part").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"cache/images\.raw: cannot be written: the disk is full; free some space"):
        build(root, folder)
    assert list(folder.iterdir()) == []


def test_folder_that_cannot_be_made(root, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="file/cache: cannot be written: Not a directory; choose a folder"):
        build(root, tmp_path / "file" / "cache")


def test_delete(root, tmp_path):
    cache = build(root, tmp_path / "cache")
    cache.delete()
    assert not (tmp_path / "cache").exists()
    cache = build(root, tmp_path / "cache")
    (tmp_path / "cache" / "other").touch()
    cache.delete()
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["other"]


def test_another_process_opens_it_again(root, tmp_path):
    cache = build(root, tmp_path / "cache")
    sent = pickle.dumps(cache)
    assert len(sent) < 500
    np.testing.assert_array_equal(pickle.loads(sent)[5], cache[5])
