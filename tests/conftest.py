"""Fixtures that several folders share."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from contextseg.data.scenes import write_scenes

REPOSITORY = Path(__file__).parents[1]
# Two processes on few cores, each with as many threads as cores, spend their time waiting for one another.
torch.set_num_threads(1)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=6, help="how often tests/faults kills a run; make faults: 60")


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled set of 12 generated scenes, 64 x 96 pixels."""
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root, 12, seed=3, size=(64, 96))
    return root


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder that holds camvid/, msrc21/, cocostuff_sample/ and labels/."""
    shared = Path(os.environ.get("CONTEXTSEG_DATA", REPOSITORY.parent / "shared"))
    if not (shared / "data").is_dir():
        pytest.skip(f"no shared data: {shared / 'data'} is not there; CONTEXTSEG_DATA may name a folder that holds it")
    return shared / "data"


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def hard_folder(tmp_path: Path, rng: np.random.Generator) -> tuple[Path, dict[str, str]]:
    """A folder of what users have, and for each file that cannot be trained on a part of the reason."""
    root = tmp_path / "hard"
    root.mkdir()
    picture = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8))
    picture.save(root / "good.jpg")
    picture.save(root / "GOOD.PNG")
    picture.convert("CMYK").save(root / "cmyk.jpg")
    picture.save(root / "png_content.jpg", format="PNG")
    Image.new("RGB", (30_000, 20), "teal").save(root / "wide.png")
    Image.new("RGB", (1, 1)).save(root / "one_pixel.png")
    (root / "empty.jpg").touch()
    (root / "truncated.jpg").write_bytes((root / "good.jpg").read_bytes()[:900])
    (root / "truncated.png").write_bytes((root / "GOOD.PNG").read_bytes()[:900])
    (root / "text.jpg").write_text("not an image, but long enough to look like a file with content\n" * 20)
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "folder.png").mkdir()
    os.mkfifo(root / "pipe.png")
    return root, {
        "dangling.png": "is a link to a file that does not exist",
        "empty.jpg": r"is empty \(0 bytes\)",
        "one_pixel.png": "is too small: 1 x 1 pixels, each side must have at least 16",
        "pipe.png": "is not a regular file",
        "text.jpg": "is not a JPEG, PNG, TIFF, WebP, BMP or GIF image",
        "truncated.jpg": "is truncated or damaged",
        "truncated.png": "is truncated or damaged",
    }
