"""Context-aware clustering: labels, losses and centres by hand, and what each switch does."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contextseg.clustering.kmeans import KMeans
from contextseg.guidance.holistic import at_cells
from contextseg.methods.context import Context, _in_one_block, _of_images
from contextseg.settings import make_settings
from contextseg.views.geometry import GeometricView, whole_coordinates
from contextseg.views.siamese import SiameseBatch, siamese_batch


def context(n_images: int = 6, n_classes: int = 4, **own: object) -> Context:
    values = {
        "n_classes": n_classes,
        "method": "context",
        "data": {"image_px": 32},
        "views": {"frame_px": 32},
        "backbone": {"name": "test_resnet"},
        "context": {"clusters_per_class": 2, "embedding": {"dim": 8}, **own},
    }
    torch.manual_seed(0)
    method = Context(make_settings(values))
    method.allocate(n_images)
    return method


@pytest.mark.parametrize(("to_the_end", "n_deep"), [(True, 3), (False, 2)])
def test_what_the_classifier_sees_says_what_a_place_is(to_the_end: bool, n_deep: int) -> None:
    values = {
        "n_classes": 2,
        "method": "context",
        "backbone": {"name": "test_efficientnet"},
        "context": {"embedding": {"to_the_end": to_the_end}, "guidance": {"teacher": "start"}},
    }
    method = Context(make_settings(values))
    method.allocate(Images.n_images)
    with torch.no_grad():
        method.begin_epoch(0, Images())
    starting = [bool(lateral.weight.any()) for lateral in method.embedding.decoder.laterals]
    assert starting == [False, False, *[True] * n_deep]


class Images:
    """Six images of two looks: each half of an image is bright stripes or dark."""

    n_images = 6

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        stripes = np.tile(np.repeat([40, 255], 2), 16)[:, None].repeat(32, 1)
        pictures = []
        for _ in range(self.n_images):
            half = np.concatenate([stripes[:32], np.full((32, 32), 90)], axis=1)
            noisy = half[:, ::-1] if rng.random() < 0.5 else half
            pictures.append(np.clip(noisy + rng.normal(0, 5, (3, 32, 64)), 0, 255).astype(np.uint8))
        self.images = [torch.from_numpy(picture) for picture in pictures]

    def batches(self, epoch: int):
        for indices in ([0, 1, 2], [3, 4, 5]):
            settings = make_settings({"n_classes": 2}).views.model_copy(update={"frame_px": 32})
            yield siamese_batch([self.images[i] for i in indices], indices, seed=0, epoch=epoch, settings=settings)

    def whole(self, first: int | None = None, *, after: int = 0):
        chosen = list(range(self.n_images))[after:first]
        if not chosen:
            return
        images = torch.stack([self.images[index] for index in chosen]).float() / 255
        yield chosen, images, whole_coordinates(8, 16).expand(len(chosen), -1, -1, -1)


class Given(nn.Module):
    """The first call gives the first view's embedding, the second the other's."""

    def __init__(self, *views: torch.Tensor) -> None:
        super().__init__()
        self.views = list(views)

    def forward(self, _image: torch.Tensor, _coordinates: torch.Tensor) -> torch.Tensor:
        return self.views.pop(0)


def on_circle(*degrees: float) -> torch.Tensor:
    angle = torch.deg2rad(torch.tensor(degrees))
    return F.pad(torch.stack([angle.cos(), angle.sin()], dim=1), (0, 6 + 64))  # 8 of features, 64 of looks


def one_row(index: int, n_cells: int) -> SiameseBatch:
    whole = GeometricView((1, n_cells), (0, 0, 1, n_cells), (1, n_cells))
    image = torch.zeros(1, 3, 4, 4 * n_cells)
    return SiameseBatch(image, image, [whole], [whole], [index])


def test_labels_and_loss_by_hand() -> None:
    method = context(guidance={"strength": 0}, temperature=0.5)
    method.centers_KD.copy_(on_circle(0, 90, 180, 270))
    first, second = on_circle(10, 80), on_circle(30, 60)
    method.embedding = Given(*(view.T[None, :, None] for view in (first, second)))
    found = method(one_row(0, 2))
    centers = on_circle(0, 90, 180, 270)
    labels = torch.tensor([0, 1])  # of both views
    within = (F.cross_entropy(2 * first @ centers.T, labels) + F.cross_entropy(2 * second @ centers.T, labels)) / 2
    torch.testing.assert_close(found["within"], within)
    torch.testing.assert_close(found["cross"], within)  # the views agree
    torch.testing.assert_close(found["loss"], within)
    assert method.cluster_use().tolist() == [2, 2, 0, 0]


def test_a_holistic_label_wins_where_the_scores_are_near() -> None:
    # 40 degrees: cos 40 = .766 for cluster 0, cos 50 = .643 for cluster 1, over 0.5: they differ by 0.246
    # 10 degrees: cos 10 = .985, cos 80 = .174, over 0.5: they differ by 1.622
    labels = {}
    for strength, certainty in ((0.0, 1.0), (0.2, 1.0), (1.0, 1.0), (2.0, 1.0), (2.0, 0.5), (2.0, 0.0)):
        method = context(guidance={"strength": strength, "grid": 2}, temperature=0.5)
        method.centers_KD.copy_(on_circle(0, 90, 180, 270))
        method.holistic_ngg[3] = 1
        method.certainty_ngg[3] = certainty
        view = on_circle(40, 10).T[None, :, None]
        method.embedding = Given(view, view)
        method(one_row(3, 2))
        labels[strength, certainty] = method.cluster_use()[:2].tolist()
    assert labels == {
        (0.0, 1.0): [4, 0],
        (0.2, 1.0): [4, 0],
        (1.0, 1.0): [2, 2],
        (2.0, 1.0): [0, 4],
        (2.0, 0.5): [2, 2],
        (2.0, 0.0): [4, 0],
    }


def test_a_cluster_that_has_grown_is_held_back() -> None:
    # 40 degrees: over 0.5, cluster 0 is 0.246 ahead of cluster 1; from a half to a quarter is log 2 = 0.693
    for balance, expected in ((0.0, [2, 0, 0, 0]), (0.3, [2, 0, 0, 0]), (0.4, [0, 2, 0, 0]), (1.0, [0, 2, 0, 0])):
        method = context(guidance={"strength": 0}, temperature=0.5, balance=balance)
        method.centers_KD.copy_(on_circle(0, 90, 180, 270))
        method.share_K.copy_(torch.tensor([0.5, 0.25, 0.125, 0.125]))
        method.start_share_K.copy_(torch.tensor([0.25, 0.25, 0.125, 0.375]))
        view = on_circle(40).T[None, :, None]
        method.embedding = Given(view, view)
        found = method(one_row(0, 1))
        assert method.cluster_use().tolist() == expected, balance
        shares = (torch.tensor(expected) + 1) / 6
        torch.testing.assert_close(method.share_K, 0.9 * torch.tensor([0.5, 0.25, 0.125, 0.125]) + 0.1 * shares)
    # the loss knows the label alone: what is wanting changes which cluster a pixel joins, not how sure it is
    logits = 2 * on_circle(40) @ on_circle(0, 90, 180, 270).T
    torch.testing.assert_close(found["loss"], F.cross_entropy(logits, torch.tensor([1])))


def test_centers_move_towards_their_points_and_stay_unit() -> None:
    method = context(guidance={"strength": 0}, center_momentum=0.9)
    method.centers_KD.copy_(on_circle(0, 90, 180, 270))
    view = on_circle(20, 20, 20, 100).T[None, :, None]
    method.embedding = Given(view, view)
    method(one_row(0, 4))
    # 8 points: 6 of cluster 0 and 2 of cluster 1; 8 / 4 = 2 is even. Rates: .1 * 6 / (6 + .5) and .1 * 2 / (2 + .5)
    for cluster, (begin, at, rate) in enumerate([(0, 20, 0.1 * 6 / 6.5), (90, 100, 0.1 * 2 / 2.5)]):
        expected = F.normalize(torch.lerp(on_circle(begin), on_circle(at), rate), dim=1)[0]
        torch.testing.assert_close(method.centers_KD[cluster], expected)
    torch.testing.assert_close(method.centers_KD[2:], on_circle(180, 270))


@torch.no_grad()
def test_places_are_seen_with_and_without_their_looks() -> None:
    method = context()
    generator = torch.Generator().manual_seed(0)
    semantics, looks = (F.normalize(torch.randn(20, n, generator=generator), dim=1) for n in (16, 64))
    plain, both = method._views(torch.cat([semantics, looks], dim=1), 0.5)
    torch.testing.assert_close(plain, semantics)
    torch.testing.assert_close(both @ both.T, (semantics @ semantics.T + 0.25 * looks @ looks.T) / 1.25)
    without = context(embedding={"dim": 8, "appearance": False})
    assert [len(view.T) for view in without._views(semantics, 0.5)] == [16]
    chosen_by = method.places(Images())
    ratio = chosen_by[:, -64:].norm(dim=1) / chosen_by[:, :-64].norm(dim=1)
    assert (ratio <= 0.3 + 1e-4).all()  # less than 0.3 where a place's looks are a mean of unlike ones
    assert ratio.max() > 0.2


@pytest.mark.parametrize(("teacher", "power"), [("start", 0.8), ("student", 0.9)])
@torch.no_grad()
def test_the_shares_of_places_are_drawn_towards_even_ones(teacher: str, power: float) -> None:
    guidance = {"strength": 1.0, "grid": 8, "scales": [1, 2], "teacher": teacher}
    method, images = context(guidance=guidance), Images()
    method.begin_epoch(0, images)
    labels = [at_cells(method.holistic_ngg, indices, where).flatten().long() for indices, _, where in images.whole()]
    shares = (torch.bincount(torch.cat(labels), minlength=4) + 1.0) ** power
    torch.testing.assert_close(method.start_share_K, shares / shares.sum())
    assert shares.max() > 1.5 * shares.min()


@pytest.mark.parametrize("strength", [0.0, 3.0])
@torch.no_grad()
def test_the_start_finds_the_two_looks(strength: float) -> None:
    method, images = context(guidance={"strength": strength, "grid": 8, "scales": [1, 2]}), Images()
    method.begin_epoch(0, images)
    torch.testing.assert_close(method.centers_KD.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(method.start_share_K.sum(), torch.tensor(1.0))
    assert torch.equal(method.share_K, method.start_share_K)
    assert method.holistic_ngg.any() == bool(strength)
    method.eval()
    _, pixels, coordinates = next(iter(images.whole()))
    clusters = (method.embedding(pixels, coordinates).movedim(1, -1) @ method.centers_KD.T).argmax(-1)
    striped = pixels.var(dim=2).mean(1) > 0.02  # (B, W)
    left = striped[:, :8].all(1)
    sides = torch.stack([clusters[:, 3, 2], clusters[:, 3, 13]], dim=1)
    of_stripes = sides[torch.arange(6), (~left).long()]
    of_plain = sides[torch.arange(6), left.long()]
    assert not set(of_stripes.tolist()) & set(of_plain.tolist())


@torch.no_grad()
def test_labels_are_made_anew_where_the_teacher_is_the_student() -> None:
    for teacher, anew in (("start", False), ("student", True), ("auto", True)):  # the start is random here
        method, images = context(guidance={"teacher": teacher, "grid": 4}), Images()
        method.begin_epoch(0, images)
        for parameter in method.embedding.decoder.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
        centers = method.centers_KD.clone()
        method.begin_epoch(1, images)
        assert torch.equal(method.centers_KD, centers) != anew, teacher


def test_maps_are_kept_in_one_block_of_half_precision() -> None:
    maps = [(torch.randn(n, 3, 2, 2), list(range(n))) for n in (2, 1, 4)]
    kept = _in_one_block(iter(maps), 8)
    for (map_BEgg, indices), (half_BEgg, own) in zip(maps, kept, strict=True):
        assert own == indices
        assert torch.equal(half_BEgg, map_BEgg.half())
    assert len({half_BEgg.untyped_storage().data_ptr() for half_BEgg, _ in kept}) == 1
    assert _in_one_block(iter([]), 8) == []


def test_a_draw_is_of_the_images_that_it_takes() -> None:
    maps = [(torch.arange(3.0)[:, None, None, None], [4, 0, 2]), (torch.full((1, 1, 1, 1), 7.0), [3])]
    first, second = _of_images(maps, np.array([True, False, False, False, True]))
    assert (first[0].flatten().tolist(), first[1]) == ([0, 1], [4, 0])
    assert (second[0].shape, second[1]) == ((0, 1, 1, 1), [])  # processes go on in step


@torch.no_grad()
def test_draws_take_other_images_where_there_are_more_than_one_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = context(n_draws=8, n_partitions=1, guidance={"teacher": "start", "grid": 8}), []
    monkeypatch.setattr(method, "_views", lambda vectors, _: seen.append(len(vectors) // 64) or [vectors])
    method._start_projection(images := Images())
    maps = [
        (torch.randn(3, 8, 8, 8, generator=torch.Generator().manual_seed(index)), [index, index + 1, index + 2])
        for index in (0, 3)
    ]
    method._classes(0, maps, images.n_images, 0.5)
    assert 0 < min(seen) < max(seen) <= images.n_images  # each image with a chance of a half
    method._classes(0, maps, images.n_images, 0.5)
    assert seen[:8] == seen[8:]


@torch.no_grad()
def test_shuffling_keeps_the_labels_and_breaks_their_places() -> None:
    methods = [context(guidance={"grid": 6, "shuffled": shuffled}) for shuffled in (False, True)]
    for method in methods:
        method.begin_epoch(0, Images())
    plain, shuffled = (method.holistic_ngg for method in methods)
    assert torch.equal(plain.flatten().sort().values, shuffled.flatten().sort().values)
    assert (plain != shuffled).float().mean() > 0.2
    unguided = context(guidance={"strength": 0})
    unguided.begin_epoch(0, Images())
    torch.testing.assert_close(methods[1].centers_KD, unguided.centers_KD)  # the labels say nothing of the centres


@torch.no_grad()
def test_the_learnt_centers_are_the_final_ones() -> None:
    method = context()
    method.begin_epoch(0, Images())
    learnt, final = method.centers_KD.clone(), method.final_centers([])
    torch.testing.assert_close(final.norm(dim=1), torch.ones(len(final)))
    for part in (slice(0, 8), slice(8, None)):  # what there is, and how it looks: the one counts more than before
        torch.testing.assert_close(F.normalize(final[:, part], dim=1), F.normalize(learnt[:, part], dim=1))
    assert (final[:, 8:].norm(dim=1) > learnt[:, 8:].norm(dim=1)).all()


@torch.no_grad()
def test_without_projection_the_decoder_starts_at_random_and_the_labels_do_not_change() -> None:
    labels, decoders = [], []
    for projection in (True, False):
        parts = {"dim": 8, "projection": projection}
        method, images = context(guidance={"grid": 6}, embedding=parts), Images()
        torch.manual_seed(0)
        method.begin_epoch(0, images)
        labels.append(method.holistic_ngg)
        decoders.append([lateral.weight.any().item() for lateral in method.embedding.decoder.laterals])
    assert torch.equal(*labels)
    assert decoders == [[False, False, True, True], [True] * 4]


@torch.no_grad()
def test_without_guidance_clusters_start_from_kmeans_of_the_embeddings() -> None:
    method, images = context(guidance={"strength": 0}), Images()
    method.begin_epoch(0, images)
    _, pixels, coordinates = next(iter(images.whole()))
    points = method.embedding.eval()(pixels, coordinates).movedim(1, -1).flatten(0, -2)
    semantics = F.normalize(points[:, :8], dim=1)
    labels = KMeans(4, seed=0, n_restarts=3, max_iter=50).fit([semantics]).predict(semantics)
    counts, parts = torch.bincount(labels, minlength=4), [points[labels == label] for label in range(4)]
    torch.testing.assert_close(method.start_share_K, (counts + 1) / (len(points) + 4))
    expected = F.normalize(torch.stack([part.sum(0) for part in parts]), dim=1)
    torch.testing.assert_close(method.centers_KD, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("own", "n_clusters"),
    [
        ({"guidance": {"teacher": "start"}}, 16),
        ({"guidance": {"teacher": "student"}}, 4),
        ({}, 4),  # random weights: the teacher is the student
        ({"clusters_per_class": 3}, 12),
    ],
)
def test_clusters_are_merged_where_the_teacher_knows_something(own: dict[str, object], n_clusters: int) -> None:
    method = context(**({"clusters_per_class": None} | own))
    points = F.normalize(torch.randn(100, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    consensus = method._consensus(0).fit(points)
    assert {kmeans.n_clusters for kmeans, _ in consensus.partitions_} == {n_clusters}
    assert consensus.predict(points).unique().tolist() == [0, 1, 2, 3]
