"""Images in tar files against the same images in folders."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from contextseg.data.cache import ImageCache
from contextseg.data.image_files import list_images
from contextseg.data.images import read_image
from contextseg.errors import DataError, ImageError
from contextseg.export.names import mask_names


def picture(i: int, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(i).integers(0, 256, (40 + i, 50, 3), np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes], **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", **options) as file:  # type: ignore[call-overload]
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def names(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in list_images(root)]


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The same images as files and in two tars, not in the order of their names."""
    files = {f"{shard}.tar/{'deep/' * (i % 2)}{i}.png": picture(i) for shard in "ab" for i in (2, 0, 1)}
    for name, content in files.items():
        path = tmp_path / "folders" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    for shard in "ab":
        inside = {name.removeprefix(f"{shard}.tar/"): c for name, c in files.items() if name[0] == shard}
        write_tar(tmp_path / "tars" / f"{shard}.tar", inside)
    return tmp_path / "folders", tmp_path / "tars"


def test_a_tar_is_as_the_folder_of_its_files(pair: tuple[Path, Path]) -> None:
    folders, tars = pair
    assert (
        names(tars) == names(folders) == [f"{s}.tar/{name}" for s in "ab" for name in ("0.png", "2.png", "deep/1.png")]
    )
    for in_folder, in_tar in zip(list_images(folders), list_images(tars), strict=True):
        np.testing.assert_array_equal(read_image(in_tar), read_image(in_folder))
    masks = [[*mask_names(list_images(root), root).values()] for root in pair]
    assert masks[0] == masks[1]


def test_one_tar_is_a_root(pair: tuple[Path, Path]) -> None:
    tar = pair[1] / "a.tar"
    assert names(tar) == ["0.png", "2.png", "deep/1.png"]
    assert [path.as_posix() for path in mask_names(list_images(tar), tar).values()] == names(tar)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_formats_of_tar(tmp_path: Path, format: int) -> None:
    name = f"./{'long/' * 25}ümlaut.PNG"
    tar = write_tar(tmp_path / "a.tar", {name: picture(3)}, format=format)
    assert names(tar) == [name.removeprefix("./")]
    assert read_image(list_images(tar)[0]).shape == (43, 50, 3)


def test_only_the_images_of_samples_count(tmp_path: Path) -> None:
    inside = ["1.jpg", "1.seg.png", "1.json", "1.cls", ".hidden.png", ".h/2.png", "labels/1.png", "x/Masks/1.png"]
    tar = write_tar(tmp_path / "a.tar", {name: picture(1, "JPEG") for name in [*inside, "labels.png"]})
    assert names(tar) == ["1.jpg", "labels.png"]


def test_two_images_in_a_sample(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", {"x/1.jpg": b"", "x/1.png": b"", "y/1.png": b""})
    with pytest.raises(
        DataError, match=r"a\.tar: 1\.jpg and 1\.png are one sample, .* kind of their own, .* 1\.seg\.png"
    ):
        list_images(tmp_path)


@pytest.mark.parametrize("name", ["../out.png", "a/../../out.png", "/out.png", "..\\out.png", "C:\\out.png"])
def test_names_that_lead_out_of_the_tar(tmp_path: Path, name: str) -> None:
    tar = write_tar(tmp_path / "in" / "a.tar", {name: picture(1), "good.png": picture(2)})
    good, fault = list_images(tmp_path / "in")
    assert good == tar / "good.png"
    assert fault == tar
    with pytest.raises(ImageError, match="holds 1 members whose names lead out of it, which are left out"):
        read_image(fault)
    for path in (tar / name, Path(f"{tar}/{name}")):
        with pytest.raises(ImageError, match=r"no file in a\.tar|does not exist"):
            read_image(path)


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.png").write_bytes(picture(1))
    tar = write_tar(tmp_path / "a.tar", {"good.png": picture(2)})
    with tarfile.open(tar, "a") as file:
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"link{int(kind)}.png")
            info.type, info.linkname = kind, str(tmp_path / "secret.png")
            file.addfile(info)
    assert names(tar) == ["good.png"]


def test_the_last_member_of_a_name_counts(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": picture(1)})
    with tarfile.open(tar, "a") as file:
        content = picture(5)
        info = tarfile.TarInfo("1.png")
        info.size = len(content)
        file.addfile(info, io.BytesIO(content))
    assert [read_image(path).shape for path in list_images(tar)] == [(45, 50, 3)]


def test_a_tar_that_changes_is_listed_again(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": picture(1)})
    assert names(tar) == ["1.png"]
    write_tar(tar, {"2.png": picture(2), "3.png": picture(3)})
    assert names(tar) == ["2.png", "3.png"]
    with pytest.raises(ImageError, match=r"1\.png: is no file in a\.tar; the tar is whole"):
        read_image(tar / "1.png")


def test_a_compressed_tar(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {"1.png": picture(1)})
    tar.write_bytes(gzip.compress(tar.read_bytes()))
    assert list_images(tar) == [tar]
    with pytest.raises(DataError, match=r"a\.tar cannot be read to its end as an uncompressed tar file"):
        ImageCache.build([tar], tar, tmp_path / "cache", shorter_px=32)


def test_a_broken_image_in_a_tar_is_left_out(tmp_path: Path) -> None:
    inside = {"0.png": picture(0), "1.png": picture(1)[:300], "2.png": b"", "3.png": picture(3)}
    write_tar(tmp_path / "in" / "a.tar", inside)
    cache = ImageCache.build(list_images(tmp_path / "in"), tmp_path / "in", tmp_path / "cache", shorter_px=32)
    assert cache.names == ["a.tar/0.png", "a.tar/3.png"]
    assert [name for name, _ in cache.left_out] == ["a.tar/1.png", "a.tar/2.png"]


@pytest.mark.parametrize("cut", range(0, 6 * 6144, 1500))
def test_a_cut_tar_gives_what_is_whole_and_says_what_is_wrong(tmp_path: Path, cut: int) -> None:
    inside = {f"{i}.png": picture(i) for i in range(5)}
    tar = write_tar(tmp_path / "a.tar", inside)
    with tarfile.open(tar) as file:
        ends = {member.name: member.offset_data + member.size for member in file}
    last = -(-ends["4.png"] // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE  # with its padding
    os.truncate(tar, cut)
    whole, told = [], []
    for path in list_images(tar):
        try:
            np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(io.BytesIO(inside[path.name]))))
            whole.append(path.name)
        except ImageError as error:
            told.append(error.reason)
    assert whole == [name for name, end in ends.items() if end <= cut]
    assert bool(told) == (cut < last)
    assert all("truncated" in reason or "cannot be read to its end" in reason for reason in told)


def test_a_damaged_header_ends_the_list_with_words(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", {f"{i}.png": picture(i) for i in range(3)})
    with tarfile.open(tar) as file:
        second = file.getmember("1.png").offset
    content = bytearray(tar.read_bytes())
    content[second] ^= 1  # the header's checksum is wrong now
    tar.write_bytes(content)
    assert list_images(tar) == [tar / "0.png", tar]
    with pytest.raises(ImageError, match=rf"1 files are before that: the header at byte {second:,} is damaged"):
        read_image(tar)
