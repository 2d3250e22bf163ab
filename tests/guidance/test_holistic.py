"""Holistic vectors and the label of each cell."""

import torch
import torch.nn.functional as F

from contextseg.guidance.holistic import at_cells, holistic_vectors
from contextseg.views.geometry import GeometricView, whole_coordinates


def colour(image: torch.Tensor) -> torch.Tensor:
    return 3 * F.avg_pool2d(image, 4)


def test_vectors_join_what_the_teacher_says_on_each_level() -> None:
    image = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    found = holistic_vectors(colour, image, (1.0, 2.0), 5)
    enlarged = F.interpolate(image, (128, 192), mode="bicubic", antialias=True).clamp(0, 1)
    expected = [
        F.interpolate(F.normalize(colour(level), dim=1), (5, 5), mode="bilinear", antialias=True)
        for level in (image, enlarged)
    ]
    torch.testing.assert_close(found, F.normalize(torch.cat(expected, dim=1), dim=1))


def test_a_level_has_sides_that_the_network_takes() -> None:
    sizes = []

    def teacher(image: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(image.shape[-2:]))
        return colour(image)

    holistic_vectors(teacher, torch.rand(1, 3, 64, 96), (0.7, 0.1, 1.5), 3)
    # 64 x 96 times 0.7 is 44.8 x 67.2, and the nearest multiples of 32 are 32 and 64; no side is under 32
    # 144 lies between 128 and 160; Python rounds 4.5 to the even 4
    assert sizes == [(32, 64), (32, 32), (96, 128)]


def test_a_cell_has_the_label_of_its_place() -> None:
    labels = torch.arange(2 * 2 * 2).view(2, 2, 2)
    # a grid of 3 x 4 cells: centres at y = 1/6, 3/6, 5/6 and x = 1/8, 3/8, 5/8, 7/8; 3/6 falls into the second row
    found = at_cells(labels, [1], whole_coordinates(3, 4)[None])
    assert found.tolist() == [[[4, 4, 5, 5], [6, 6, 7, 7], [6, 6, 7, 7]]]


def test_labels_follow_a_crop_and_a_flip() -> None:
    labels = torch.randint(9, (1, 7, 7), generator=torch.Generator().manual_seed(0))
    view = GeometricView((14, 21), (2, 3, 8, 10), (8, 10), flip_x=True)
    whole = at_cells(labels, [0], whole_coordinates(14, 21)[None])
    assert torch.equal(at_cells(labels, [0], view.coordinates()[None]), view.apply(whole, "nearest"))
