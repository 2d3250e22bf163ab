"""A disk that is full or read-only: one error names the file, and once there is room the run goes on."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from watched_runs import same_run, tiny

from contextseg.errors import WriteError
from contextseg.run_folder import RunFolder
from contextseg.training.fit import fit
from contextseg.verbs import predict

FILES = [
    "settings.yaml",
    "cache/images.raw",
    "cache/index.json",
    "meta.json",
    "checkpoint.safetensors",
    "classes.json",
    "weights.safetensors",
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system in memory of 64 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", path], check=False, capture_output=True
    ).returncode:
        pytest.skip("a small disk can only be mounted by root, with the rights to")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def remount(disk: Path, option: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{option}", disk], check=True)


def attempt(photos: Path, run: Path) -> WriteError | None:
    try:
        fit(photos, run, tiny(), resume=(run / "settings.yaml").exists())
    except WriteError as error:
        return error
    return None


def test_a_disk_that_is_full_and_grows(photos: Path, disk: Path, unbroken: RunFolder) -> None:
    run, size_kib = disk / "run", 64
    while (error := attempt(photos, run)) is not None:
        print(f"{size_kib} KiB: {error.path.name}")
        assert f"{error.path}: cannot be written: the disk is full; free some space" in str(error)
        assert not list(run.rglob("*.part"))
        size_kib *= 4
        remount(disk, f"size={size_kib}k")
    assert size_kib >= 1024
    same_run(unbroken, RunFolder.open(run))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("name", FILES)
def test_each_file_of_a_run(photos: Path, tmp_path: Path, unbroken: RunFolder, name: str) -> None:
    run = tmp_path / "run"
    RunFolder.create(run, tiny())
    part = (run / name).with_name(f".{Path(name).name}.part")
    part.parent.mkdir(exist_ok=True)
    part.symlink_to("/dev/full")
    with pytest.raises(WriteError, match=f"run/{name}: cannot be written: the disk is full; free some space"):
        fit(photos, run, tiny(), resume=True)
    same_run(unbroken, fit(photos, run, tiny(), resume=True))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_masks(photos: Path, tmp_path: Path, unbroken: RunFolder) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / ".0002.png.part").symlink_to("/dev/full")
    with pytest.raises(WriteError, match=r"masks/0002\.png: cannot be written: the disk is full"):
        predict(unbroken.path, photos, masks)
    written = {path.name for path in masks.glob("[!.]*")}
    assert {"classes.json", "0000.png", "0001.png"} <= written <= {"classes.json", "0000.png", "0001.png", "0003.png"}
    assert predict(unbroken.path, photos, masks) == []
    assert len(list(masks.glob("*.png"))) == 4


def test_a_read_only_disk(photos: Path, disk: Path, unbroken: RunFolder) -> None:
    remount(disk, "size=16m")
    run = fit(photos, disk / "run", tiny(epochs=1))
    remount(disk, "ro")
    with pytest.raises(WriteError, match="run: cannot be written: Read-only file system; choose a folder that may be"):
        fit(photos, run.path, tiny(), resume=True)
    with pytest.raises(WriteError, match=r"masks/classes\.json: cannot be written: Read-only file system"):
        predict(run.path, photos, disk / "masks")
    remount(disk, "rw")
    same_run(unbroken, fit(photos, run.path, tiny(), resume=True))
