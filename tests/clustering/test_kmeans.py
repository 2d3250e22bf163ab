import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans as SklearnKMeans

from contextseg.clustering.kmeans import _SAMPLE, KMeans, scores, sum_by_label
from contextseg.clustering.sampling import sample_points
from contextseg.errors import TrainingError


def column(*values):
    return torch.tensor(values, dtype=torch.float32)[:, None]


def blobs(n=600, dim=3, n_blobs=5, spread=0.6, seed=0):
    rng = np.random.default_rng(seed)
    centers = rng.normal(0, 4, (n_blobs, dim))
    return torch.from_numpy(
        (centers[rng.integers(n_blobs, size=n)] + rng.normal(0, spread, (n, dim))).astype("float32")
    )


def directions(**options):
    return F.normalize(blobs(**options), dim=1)


def inertia_of(points, centers):
    return float(torch.cdist(points.double(), centers.double()).square().amin(1).sum())


def test_euclidean_by_hand():
    # {0, 1} has the mean 0.5 and adds 0.25 + 0.25; {10, 11, 12} has the mean 11 and adds 1 + 0 + 1: 2.5 in all.
    kmeans = KMeans(2, spherical=False).fit([column(0, 10, 1, 12, 11)])
    order = kmeans.centers_[:, 0].argsort()
    assert kmeans.centers_[order].tolist() == [[0.5], [11.0]]
    assert kmeans.counts_[order].tolist() == [2, 3]
    assert kmeans.inertia_ == 2.5
    assert kmeans.counts_.dtype == torch.int64
    assert kmeans.centers_.dtype == torch.float32
    labels = kmeans.predict(column(0, 10, 1, 12, 11))
    assert labels.dtype == torch.int64
    assert (labels == order[0]).tolist() == [True, False, True, False, False]


def test_spherical_by_hand():
    # Directions 0, 60 and 180 degrees. The unit mean of the first two is 30 degrees, and a squared distance of unit
    # vectors is 2 - 2 cos: 2 * (2 - 2 cos 30) = 4 - 2 sqrt(3); the third adds 0.
    half = math.sqrt(3) / 2
    kmeans = KMeans(2).fit([torch.tensor([[1.0, 0.0], [0.5, half], [-1.0, 0.0]])])
    order = kmeans.centers_[:, 0].argsort()
    torch.testing.assert_close(kmeans.centers_[order], torch.tensor([[-1.0, 0.0], [half, 0.5]]))
    assert kmeans.counts_[order].tolist() == [1, 2]
    assert kmeans.inertia_ == pytest.approx(4 - 2 * math.sqrt(3), abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_euclidean_against_scikit_learn(seed):
    points = blobs(seed=seed)
    kmeans = KMeans(5, spherical=False, seed=seed, n_restarts=5).fit([points])
    theirs = SklearnKMeans(5, n_init=5, random_state=seed).fit(points.numpy())
    assert kmeans.inertia_ <= 1.01 * theirs.inertia_
    assert kmeans.inertia_ == pytest.approx(inertia_of(points, kmeans.centers_), rel=1e-4)


def spherical_slowly(points, n_clusters, rng):
    """Lloyd iterations in float64, one start from random points; returns the inertia."""
    centers = points[rng.choice(len(points), n_clusters, replace=False)]
    for _ in range(100):
        labels = (points @ centers.T).argmax(1)
        for k in range(n_clusters):
            if (labels == k).any():
                centers[k] = points[labels == k].sum(0) / np.linalg.norm(points[labels == k].sum(0))
    return float((2 - 2 * (points @ centers.T).max(1)).sum())


@pytest.mark.parametrize("seed", range(3))
def test_spherical_against_a_slow_reference(seed):
    points = directions(seed=seed)
    kmeans = KMeans(5, seed=seed, n_restarts=5).fit([points])
    torch.testing.assert_close(kmeans.centers_.norm(dim=1), torch.ones(5))
    rng = np.random.default_rng(seed)
    slowly = min(spherical_slowly(points.double().numpy(), 5, rng) for _ in range(20))
    assert kmeans.inertia_ <= 1.01 * slowly
    assert kmeans.inertia_ == pytest.approx(inertia_of(points, kmeans.centers_), rel=1e-4)


@pytest.mark.parametrize("spherical", [True, False])
def test_each_center_is_the_mean_of_its_points(spherical):
    points = directions() if spherical else blobs()
    kmeans = KMeans(6, spherical=spherical, max_iter=200).fit([points])
    labels = torch.cdist(points, kmeans.centers_).argmin(1)
    assert torch.equal(kmeans.predict(points), labels)
    assert kmeans.counts_.tolist() == torch.bincount(labels, minlength=6).tolist()
    means = torch.stack([points[labels == k].double().mean(0) for k in range(6)])
    means = F.normalize(means, dim=1) if spherical else means
    # The iterations end when they gain less than 1e-4 of the inertia, so the means may still move a little.
    torch.testing.assert_close(kmeans.centers_, means.float(), atol=0.02, rtol=0)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 6), st.integers(0, 2**31))
def test_the_largest_score_is_the_nearest_center(n_points, n_centers, dim, seed):
    rng = np.random.default_rng(seed)
    points, centers = (torch.from_numpy(rng.normal(0, 3, (n, dim))) for n in (n_points, n_centers))
    expected = [int(np.argmin([((p - c) ** 2).sum() for c in centers.numpy()])) for p in points.numpy()]
    found = scores(points, centers)
    assert found.shape == (n_points, n_centers)
    assert found.argmax(1).tolist() == expected
    # score = x.m - |m|^2 / 2, so |x|^2 - 2 * score is the squared distance itself.
    squares = points.square().sum(1, keepdim=True) - 2 * found
    torch.testing.assert_close(squares, torch.cdist(points, centers).square(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("sizes", [(600,), (100,) * 6, (1, 599), (250, 7, 343)])
def test_a_stream_that_fits_gives_what_one_batch_gives(sizes):
    points = directions()
    whole = KMeans(4, seed=3).fit([points])
    streamed = KMeans(4, seed=3, max_points=600).fit(points.split(list(sizes)))
    assert torch.equal(whole.centers_, streamed.centers_)
    assert torch.equal(whole.counts_, streamed.counts_)


def test_mini_batch_updates_by_hand():
    kmeans = KMeans(3, spherical=False).fit([column(0, 0, 10, 10, 10, 50)])
    low, middle, high = kmeans.centers_[:, 0].argsort().tolist()
    # 0 has 2 points. It takes 3 and 1.5 (mean 2.25), so n / N = 2 / 4 and it moves to 0 + 2.25 / 2 = 1.125.
    # 10 has 3 points. It takes 6 (nearer to 10 than to 0), so n / N = 1 / 4 and it moves to 10 - 4 / 4 = 9.
    # 50 takes none and stays.
    kmeans.partial_fit(column(3, 6, 1.5))
    assert kmeans.centers_[[low, middle, high], 0].tolist() == [1.125, 9.0, 50.0]
    assert kmeans.counts_[[low, middle, high]].tolist() == [4, 4, 1]
    # Next: 9 takes 14 with 1 / 5: 9 + 5 / 5 = 10.
    kmeans.partial_fit(column(14))
    assert kmeans.centers_[[low, middle, high], 0].tolist() == [1.125, 10.0, 50.0]
    assert kmeans.counts_[[low, middle, high]].tolist() == [4, 5, 1]


def test_a_spherical_mini_batch_update_by_hand():
    kmeans = KMeans(2).fit([torch.tensor([[1.0, 0.0], [0.0, -1.0]])])
    right = int(kmeans.centers_[:, 0].argmax())
    # (1, 0) has one point and takes (0, 1) (cosine 0 against -1): rate 1 / 2, so (0.5, 0.5), brought to unit length.
    kmeans.partial_fit(torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(kmeans.centers_[right], torch.tensor([0.5**0.5, 0.5**0.5]))
    torch.testing.assert_close(kmeans.centers_[1 - right], torch.tensor([0.0, -1.0]))


def test_the_first_partial_fit_is_a_fit():
    points = blobs()
    assert torch.equal(KMeans(4).partial_fit(points).centers_, KMeans(4).fit([points]).centers_)


@pytest.mark.parametrize("batch", [1, 30, 64, 70, 200, 600])
def test_no_more_points_are_held_than_allowed(batch):
    kmeans, points = KMeans(4, max_points=130), directions()
    for part in points.split(batch):
        kmeans.observe(part)
        assert sum(map(len, kmeans._held)) <= 130
    kmeans.finish()
    assert sum(map(len, kmeans._held)) == 0
    assert kmeans.counts_.sum() == 600


@pytest.mark.parametrize("batch", [1, 30, 64, 70, 200, 600])
def test_the_first_max_points_are_clustered_and_the_rest_update(batch):
    points = directions()
    streamed = KMeans(4, max_points=130).fit(points.split(batch))
    expected = KMeans(4).fit([points[:130]])
    first = (130 // batch + 1) * batch  # the batch that goes over the bound is cut there
    for part in (points[130:first], *points[first:].split(batch)):
        if len(part):
            expected.partial_fit(part)
    assert torch.equal(streamed.centers_, expected.centers_)
    assert streamed.counts_.tolist() == expected.counts_.tolist()
    assert streamed.counts_.dtype == torch.int64


def test_as_many_held_points_as_clusters_are_enough():
    # Batches of 4 and a bound of 10: 8 points alone would be too few for 10 clusters.
    assert KMeans(10, max_points=10).fit(directions(n=40).split(4)).counts_.sum() == 40


def test_counts_do_not_stop_growing_at_2_to_the_24():
    kmeans = KMeans(2, spherical=False).fit([column(0, 0, 9, 9)])
    kmeans.counts_ = kmeans.counts_ + 2**24
    kmeans.partial_fit(column(0))
    assert sorted(kmeans.counts_.tolist()) == [2**24 + 2, 2**24 + 3]


def test_an_empty_cluster_goes_to_the_farthest_point():
    # All four points are nearest to the centre 1; 100 has none. The farthest is 10 (distance 9), so after one
    # iteration the centres are the mean of all, 13 / 4 = 3.25, and 10. Then 0, 1, 2 -> 3.25 and 10 -> 10:
    # 3.25^2 + 2.25^2 + 1.25^2 + 0 = 10.5625 + 5.0625 + 1.5625 = 17.1875.
    points, start = column(0, 1, 2, 10), column(1, 100)
    inertia, centers, counts, n_iter = KMeans(2, spherical=False, max_iter=1)._lloyd(points, start)
    assert centers.tolist() == [[3.25], [10.0]]
    assert counts.tolist() == [3, 1]
    assert inertia == 17.1875
    assert n_iter == 1
    # Left alone it ends at {0, 1, 2} and {10}: 1 + 0 + 1 + 0.
    inertia, centers, counts, _ = KMeans(2, spherical=False)._lloyd(points, start)
    assert (inertia, centers.tolist(), counts.tolist()) == (2.0, [[1.0], [10.0]], [3, 1])


def test_several_empty_clusters_take_the_farthest_points_in_turn():
    # Distances from the centre 3: 3, 2, 1, 7, 17. The two empty ones take 20 and then 10; 3 becomes 33 / 5 = 6.6.
    points, start = column(0, 1, 2, 10, 20), column(200, 3, 100)
    _, centers, counts, _ = KMeans(3, spherical=False, max_iter=1)._lloyd(points, start)
    torch.testing.assert_close(centers, column(20, 6.6, 10))
    assert counts.tolist() == [1, 3, 1]


@pytest.mark.parametrize("spherical", [True, False])
@pytest.mark.parametrize("seed", range(8))
def test_every_cluster_is_used_where_the_points_are_distinct(seed, spherical):
    points = directions(n=14, n_blobs=3, spread=0.05, seed=seed)
    assert (KMeans(14, seed=seed, spherical=spherical).fit([points]).counts_ == 1).all()
    assert (KMeans(9, seed=seed, spherical=spherical, n_restarts=1).fit([points]).counts_ > 0).all()


@pytest.mark.parametrize("seed", range(8))
def test_duplicated_points_do_not_use_up_clusters(seed):
    # 500 points at one place, 40 at another, and three that occur once.
    places = torch.tensor([[0.0, 0.0], [5.0, 1.0], [0.0, 7.0], [-3.0, 2.0], [4.0, -6.0]])
    points = places.repeat_interleave(torch.tensor([500, 40, 1, 1, 1]), 0)
    kmeans = KMeans(5, spherical=False, seed=seed, n_restarts=1).fit([points])
    assert sorted(kmeans.counts_.tolist()) == [1, 1, 1, 40, 500]
    assert kmeans.inertia_ == pytest.approx(0, abs=1e-3)


def test_fewer_distinct_points_than_clusters():
    kmeans = KMeans(4, spherical=False).fit([column(2, 2, 2, 5, 5, 5, 5)])
    assert torch.isfinite(kmeans.centers_).all()
    assert set(kmeans.centers_[:, 0].tolist()) == {2.0, 5.0}
    assert kmeans.counts_.sum() == 7
    assert kmeans.inertia_ == 0


def test_the_seed_alone_decides():
    points = directions(n_blobs=9, spread=2.0)
    once, again = (KMeans(6, seed=4, n_restarts=1, max_iter=3).fit([points]) for _ in range(2))
    assert torch.equal(once.centers_, again.centers_)
    torch.rand(5)  # the global generator has no part in it
    other = KMeans(6, seed=5, n_restarts=1, max_iter=3).fit([points])
    assert not torch.allclose(once.centers_, other.centers_)


def test_a_second_fit_starts_anew():
    kmeans, points = KMeans(4, seed=1), directions()
    first = kmeans.fit([points]).centers_
    kmeans.fit([directions(seed=9)])
    assert torch.equal(kmeans.fit([points]).centers_, first)
    assert kmeans.counts_.sum() == 600


def test_more_restarts_are_never_worse():
    # Restart r is drawn from its own key, so that the first r starts of a longer fit are those of a shorter one.
    points = directions(n=200, n_blobs=12, spread=1.5)
    inertias = [KMeans(9, seed=2, n_restarts=count, max_iter=4).fit([points]).inertia_ for count in range(1, 7)]
    assert inertias == sorted(inertias, reverse=True)
    assert inertias[-1] < inertias[0]
    kmeans = KMeans(9, seed=2, n_restarts=6, max_iter=4)
    singles = [kmeans._lloyd(points, kmeans._plus_plus(points, restart))[0] for restart in range(6)]
    assert inertias[-1] == min(singles)


def test_iterations_end_at_max_iter_and_do_not_raise_the_inertia():
    points = blobs(n_blobs=12, spread=2.0)
    fits = [KMeans(7, spherical=False, n_restarts=1, max_iter=count).fit([points]) for count in (1, 2, 4, 8, 300)]
    assert [fit.n_iter_ for fit in fits[:3]] == [1, 2, 4]
    assert fits[-1].n_iter_ < 300
    inertias = [fit.inertia_ for fit in fits]
    assert inertias == sorted(inertias, reverse=True)


def test_starts_are_drawn_by_squared_distance():
    # From a first draw at 0 (nearly surely) the squared distances are 0, 1 and 9: 3 is drawn nine times in ten.
    points = column(*[0.0] * 5000, 1.0, 3.0)
    second = [KMeans(2, spherical=False, seed=seed)._plus_plus(points, 0)[1].item() for seed in range(400)]
    # 400 draws with p = 0.9: standard error 0.015.
    assert np.mean([value == 3.0 for value in second]) == pytest.approx(0.9, abs=0.06)


def test_many_points_are_fitted_to_the_end_from_a_start_of_a_sample():
    # more points than the starts are tried on; overlapping groups, so that there is something to iterate
    points = directions(n=40_000, dim=6, n_blobs=9, spread=1.0)
    kmeans = KMeans(9, n_restarts=12).fit([points])
    theirs = SklearnKMeans(9, n_init=5, random_state=0).fit(points.numpy())
    centers = F.normalize(torch.from_numpy(theirs.cluster_centers_), dim=1)
    assert kmeans.inertia_ <= 1.01 * inertia_of(points, centers)
    assert kmeans.counts_.sum() == 40_000
    # the iterations over all points went to the end: each centre is the mean of all its points
    labels = kmeans.predict(points)
    means = torch.stack([F.normalize(points[labels == label].mean(0), dim=0) for label in range(9)])
    assert (kmeans.centers_ * means).sum(1).min() > 0.9999
    assert sample_points(points, _SAMPLE, 0).shape == (2**14, 6)


def test_sums_by_label_are_those_of_a_loop():
    points, labels = directions(n=300, dim=7), torch.arange(300) % 4
    expected = torch.stack([points[labels == label].sum(0) for label in range(6)])
    torch.testing.assert_close(sum_by_label(points, labels, 6), expected)


def test_lower_precision_around_it_does_not_reach_the_centers():
    noise = torch.randn(2000, 16, generator=torch.Generator().manual_seed(0))  # many lie about as near to two centres
    points = F.normalize(noise, dim=1)
    expected = KMeans(5).fit([points[:1500], points[1500:]])
    with torch.autocast("cpu", torch.bfloat16):
        found = KMeans(5).fit([points[:1500], points[1500:]])
        labels = found.predict(points)
    assert torch.equal(found.centers_, expected.centers_)
    assert found.inertia_ == expected.inertia_
    assert torch.equal(labels, expected.predict(points))
    counts = torch.bincount(labels)
    share = (counts / (found.counts_ + counts))[:, None]
    moved = (1 - share) * found.centers_ + share * sum_by_label(points, labels, 5) / counts[:, None]
    with torch.autocast("cpu", torch.bfloat16):
        found.partial_fit(points)
    torch.testing.assert_close(found.centers_, F.normalize(moved, dim=1), atol=1e-5, rtol=0)
    assert torch.equal(found.centers_, expected.partial_fit(points).centers_)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([torch.zeros(3, 2)], "3 points cannot make 4 clusters"),
        ([torch.zeros(1, 2), torch.zeros(2, 2)], "3 points cannot make 4 clusters"),
        ([], "0 points cannot make 4 clusters"),
        ([torch.tensor([[0.0], [1.0], [math.nan], [3.0]])], "not finite"),
        ([torch.tensor([[0.0], [1.0], [2.0], [math.inf]])], "not finite"),
    ],
)
def test_points_that_cannot_be_clustered(batches, message):
    used = KMeans(4).fit([torch.eye(4)])
    for kmeans in (KMeans(4), used):
        with pytest.raises(TrainingError, match=message):
            kmeans.fit(batches)


def test_an_update_with_a_value_that_is_not_finite():
    kmeans = KMeans(2, spherical=False, max_points=4)
    with pytest.raises(TrainingError, match="not finite"):
        kmeans.fit([column(0, 1, 8, 9), column(3, math.nan)])
    assert torch.isfinite(kmeans.centers_).all()
