import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contextseg.clustering.kmeans import KMeans
from contextseg.methods.picie import Picie, class_weights, head_weights
from contextseg.settings import METHOD_SECTIONS, make_settings
from contextseg.views.geometry import GeometricView
from contextseg.views.siamese import SiameseBatch


class RedGreen(nn.Module):
    """Red and green of each cell as a unit vector: an embedding whose values can be written down."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1, 2, 1, 1))

    def forward(self, image, _coordinates=None):
        return F.normalize(self.gain * F.avg_pool2d(image, 4)[:, :2], dim=1)


def picie(n_classes=2, **values):
    settings = {
        "n_classes": n_classes,
        "method": "picie",
        "backbone": {"name": "test_resnet"},
        "picie": {"dim": 2, "temperature": 1.0} | values,
    }
    method = Picie(make_settings(settings | {"clustering": {"n_restarts": 2}, "training": {"batch_size": 2}}))
    method.embedding = RedGreen()
    return method


def batch_of(first, second, flip=False):
    """A batch of one image with one row of cells; `first` and `second` are the (red, green) of each cell."""

    def pixels(cells):
        image = F.pad(torch.tensor(cells, dtype=torch.float32), (0, 1)).T[None, :, None]
        return image.repeat_interleave(4, 2).repeat_interleave(4, 3)

    grid = (1, len(first))
    crop = GeometricView(grid, (0, 0, *grid), grid, flip_x=flip)
    return SiameseBatch(pixels(first), pixels(second), [crop], [crop], [0])


# Two cells. View 1 has p1 = (1, 0) and p2 = (0, 1); view 2 has q1 = (0.8, 0.6) and q2 = (0.6, 0.8).
BATCH = batch_of([(1, 0), (0, 1)], [(0.8, 0.6), (0.6, 0.8)])
# Centres of view 1: a0 = (1, 0), a1 = (0, 1). Of view 2: b0 = (0, 1), b1 = (0.6, -0.8).
CENTERS = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [0.6, -0.8]]])
# Scores          a0    a1    label     b0     b1    label
#   p1           1     0      0        0      0.6    1 (its own label is 0)
#   p2           0     1      1        1     -0.8    0
#   q1           0.8   0.6    0        0.6    0      0      (0.8 * 0.6 - 0.6 * 0.8 = 0)
#   q2           0.6   0.8    1        0.8   -0.28   0      (0.6 * 0.6 - 0.8 * 0.8 = -0.28)
# Labels: view 1 gives (0, 1), view 2 gives (0, 0). The cross-entropy of two scores is log(1 + exp(other - own)).


def ce(own, other):
    return math.log(1 + math.exp(other - own))


@pytest.mark.parametrize("temperature", [1.0, 0.2])
def test_the_loss_by_hand(temperature):
    method = picie(temperature=temperature)
    method.centers_VKD.copy_(CENTERS)
    t = temperature
    same_1 = (ce(1 / t, 0) + ce(1 / t, 0)) / 2
    same_2 = (ce(0.6 / t, 0) + ce(0.8 / t, -0.28 / t)) / 2
    # Points of view 1, centres and labels of view 2 (0, 0); points of view 2, centres and labels of view 1 (0, 1).
    cross_1 = (ce(0, 0.6 / t) + ce(1 / t, -0.8 / t)) / 2
    cross_2 = (ce(0.8 / t, 0.6 / t) + ce(0.8 / t, 0.6 / t)) / 2
    found = method(BATCH)
    assert found["within"].item() == pytest.approx((same_1 + same_2) / 2, abs=1e-6)
    assert found["cross"].item() == pytest.approx((cross_1 + cross_2) / 2, abs=1e-6)
    assert found["loss"].item() == pytest.approx((same_1 + same_2 + cross_1 + cross_2) / 4, abs=1e-6)


def test_the_weighted_loss_by_hand():
    method = picie()
    method.centers_VKD.copy_(CENTERS)
    method.class_weights_VK.copy_(torch.tensor([[0.25, 0.75], [0.9, 0.1]]))
    # A weighted mean: each point weighs as its label does in the view that the label is of, the weights sum to 1.
    # Labels of view 1 are (0, 1): weights 0.25 and 0.75. Labels of view 2 are (0, 0): equal weights.
    same_1 = 0.25 * ce(1, 0) + 0.75 * ce(1, 0)
    same_2 = (ce(0.6, 0) + ce(0.8, -0.28)) / 2
    cross_1 = (ce(0, 0.6) + ce(1, -0.8)) / 2
    cross_2 = 0.25 * ce(0.8, 0.6) + 0.75 * ce(0.8, 0.6)
    expected = (same_1 + same_2 + cross_1 + cross_2) / 4
    assert method(BATCH)["loss"].item() == pytest.approx(expected, abs=1e-6)
    # With q2 = (0, 1) its score for a1 is 1 and for a0 is 0: the weights show.
    # View 2 then has the scores 1 for b0 and -0.8 for b1 there.
    other = batch_of([(1, 0), (0, 1)], [(0.8, 0.6), (0, 1)])
    cross_2 = 0.25 * ce(0.8, 0.6) + 0.75 * ce(1, 0)
    assert method(other)["cross"].item() == pytest.approx((cross_1 + cross_2) / 2, abs=1e-6)
    # With q2 = (0.6, -0.8) its scores are 0.6 and -0.8 for a, -0.8 and 1 for b: view 2 has the labels (0, 1), and the
    # weights of its own, 0.9 and 0.1.
    other = batch_of([(1, 0), (0, 1)], [(0.8, 0.6), (0.6, -0.8)])
    same_2 = 0.9 * ce(0.6, 0) + 0.1 * ce(1, -0.8)
    cross_1 = 0.9 * ce(0, 0.6) + 0.1 * ce(-0.8, 1)
    cross_2 = 0.25 * ce(0.8, 0.6) + 0.75 * ce(-0.8, 0.6)
    found = method(other)
    assert found["within"].item() == pytest.approx((same_1 + same_2) / 2, abs=1e-6)
    assert found["cross"].item() == pytest.approx((cross_1 + cross_2) / 2, abs=1e-6)


def dot(first, second):
    return sum(a * b for a, b in zip(first, second, strict=True))


def test_the_loss_of_two_heads_pixel_by_pixel():
    """Three clusters and five overclusters, on 2 images of 1 x 7 cells."""
    generator = torch.Generator().manual_seed(0)
    method = picie(n_classes=3, overclusters=5, temperature=0.3)
    method.centers_VKD.copy_(F.normalize(torch.randn(2, 8, 2, generator=generator), dim=2))
    method.class_weights_VK.copy_(torch.rand(2, 8, generator=generator))
    batch = next(random_batches(1, cells=7))
    points = [view.movedim(1, -1).flatten(0, -2).tolist() for view in batch.embed(RedGreen())]
    expected = {"within": 0.0, "cross": 0.0}
    # log 5 / (log 3 + log 5) for the 3 clusters, log 3 / (log 3 + log 5) for the 5
    for clusters, weight in ((slice(0, 3), math.log(5) / math.log(15)), (slice(3, 8), math.log(3) / math.log(15))):
        centers, shares = method.centers_VKD[:, clusters].tolist(), method.class_weights_VK[:, clusters].tolist()
        for own in range(2):
            for target in range(2):
                total = norm = 0.0
                for place, point in enumerate(points[own]):
                    of_target = [dot(points[target][place], center) for center in centers[target]]
                    label = of_target.index(max(of_target))
                    scores = [dot(point, center) / 0.3 for center in centers[target]]
                    entropy = math.log(sum(map(math.exp, scores))) - scores[label]
                    total += shares[target][label] * entropy
                    norm += shares[target][label]
                expected["within" if own == target else "cross"] += weight * total / norm / 2
    found = method(batch)
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value, abs=1e-5), name
    assert found["loss"].item() == pytest.approx(sum(expected.values()) / 2, abs=1e-5)
    assert len(method.cluster_use()) == 3  # of the first head
    assert method.cluster_use().sum() == 2 * 2 * 7


def test_each_head_is_clustered_and_weighed_by_itself():
    method = picie(overclusters=4, class_weights="inverse")
    for view, points in enumerate(clustered_points(method, epoch=4)):
        for count, clusters in ((2, slice(0, 2)), (4, slice(2, 6))):
            expected = KMeans(count, seed=0 + 4, n_restarts=2).fit([points])
            torch.testing.assert_close(method.centers_VKD[view, clusters], expected.centers_)
            weights = class_weights(expected.counts_, "inverse")
            torch.testing.assert_close(method.class_weights_VK[view, clusters], weights)


def test_head_weights_by_hand():
    assert head_weights([27]) == [1.0]
    # log 4 = 2 log 2: the head of 2 weighs 2 / 3, that of 4 weighs 1 / 3
    assert head_weights([2, 4]) == pytest.approx([2 / 3, 1 / 3])
    # untrained, the losses are log K: weighed, they are the same
    small, large = head_weights([27, 100])
    assert small * math.log(27) == pytest.approx(large * math.log(100))


def test_the_loss_meets_view_2_after_its_crop():
    method = picie()
    method.centers_VKD.copy_(CENTERS)
    mirrored = batch_of([(1, 0), (0, 1)], [(0.6, 0.8), (0.8, 0.6)], flip=True)
    assert method(mirrored)["loss"].item() == pytest.approx(method(BATCH)["loss"].item(), abs=1e-6)


def test_the_gradient_reaches_the_embedding_and_not_the_centers():
    method = picie()
    method.centers_VKD.copy_(CENTERS)
    found = method(BATCH)
    found["loss"].backward()
    assert method.embedding.gain.grad.abs().max() > 0
    assert not found["within"].requires_grad
    assert not found["cross"].requires_grad
    assert not method.centers_VKD.requires_grad
    assert dict(method.named_parameters()).keys() == {"embedding.gain"}


def test_lower_precision_around_it_does_not_reach_the_scores():
    method = picie()
    # The scores of q1 differ by 0.001: bfloat16 has steps of 0.004 there and would take the first for the largest.
    method.centers_VKD.copy_(F.normalize(torch.tensor([[[0.8, 0.6], [0.8, 0.63]], [[0.8, 0.57], [0.8, 0.6]]]), dim=-1))
    batch = batch_of([(0.8, 0.63), (0.8, 0.6)], [(0.8, 0.6), (0.8, 0.57)])
    expected = method(batch)["loss"].item()
    use = method.cluster_use().tolist()
    method.use_K.zero_()
    with torch.autocast("cpu", torch.bfloat16):
        found = method(batch)["loss"].item()
    assert method.cluster_use().tolist() == use
    assert found == pytest.approx(expected, abs=1e-7)


def test_use_counts_the_labels_of_both_views():
    method = picie(n_classes=3)
    method.centers_VKD.copy_(torch.cat([CENTERS, -torch.ones(2, 1, 2)], dim=1))
    method(BATCH)  # labels (0, 1) and (0, 0)
    assert method.cluster_use().tolist() == [3, 1, 0]
    method(BATCH)
    assert method.cluster_use().tolist() == [6, 2, 0]
    assert method.cluster_use().dtype == torch.int64


def random_batches(n_batches=3, cells=6):
    """View 1 is red, view 2 is green, so that their clusters lie apart."""
    generator = torch.Generator().manual_seed(0)
    for step in range(n_batches):
        red = torch.rand(2, cells, 2, generator=generator) * torch.tensor([1.0, 0.4])
        green = torch.rand(2, cells, 2, generator=generator) * torch.tensor([0.4, 1.0])
        parts = [batch_of(red[i].tolist(), green[i].tolist()) for i in range(2)]
        yield SiameseBatch(
            torch.cat([part.first_B3hw for part in parts]),
            torch.cat([part.second_B3hw for part in parts]),
            [part.frames[0] for part in parts],
            [part.crops[0] for part in parts],
            [2 * step, 2 * step + 1],
        )


class Images:
    n_images = 6

    def batches(self, epoch):
        return random_batches()


def clustered_points(method, epoch):
    """Begin an epoch; return the embeddings of all cells in it, those of the first and those of the second view."""
    with torch.no_grad():
        method.begin_epoch(epoch, Images())
        embedded = [batch.embed(method.embedding) for batch in random_batches()]
    return [torch.cat([both[view].movedim(1, -1).flatten(0, -2) for both in embedded]) for view in range(2)]


def test_the_centers_of_each_view_come_from_that_view():
    method = picie()
    for view, points in enumerate(clustered_points(method, epoch=4)):
        expected = KMeans(2, seed=0 + 4, n_restarts=2).fit([points]).centers_
        torch.testing.assert_close(method.centers_VKD[view], expected)
    red, green = method.centers_VKD.mean(1)
    assert red[0] > red[1]
    assert green[0] < green[1]
    assert method.class_weights_VK.tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_clusters_of_many_images_are_made_of_those_that_the_epoch_begins_with(monkeypatch):
    monkeypatch.setattr("contextseg.methods.method.CLUSTERED_IMAGES", 3)
    method = picie()
    with torch.no_grad():
        method.begin_epoch(4, Images())
        embedded = [batch.embed(method.embedding) for batch in random_batches(n_batches=2)]  # of three
    for view in range(2):
        points = torch.cat([both[view].movedim(1, -1).flatten(0, -2) for both in embedded])
        expected = KMeans(2, seed=0 + 4, n_restarts=2).fit([points]).centers_
        torch.testing.assert_close(method.centers_VKD[view], expected)


@pytest.mark.parametrize("rule", ["counts", "inverse"])
def test_the_weights_of_each_view_come_from_its_own_counts(rule):
    method = picie(class_weights=rule)
    for view, points in enumerate(clustered_points(method, epoch=0)):
        counts = torch.bincount((points @ method.centers_VKD[view].T).argmax(1), minlength=2)
        torch.testing.assert_close(method.class_weights_VK[view], class_weights(counts, rule))


def test_an_epoch_starts_with_no_use_and_new_centers():
    method = picie()
    with torch.no_grad():
        method.begin_epoch(0, Images())
        for batch in random_batches():
            method(batch)
    assert method.cluster_use().sum() == 2 * 3 * 2 * 6  # views, batches, images, cells
    before = method.centers_VKD.clone()
    with torch.no_grad():
        method.embedding.gain[:, 0] = 3
        method.begin_epoch(1, Images())
    assert method.cluster_use().sum() == 0
    assert not torch.allclose(method.centers_VKD, before)


def test_as_many_points_are_clustered_as_memory_allows(monkeypatch):
    seen = []
    observe = KMeans.observe
    monkeypatch.setattr(KMeans, "observe", lambda self, points: (seen.append(len(points)), observe(self, points)))
    method = picie()
    settings = method.settings.model_dump(mode="json", exclude=METHOD_SECTIONS.keys() - {"picie"})
    method.settings = make_settings(settings | {"clustering": {"max_points": 13}})
    with torch.no_grad():
        method.begin_epoch(0, Images())
    # 13 // 6 = 2 cells of each image, so 4 of each batch; 3 batches and 2 views.
    assert seen == [4] * 6


def test_class_weights_by_hand():
    counts = torch.tensor([60, 30, 10])
    assert class_weights(counts, "none").tolist() == [1, 1, 1]
    # 60 / 100, 30 / 100, 10 / 100: they sum to 1 and the largest cluster weighs most.
    torch.testing.assert_close(class_weights(counts, "counts"), torch.tensor([0.6, 0.3, 0.1]))
    # 1/60, 1/30, 1/10 = 1/60 * (1, 2, 6), whose mean is 1/60 * 3: (1/3, 2/3, 2). They have the mean 1.
    torch.testing.assert_close(class_weights(counts, "inverse"), torch.tensor([1 / 3, 2 / 3, 2.0]))


def test_counts_favour_large_clusters_and_inverse_favours_rare_ones():
    """PiCIE's released code balances the wrong way round: it weighs a cluster by its share."""
    counts = torch.tensor([5, 700, 41, 90])
    by_size = counts.argsort()
    assert class_weights(counts, "counts").argsort().tolist() == by_size.tolist()
    assert class_weights(counts, "inverse").argsort(descending=True).tolist() == by_size.tolist()
    # Every cluster has the same say over all pixels.
    weighed = counts * class_weights(counts, "inverse")
    torch.testing.assert_close(weighed, weighed[:1].expand(4))


def test_the_weight_of_a_cluster_without_pixels():
    # As one pixel: 1/1, 1/1, 1/4 have the mean 0.75.
    found = class_weights(torch.tensor([0, 1, 4]), "inverse")
    torch.testing.assert_close(found, torch.tensor([4 / 3, 4 / 3, 1 / 3]))
    assert class_weights(torch.tensor([0, 1, 4]), "counts").tolist() == pytest.approx([0, 0.2, 0.8])


def test_the_network_is_as_large_as_the_settings_say():
    settings = make_settings(
        {"n_classes": 5, "method": "picie", "backbone": {"name": "test_resnet"}, "picie": {"dim": 9}}
    )
    method = Picie(settings)
    assert method.trained
    assert method.spherical
    assert method.centers_VKD.shape == (2, 5, 9)
    assert method.embedding(torch.rand(1, 3, 32, 64), torch.rand(1, 2, 8, 16)).shape == (1, 9, 8, 16)
