from pathlib import Path

import pytest
from watched_runs import tiny

from contextseg.data.scenes import write_scenes
from contextseg.run_folder import RunFolder
from contextseg.training.fit import fit


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four images of 48 x 64 pixels."""
    root = tmp_path_factory.mktemp("faults")
    write_scenes(root, 4, seed=3, size=(48, 64))
    return root / "images"


@pytest.fixture(scope="session")
def unbroken(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(photos, tmp_path_factory.mktemp("unbroken") / "run", tiny())
