"""MDC: the loss by hand, the classifier that is drawn anew, and the moments that go with it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contextseg.clustering.kmeans import KMeans
from contextseg.methods.mdc import Mdc


class Given(nn.Module):
    """Always the same embedding."""

    def __init__(self, embedded: torch.Tensor) -> None:
        super().__init__()
        self.embedded = embedded

    def forward(self, _image: torch.Tensor, _coordinates: torch.Tensor) -> torch.Tensor:
        return self.embedded


@pytest.fixture
def begun(make, images) -> Mdc:
    """A method whose first epoch has begun, with its optimiser."""
    method = make("mdc")
    method.optimizer()
    torch.manual_seed(1)
    with torch.no_grad():
        method.begin_epoch(0, images)
    return method


def test_the_loss_by_hand(make, images) -> None:
    method = make("mdc", dim=2, n_classes=2)
    # Cells (1, 0), (0.6, 0.8), (0, 1); centres (0.8, 0.6), (0, 1). Scores: 0.8 and 0; 0.96 and 0.8; 0.6 and 1.
    method.embedding = Given(torch.tensor([[1.0, 0.6, 0.0], [0.0, 0.8, 1.0]])[None, :, None])
    with torch.no_grad():
        method.centers_KD.copy_(torch.tensor([[0.8, 0.6], [0.0, 1.0]]))
        method.classifier.weight.copy_(torch.tensor([[1.0, 2.0], [-1.0, 0.5]]))
        method.classifier.bias.copy_(torch.tensor([0.0, 0.25]))
    # Labels 0, 0, 1. Logits: 1 and -0.75; 2.2 and 0.05; 2 and 0.75. Cross-entropy: log(1 + exp(other - own)).
    terms = [math.log1p(math.exp(gap)) for gap in (-0.75 - 1, 0.05 - 2.2, 2 - 0.75)]
    found = method(images.views([0]))
    assert found["loss"].item() == pytest.approx(sum(terms) / 3, abs=1e-6)
    assert method.cluster_use().tolist() == [2, 1]


def test_the_centers_are_those_of_the_first_view(make, images) -> None:
    method = make("mdc", max_points=5000)  # all 12 x 256 cells
    with torch.no_grad():
        method.begin_epoch(4, images)
        maps = [method.embedding(batch.first_B3hw, batch.first_coordinates()) for batch in images.batches(4)]
    points = [map_BDhw.movedim(1, -1).flatten(0, -2) for map_BDhw in maps]
    torch.testing.assert_close(method.centers_KD, KMeans(3, seed=0 + 4, n_restarts=1).fit(points).centers_)


def test_as_many_points_are_clustered_as_memory_allows(make, images, monkeypatch) -> None:
    seen, observe = [], KMeans.observe
    monkeypatch.setattr(KMeans, "observe", lambda self, points: (seen.append(len(points)), observe(self, points)))
    with torch.no_grad():
        make("mdc", max_points=65).begin_epoch(0, images)
    assert seen == [4 * 5] * 3  # 65 // 12 = 5 cells of each of the 4 images of a batch


def test_a_new_classifier_each_epoch_is_small_and_unbiased(begun, images) -> None:
    before = begun.classifier.weight.clone()
    assert 0.003 < before.std() < 0.02  # 24 draws of a normal distribution of 0.01
    assert not begun.classifier.bias.any()
    with torch.no_grad():
        begun.classifier.bias.fill_(1)
        begun.begin_epoch(1, images)
    assert not torch.equal(begun.classifier.weight, before)
    assert not begun.classifier.bias.any()
    assert begun.cluster_use().sum() == 0


def test_the_moments_of_the_classifier_start_anew_and_the_others_stay(make, images, losses_of) -> None:
    method = make("mdc")
    losses_of(method, 2)
    state = method._optimizer.state
    lateral = method.embedding.decoder.laterals[0].weight
    assert state[method.classifier.weight]["step"] == state[lateral]["step"] == 2
    with torch.no_grad():
        method.begin_epoch(1, images)
    assert method.classifier.weight not in state
    assert state[lateral]["step"] == 2
    assert state[lateral]["exp_avg"].abs().sum() > 0


def test_dim_is_that_of_the_embedding(make, images) -> None:
    method = make("mdc", dim=5)
    _, pixels, coordinates = next(images.whole(1))
    embedded = method.embedding(pixels, coordinates)
    assert embedded.shape == (1, 5, 16, 24)
    torch.testing.assert_close(F.normalize(embedded, dim=1), embedded)


def test_it_learns_one_batch_by_heart(make, losses_of) -> None:
    losses = losses_of(make("mdc", rate=0.01), 20)
    assert losses[0] == pytest.approx(math.log(3), abs=0.05)  # a new classifier knows nothing
    assert losses[-1] < 0.6 * losses[0]
