import resource

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from contextseg import pixel_clusters
from contextseg.pixel_clusters import CONFIDENCE_TEMPERATURE, best_cluster, best_ids, largest


@pytest.mark.parametrize("block_px", [7, 512])
@pytest.mark.parametrize("part_width", [5, 2048])
@pytest.mark.parametrize("part_values", [1, 500, 4 * 23 * 3, 2**25])
@pytest.mark.parametrize(("grid", "size"), [((5, 9), (37, 23)), ((8, 3), (8, 3)), ((9, 16), (4, 5)), ((1, 1), (3, 2))])
def test_best_cluster_is_interpolation_argmax_and_softmax(monkeypatch, part_values, part_width, block_px, grid, size):
    monkeypatch.setattr(pixel_clusters, "_BLOCK_PX", block_px)
    monkeypatch.setattr(pixel_clusters, "_PART_VALUES", part_values)
    monkeypatch.setattr(pixel_clusters, "_PART_WIDTH", part_width)
    scores = torch.randn(4, *grid, generator=torch.Generator().manual_seed(3))
    full = F.interpolate(scores[None], size=size, mode="bilinear", align_corners=False)[0]
    probability, best = (full / CONFIDENCE_TEMPERATURE).softmax(0).max(0)
    found = best_cluster(scores, size)
    second = full.topk(2, dim=0).values
    clear = (second[0] - second[1] > 1e-4).numpy()
    assert clear.mean() > 0.95
    assert np.array_equal(found.clusters[clear], best.numpy()[clear])
    np.testing.assert_allclose(found.confidence, probability.numpy(), atol=1e-4)
    ids = best_ids(scores, size)
    assert ids.dtype == found.clusters.dtype
    assert np.array_equal(ids, found.clusters)


@pytest.mark.parametrize("smooth_over", [1, 3, 9])
@pytest.mark.parametrize("n_clusters", [1, 2, 7, 40, 300])
def test_best_ids_leaves_out_no_cluster_that_is_best_somewhere(n_clusters, smooth_over):
    """Where scores are smooth, as those of photographs, most clusters are left out; in noise hardly one is."""
    drawn = torch.Generator().manual_seed(n_clusters)
    for size in [(1, 1), (1, 6), (7, 1), (12, 9)]:
        scores = F.avg_pool2d(torch.randn(1, n_clusters, *size, generator=drawn), smooth_over, 1, smooth_over // 2)[0]
        for scale in (5, 4, 0.7):
            at_px = tuple(max(1, round(scale * length)) for length in size)
            full = F.interpolate(scores[None], size=at_px, mode="bilinear", align_corners=False)[0]
            best = full.gather(0, torch.from_numpy(best_ids(scores, at_px).astype(np.int64))[None])[0]
            torch.testing.assert_close(best, full.amax(0), atol=1e-5, rtol=0)


def test_few_clusters_are_looked_at_where_few_are_seen():
    """Two halves, a cluster that is second in both, one that nearly is: between the halves the second may be best."""
    far, near = torch.linspace(1, 0, 6).expand(4, 6), torch.linspace(0, 1, 6).expand(4, 6)
    scores = torch.stack([far, near, torch.full((4, 6), 0.55), torch.full((4, 6), 0.35), torch.full((4, 6), -1.0)])
    assert pixel_clusters._possible(scores).tolist() == [0, 1, 2]
    assert np.unique(best_ids(scores, (16, 24))).tolist() == [0, 1, 2]


def test_best_cluster_by_hand():
    # One row of two cells, widened to four pixels: 0, 1/4, 3/4 and 1 of the way. The scores of
    # cluster 0 are 0.4, 0.3, 0.1, 0 and those of cluster 1 are 0, 0.05, 0.15, 0.2: it wins in the last two.
    scores = torch.tensor([[[0.4, 0.0]], [[0.0, 0.2]]])
    found = best_cluster(scores, (1, 4))
    assert found.clusters.tolist() == [[0, 0, 1, 1]]
    expected = [1 / (1 + np.exp(-gap / CONFIDENCE_TEMPERATURE)) for gap in (0.4, 0.25, 0.05, 0.2)]
    np.testing.assert_allclose(found.confidence[0], expected, atol=1e-6)


def test_the_memory_of_a_strip_does_not_follow_its_length():
    """The weights of 100,000 pixels in 6,000 cells would be 2.4 GB."""
    scores = torch.randn(3, 2, 6000, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = best_ids(scores, (6, 100_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB
    full = F.interpolate(scores[None], (6, 100_000), mode="bilinear")[0]
    best = full.gather(0, torch.from_numpy(found.astype(np.int64))[None])[0]
    torch.testing.assert_close(best, full.amax(0), atol=2e-3, rtol=0)  # its positions are rounded


def test_the_first_of_equal_scores_is_the_largest():
    scores = torch.tensor([0.5, 2.0, 1.0, 2.0, -1.0]).view(5, 1, 1).expand(5, 3, 4)
    assert (largest(scores) == 1).all()
    assert (largest(scores, np.array([3, 4, 7, 8, 300])) == 4).all()
    assert (best_ids(scores, (6, 8)) == 1).all()


def test_scores_that_are_not_numbers_are_some_cluster():
    for scores in (torch.full((5, 3, 4), torch.nan), torch.randn(5, 3, 4).index_fill(2, torch.tensor(1), torch.nan)):
        assert best_ids(scores, (6, 8)).max() < 5
        assert best_cluster(scores, (6, 8)).clusters.max() < 5


def test_equal_scores_have_the_least_confidence():
    assert best_cluster(torch.zeros(5, 2, 3), (4, 4)).confidence == pytest.approx(1 / 5)


@pytest.mark.parametrize(("n_clusters", "dtype"), [(256, np.uint8), (257, np.uint16), (300, np.uint16)])
def test_many_clusters(n_clusters, dtype):
    scores = torch.zeros(n_clusters, 2, 3)
    scores[-1] = 5.0
    found = best_cluster(scores, (4, 6))
    assert found.clusters.dtype == dtype
    assert (found.clusters == n_clusters - 1).all()
