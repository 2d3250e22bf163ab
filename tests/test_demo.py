"""The demo, on few images and for one epoch."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from contextseg import demo
from contextseg.data.scenes import CLASSES
from contextseg.errors import RunError


def test_the_demo_learns_scores_and_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(demo.SCHEDULE, "training", {"epochs": 1, "batch_size": 4})
    console = Console(record=True, width=120)
    found = demo.run_demo(tmp_path / "demo", n_images=8, seed=1, console=console)
    assert list(found) == ["context", "PiCIE", "Lab + position"]
    for name, scores in found.items():
        assert 0 < scores.miou < scores.accuracy < 1, name
    text = console.export_text()
    for name in (*CLASSES, *found, "mean IoU"):
        assert name in text
    with Image.open(tmp_path / "demo" / "demo.png") as picture:
        assert np.asarray(picture).std() > 10
    assert len(list((tmp_path / "demo" / "masks").glob("*.png"))) == 8
    with pytest.raises(RunError, match="is not empty"):
        demo.run_demo(tmp_path / "demo", n_images=8, seed=1, console=console)
