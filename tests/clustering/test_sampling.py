import pytest
import torch

from contextseg.clustering.sampling import points_per_image, sample_cells


def numbered(n_images, dim, height, width):
    """Embeddings that tell where they are from: image * 1000 + cell, and the same with a minus in dimension 1 on."""
    cells = torch.arange(height * width, dtype=torch.float32).reshape(height, width)
    images = 1000.0 * torch.arange(n_images)[:, None, None] + cells
    signs = torch.tensor([1.0] + [-1.0] * (dim - 1))
    return images[:, None] * signs[:, None, None]


@pytest.mark.parametrize(
    ("max_points", "n_images", "expected"),
    # 100 // 7 = 14 (7 * 14 = 98 fit, 7 * 15 = 105 do not); more images than points leave one each.
    [(100, 7, 14), (100, 100, 1), (100, 101, 1), (5, 1, 5), (100, 33, 3)],
)
def test_points_per_image(max_points, n_images, expected):
    assert points_per_image(max_points, n_images) == expected


def test_each_image_gives_as_many_cells_without_repetition():
    embedded = numbered(3, 2, 5, 7)
    points = sample_cells(embedded, [4, 9, 2], (0, "cells", 1), 6)
    assert points.shape == (18, 2)
    assert points.dtype == torch.float32
    values = points[:, 0].reshape(3, 6)
    for image, own in enumerate(values.tolist()):
        cells = {value - 1000 * image for value in own}
        assert len(cells) == 6
        assert cells <= set(range(35))
    # The dimensions of a cell stay together.
    assert torch.equal(points[:, 1], -points[:, 0])


@pytest.mark.parametrize("n", [35, 36, 1000])
def test_all_cells_where_there_are_not_more(n):
    points = sample_cells(numbered(2, 3, 5, 7), [0, 1], (0, "cells", 0), n)
    assert points.shape == (70, 3)
    assert points[:, 0].tolist() == [*range(35), *range(1000, 1035)]


def test_the_draw_is_of_the_key_and_the_image_alone():
    embedded = numbered(3, 1, 6, 6)
    together = sample_cells(embedded, [5, 6, 7], (3, "cells", 2), 4).reshape(3, 4)
    swapped = sample_cells(embedded[[2, 0]], [7, 5], (3, "cells", 2), 4).reshape(2, 4)
    assert torch.equal(swapped, together[[2, 0]])
    # Two images of a batch do not share their cells, nor do two seeds, streams or epochs.
    assert len({tuple((row % 1000).tolist()) for row in together}) == 3
    others = [(4, "cells", 2), (3, "other", 2), (3, "cells", 3)]
    assert all(not torch.equal(sample_cells(embedded, [5, 6, 7], key, 4).reshape(3, 4), together) for key in others)


@pytest.mark.parametrize("n", [5, 35])
def test_no_images_have_no_cells(n):
    assert sample_cells(torch.empty(0, 2, 5, 7), [], (0, "cells", 0), n).shape == (0, 2)


def test_every_cell_is_as_likely():
    embedded = numbered(1, 1, 3, 4)
    drawn = torch.cat([sample_cells(embedded, [0], (0, "cells", epoch), 3) for epoch in range(800)])
    counts = torch.bincount(drawn[:, 0].long(), minlength=12)
    # 800 * 3 / 12 = 200 each, with a standard deviation of sqrt(800 * 1/4 * 3/4) = 12.2.
    assert counts.sum() == 2400
    assert ((counts - 200).abs() < 61).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("n", [5, 16])
def test_no_gradient_and_no_half_precision_goes_on(dtype, n):
    embedded = torch.randn(1, 2, 4, 4).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):  # in which tensors of float16 cannot be joined
        points = sample_cells(embedded, [0], (0, "cells", 0), n)
    assert points.dtype == torch.float32
    assert not points.requires_grad
    assert torch.equal(points, sample_cells(embedded.float(), [0], (0, "cells", 0), n))
