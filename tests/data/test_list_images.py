from pathlib import Path

import pytest

from contextseg.data.image_files import list_images
from contextseg.errors import DataError


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_images(root)]


def test_lists_by_suffix_in_the_order_of_relative_paths(tmp_path):
    touch(
        tmp_path,
        "b.JPG",
        "a/z.Tiff",
        "a.png",
        "a/b/c.webp",
        "c.jpeg",
        "d.bmp",
        "e.tif",
        "notes.txt",
        "f.jpg.txt",
    )
    assert listed(tmp_path) == ["a.png", "a/b/c.webp", "a/z.Tiff", "b.JPG", "c.jpeg", "d.bmp", "e.tif"]


def test_skips_hidden_files_and_folders(tmp_path):
    touch(tmp_path, ".hidden.jpg", ".cache/a.jpg", "shown.jpg", "sub/._shown.jpg")
    assert listed(tmp_path) == ["shown.jpg"]


def test_hidden_names_above_the_root_do_not_matter(tmp_path):
    touch(tmp_path, ".data/a.jpg")
    assert listed(tmp_path / ".data") == ["a.jpg"]


def test_one_file_is_a_root(tmp_path):
    touch(tmp_path, "a.jpg", "b.txt")
    assert list_images(tmp_path / "a.jpg") == [tmp_path / "a.jpg"]
    with pytest.raises(DataError, match=r"b\.txt: is no image file; expected a folder of images, or .*\.jpg"):
        list_images(tmp_path / "b.txt")


@pytest.mark.parametrize("labels", ["labels", "annotations", "Labels", "masks"])
def test_labels_beside_images_are_never_listed(tmp_path, labels):
    touch(tmp_path, "images/train/a.jpg", f"{labels}/train/a.png", "preview.png", "other/b.png")
    assert listed(tmp_path) == ["images/train/a.jpg"]


@pytest.mark.parametrize("labels", ["labels", "annotations", "masks", "gt", "Label", "SegmentationClassAug"])
def test_labels_are_not_listed_wherever_they_lie(tmp_path, labels):
    touch(tmp_path, "set/train/images/a.jpg", f"set/train/{labels}/a.png", "flat/b.jpg", f"flat/{labels}/b.png")
    assert listed(tmp_path) == ["flat/b.jpg", "set/train/images/a.jpg"]


def test_images_without_labels_beside_them_are_an_ordinary_folder(tmp_path):
    touch(tmp_path, "images/a.jpg", "more/b.jpg", "c.jpg")
    assert listed(tmp_path) == ["c.jpg", "images/a.jpg", "more/b.jpg"]


def test_no_shared_label_is_listed(shared_data):
    for name in ("camvid", "msrc21", "cocostuff_sample"):
        assert {path.suffix for path in list_images(shared_data / name)} == {".jpg"}
    assert len(list_images(shared_data / "camvid")) == 468


def test_links_are_followed_once(tmp_path):
    touch(tmp_path, "a/x.jpg")
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    assert listed(tmp_path) == ["a/x.jpg"]


def test_nothing_to_list(tmp_path):
    with pytest.raises(DataError, match="missing: no such folder; expected a folder that holds images"):
        list_images(tmp_path / "missing")
    touch(tmp_path, "labels/a.png", "notes.txt")
    with pytest.raises(DataError, match=r"no images found; expected files ending in .*\.jpg.*labels.* are skipped"):
        list_images(tmp_path)
