"""A run finds out how its starting weights want their input, keeps it, and resumes with it."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import save_file
from torch import nn
from torchvision.transforms.functional import pil_to_tensor

from contextseg.errors import SettingsError, WeightsError
from contextseg.models.backbone import create_net
from contextseg.models.input_convention import with_metadata
from contextseg.run_folder import RunFolder
from contextseg.settings import BackboneSettings, Settings, make_settings
from contextseg.training.fit import fit


@pytest.fixture(scope="module")
def weights(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose statistics were taken from the scenes, scaled to -1 to 1 and padded as TensorFlow does."""
    torch.manual_seed(0)
    net = create_net(BackboneSettings(name="mobilenetv2_035", options={"pad_type": "same"}), pretrained=False)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the plain average
    images = torch.stack([pil_to_tensor(Image.open(path)) for path in sorted((scenes / "images").iterdir())])
    with torch.no_grad():
        net.train()(images.float() / 255 * 2 - 1)
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(net.state_dict(), path)
    return path


def settings(weights: Path, epochs: int = 1, **backbone: object) -> Settings:
    return make_settings(
        {
            "n_classes": 4,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": {"name": "mobilenetv2_035", "weights": weights, **backbone},
            "clustering": {"max_points": 1000},
            "context": {"n_partitions": 1, "embedding": {"dim": 16}},
            "training": {"epochs": epochs, "batch_size": 4},
        }
    )


def test_the_input_is_found_told_kept_and_resumed(scenes: Path, tmp_path: Path, weights: Path) -> None:
    console = Console(record=True, width=500)
    fit(scenes, tmp_path / "run", settings(weights), console=console)
    assert "mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5) and padding same" in console.export_text()
    found = RunFolder.open(tmp_path / "run").settings().backbone
    assert found.mean == found.std == (0.5, 0.5, 0.5)
    assert found.options == {"pad_type": "same"}
    resumed = fit(scenes, tmp_path / "run", settings(weights, epochs=2), resume=True)
    assert resumed.settings().backbone == found


def test_what_the_user_states_is_used(scenes: Path, tmp_path: Path, weights: Path) -> None:
    run = fit(scenes, tmp_path / "run", settings(weights, mean=[0.1, 0.2, 0.3]))
    found = run.settings().backbone
    assert found.mean == (0.1, 0.2, 0.3)
    assert found.options == {}


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ("{not json", "cannot be used"),
        ("[1]", "cannot be used"),
        ('{"mean": [1, 2]}', "cannot be used"),
        ('{"unknown": 1}', "cannot be used"),
        ('{"options": [1]}', "cannot be used"),
        ('{"options": {"pretrained": true}}', "options may not set pretrained"),
        ('{"options": {"pretrained_cfg_overlay": {"url": "http://localhost"}}}', "may not set pretrained_cfg_overlay"),
    ],
)
def test_what_a_file_says_of_itself_is_checked(tmp_path: Path, stated: str, message: str) -> None:
    path = tmp_path / "w.safetensors"
    save_file({"weight": torch.zeros(1)}, path, {"contextseg": stated})
    with pytest.raises(WeightsError, match=rf"w\.safetensors: its metadata 'contextseg' .*{message}"):
        with_metadata(BackboneSettings(name="resnet18", weights=path))


@pytest.mark.parametrize("option", ["pretrained", "pretrained_cfg", "checkpoint_path", "num_classes"])
def test_options_load_nothing(option: str) -> None:
    with pytest.raises(SettingsError, match=f"options may not set {option}"):
        make_settings({"n_classes": 4, "backbone": {"options": {option: True}}})
