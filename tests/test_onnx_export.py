"""One ONNX file from pixels to classes: ONNX Runtime and the predictor agree on images of any size."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from contextseg.classes import Classes
from contextseg.methods.context import Context
from contextseg.onnx_export import write_onnx
from contextseg.predictor import Predictor
from contextseg.settings import make_settings

CLASSES = Classes.numbered(5).rename({0: "sky", 1: "Straße"})


VIT = {"name": "test_vit", "options": {"patch_size": 14, "img_size": 70, "depth": 3, "embed_dim": 24, "num_heads": 2}}


@pytest.fixture(scope="module", params=[{"name": "test_resnet"}, VIT], ids=["resnet", "vit"])
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Predictor, Path]:
    settings = make_settings(
        {
            "n_classes": 5,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": request.param,
            "context": {"embedding": {"dim": 16, "bilateral": True}},
        }
    )
    torch.manual_seed(0)
    method = Context(settings)
    with torch.no_grad():
        for parameter in method.embedding.parameters():  # those that start at zero would hide their part of the graph
            if not parameter.any():
                parameter.normal_(std=0.3)
    predictor = Predictor(method, F.normalize(torch.randn(5, 16 + 64), dim=1), settings)
    path = tmp_path_factory.mktemp("onnx") / "run.onnx"
    write_onnx(predictor, path, CLASSES)
    return predictor, path


def test_clusters_and_confidence_agree_on_twenty_sizes(exported: tuple[Predictor, Path]) -> None:
    predictor, path = exported
    session = onnxruntime.InferenceSession(path)
    rng = np.random.default_rng(0)
    sizes = [(64, 64), (1, 1), (60, 250), (400, 130), *(tuple(rng.integers(20, 260, 2)) for _ in range(16))]
    for height, width in sizes:
        coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        image = np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)[:height, :width])
        expected = predictor.predict(image)
        classes, confidence = session.run(["classes", "confidence"], {"pixels": image})
        assert classes.dtype == np.uint8
        assert (classes == expected.clusters).mean() >= 0.999, (height, width)
        np.testing.assert_allclose(confidence, expected.confidence, atol=0.02)
    assert len(np.unique(predictor.predict(image).clusters)) > 1


def test_nearly_all_pixels_agree_where_an_image_is_many_times_as_large(exported: tuple[Predictor, Path]) -> None:
    predictor, path = exported
    coarse = np.random.default_rng(0).integers(0, 256, (10, 14, 3), np.uint8)
    image = np.asarray(Image.fromarray(coarse).resize((700, 500), Image.Resampling.BICUBIC))
    (classes,) = onnxruntime.InferenceSession(path).run(["classes"], {"pixels": image})
    assert (classes == predictor.predict(image).clusters).mean() > 0.99


def test_the_file_names_its_classes(exported: tuple[Predictor, Path], tmp_path: Path) -> None:
    _, path = exported
    stored = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    (tmp_path / "classes.json").write_text(stored["classes"])
    assert Classes.read(tmp_path / "classes.json") == CLASSES


def test_a_network_that_pads_as_tensorflow_does(tmp_path: Path) -> None:
    """timm's own "same" convolutions would be exported for many minutes. Here what the classifier sees has its say."""
    backbone = {"name": "mobilenetv2_035", "options": {"pad_type": "same"}}
    settings = make_settings(
        {
            "n_classes": 5,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": backbone,
            "context": {"embedding": {"to_the_end": True}},
        }
    )
    torch.manual_seed(0)
    method = Context(settings)
    centers = F.normalize(torch.randn(5, method.embedding.n_channels), dim=1)
    predictor = Predictor(method, centers, settings)
    write_onnx(predictor, tmp_path / "run.onnx", CLASSES)
    session = onnxruntime.InferenceSession(tmp_path / "run.onnx")
    for height, width in ((64, 64), (142, 84), (175, 239)):
        image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
        classes, _ = session.run(["classes", "confidence"], {"pixels": image})
        assert (classes == predictor.predict(image).clusters).mean() >= 0.999
