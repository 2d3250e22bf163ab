"""The verb `review`, up to the moment at which it serves."""

import socket
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from contextseg import verbs
from contextseg.errors import RunError
from contextseg.review.serve import open_review, review
from contextseg.settings import make_settings


def test_masks_that_are_missing_are_predicted(scenes: Path, tmp_path: Path) -> None:
    settings = make_settings({"n_classes": 4, "method": "lab", "data": {"image_px": 64}, "views": {"frame_px": 64}})
    run = verbs.fit(scenes, tmp_path / "run", settings).path
    verbs.hide(run, [0, 1, 2, 3])
    console = Console(record=True, width=200)
    found = open_review(run, scenes, console=console)
    assert len(found.collection.names) == 12
    verbs.predict(run, scenes, tmp_path / "raw", raw=True)
    for index, name in enumerate(found.collection.names):
        with Image.open(tmp_path / "raw" / name) as mask:
            assert np.array_equal(found.clusters(index), np.asarray(mask))
    assert np.isfinite(found.collection.confidence_N).all()

    images = tmp_path / "photos"
    images.mkdir()
    Image.new("RGB", (32, 24)).save(images / "new.png")
    (images / "broken.png").write_bytes(b"no picture")
    assert open_review(run, images, console=console).collection.names == ("new.png",)
    assert "left out" in console.export_text()


def test_masks_of_another_folder_are_taken_as_they_are(case: tuple[Path, Path], tmp_path: Path) -> None:
    run, images = case
    masks = (run / "review/masks").rename(tmp_path / "masks")
    assert len(open_review(run, images, masks=masks, console=Console(quiet=True)).collection.names) == 3
    assert not (run / "review/masks").exists()


def test_a_port_that_is_in_use(case: tuple[Path, Path]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(RunError, match=f"port {port}: cannot be used: .* --port 0 takes any that is free"):
            review(*case, port=port)
