"""Runs on a ViT, and on a backbone that is frozen."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from contextseg import verbs
from contextseg.models.backbone import create_net
from contextseg.settings import BackboneSettings, make_settings

OWN = {
    "context": {"n_partitions": 2, "embedding": {"dim": 16}, "guidance": {"grid": 8}},
    "picie": {"dim": 16},
    "kmeans": {},
}
VIT = {"name": "test_vit", "options": {"patch_size": 14, "img_size": 70, "depth": 5, "embed_dim": 24, "num_heads": 2}}


RESNET = {"name": "test_resnet"}


@pytest.mark.parametrize(
    ("method", "backbone", "frozen"),
    [
        ("context", VIT, False),
        ("context", VIT, True),
        ("picie", VIT, False),
        ("picie", RESNET, True),
        ("kmeans", VIT, False),
    ],
)
def test_fit_and_predict(scenes: Path, tmp_path: Path, method: str, backbone: dict[str, object], frozen: bool) -> None:
    torch.manual_seed(0)
    start = create_net(BackboneSettings(**backbone), pretrained=False).state_dict()
    save_file(start, tmp_path / "start.safetensors")
    settings = {
        "n_classes": 4,
        "method": method,
        "data": {"image_px": 64},
        "views": {"frame_px": 64},
        "backbone": {**backbone, "weights": tmp_path / "start.safetensors", "frozen": frozen},
        "clustering": {"max_points": 2000, "n_restarts": 1},
        "training": {"epochs": 1, "batch_size": 4, "learning_rate": 1e-3},
        method: OWN[method],
    }
    run = verbs.fit(scenes, tmp_path / "run", make_settings(settings))
    prefix = "embedding.backbone.net."
    found = {name.removeprefix(prefix): value for name, value in load_file(run.weights).items() if prefix in name}
    kept = all(torch.equal(value, start[name]) for name, value in found.items())
    assert kept == (frozen or method == "kmeans")

    Image.fromarray(np.random.default_rng(0).integers(0, 256, (50, 81, 3), np.uint8)).save(tmp_path / "odd.png")
    assert verbs.predict(run.path, tmp_path / "odd.png", tmp_path / "masks") == []
    with Image.open(tmp_path / "masks" / "odd.png") as mask:
        assert mask.size == (81, 50)
    scores = verbs.evaluate(run.path, scenes)
    assert scores.matrix.sum() == 12 * 64 * 96
