"""Tar files and a cache with a limit give the run of the same images in folders, bit by bit."""

import tarfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from contextseg import verbs
from contextseg.errors import DataError
from contextseg.settings import make_settings

VALUES = {
    "n_classes": 3,
    "method": "picie",  # its centres are of passes over all images, with which training goes on
    "data": {"image_px": 64},
    "views": {"frame_px": 64},
    "backbone": {"name": "test_resnet"},
    "clustering": {"max_points": 500, "n_restarts": 1},
    "training": {"epochs": 1, "batch_size": 4},
}


def fitted(images: Path, out: Path, **data: int) -> dict[str, torch.Tensor]:
    settings = make_settings(VALUES | {"data": {"image_px": 64} | data})
    return load_file(verbs.fit(images, out, settings).weights)


@pytest.fixture
def shards(scenes: Path, tmp_path: Path) -> Path:
    """The 12 scenes in three tars."""
    root = tmp_path / "shards"
    root.mkdir()
    for i, path in enumerate(sorted((scenes / "images").iterdir())):
        with tarfile.open(root / f"{i // 5}.tar", "a") as file:
            file.add(path, path.name)
    return root


def test_fit_and_predict_from_tars_with_a_small_cache(scenes: Path, shards: Path, tmp_path: Path) -> None:
    whole = fitted(scenes / "images", tmp_path / "whole")
    found = fitted(shards, tmp_path / "run", cache_bytes=5 * 3 * 64 * 96)
    assert found.keys() == whole.keys()
    for name, value in found.items():
        assert torch.equal(value, whole[name]), name
    assert verbs.predict(tmp_path / "run", shards, tmp_path / "masks") == []
    verbs.predict(tmp_path / "whole", scenes / "images", tmp_path / "expected")
    names = {path.name: path for path in (tmp_path / "masks").rglob("*.png")}
    assert (tmp_path / "masks/2.tar/0010.png").is_file()
    assert len(names) == 12
    for path in (tmp_path / "expected").glob("*.png"):
        assert names[path.name].read_bytes() == path.read_bytes()


def test_a_damaged_tar_does_not_end_a_run(shards: Path, tmp_path: Path) -> None:
    tar = shards / "2.tar"
    tar.write_bytes(tar.read_bytes()[:2000])  # in its first image
    run = verbs.fit(shards, tmp_path / "run", make_settings(VALUES))
    left_out = {entry["file"]: entry["reason"] for entry in run.read_json("meta.json")["left_out"]}
    assert run.read_json("meta.json")["data"]["n_images"] == 10
    assert left_out.keys() == {"2.tar", "2.tar/0010.png"}
    assert "cannot be read to its end" in left_out["2.tar"]
    told = dict(verbs.predict(run.path, shards, tmp_path / "masks"))
    assert told.keys() == {str(tar), str(tar / "0010.png")}
    with pytest.raises(DataError, match=r"no image could be used\. .*0010\.png: is truncated.*; 1 more"):
        verbs.predict(run.path, tar, tmp_path / "none")
