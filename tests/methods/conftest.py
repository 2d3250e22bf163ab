"""Images to train on, without a run: those of `scenes`, 64 x 96 pixels."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from contextseg.methods import METHODS
from contextseg.methods.method import Method
from contextseg.settings import ViewSettings, make_settings
from contextseg.views.geometry import whole_coordinates
from contextseg.views.siamese import SiameseBatch, siamese_batch


class SceneImages:
    def __init__(self, root: Path) -> None:
        self.images = [pil_to_tensor(Image.open(path)) for path in sorted((root / "images").iterdir())]
        self.n_images = len(self.images)

    def views(self, indices: list[int], epoch: int = 0) -> SiameseBatch:
        settings = ViewSettings(frame_px=64)
        return siamese_batch([self.images[i] for i in indices], indices, seed=0, epoch=epoch, settings=settings)

    def batches(self, epoch: int) -> Iterator[SiameseBatch]:
        for start in range(0, self.n_images, 4):
            yield self.views(list(range(start, start + 4)), epoch)

    def whole(self, first: int | None = None, *, after: int = 0) -> Iterator[tuple[list[int], Tensor, Tensor]]:
        indices = list(range(self.n_images))[after:first]
        if not indices:
            return
        images = torch.stack([self.images[index] for index in indices]).float() / 255
        yield indices, images, whole_coordinates(16, 24).expand(len(indices), -1, -1, -1)


@pytest.fixture(scope="session")
def images(scenes: Path) -> SceneImages:
    return SceneImages(scenes)


@pytest.fixture
def make() -> Callable[..., Method]:
    """Build a method for 3 classes on a tiny network: make("iic", displacement=1)."""

    def build(name: str, *, n_classes: int = 3, max_points: int = 600, rate: float = 1e-4, **own: object) -> Method:
        values = {
            "n_classes": n_classes,
            "method": name,
            "data": {"image_px": 64},
            "views": {"frame_px": 64},
            "backbone": {"name": "test_resnet"},
            "clustering": {"max_points": max_points, "n_restarts": 1},
            "training": {"learning_rate": rate, "batch_size": 4},
            name: {"dim": 8} | own,
        }
        torch.manual_seed(0)
        return METHODS[name](make_settings(values))

    return build


@pytest.fixture
def losses_of(images: SceneImages) -> Callable[..., list[float]]:
    """Train a method on one batch: the loss before each step."""

    def train(method: Method, n_steps: int, epoch: int = 0) -> list[float]:
        method.allocate(images.n_images)
        optimizer = method.optimizer()
        torch.manual_seed(0)
        with torch.no_grad():
            method.begin_epoch(epoch, images)
        losses = []
        for _ in range(n_steps):
            batch = images.views([0, 1, 2, 3])
            if partners := method.partners(batch.indices, epoch):
                batch.partners = images.views(partners)
            torch.manual_seed(0)
            loss = method(batch)["loss"]
            losses.append(loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return losses

    return train
