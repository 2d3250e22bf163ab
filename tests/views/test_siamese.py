from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from contextseg.settings import ViewSettings
from contextseg.views.siamese import siamese_batch

PLAIN = ViewSettings(frame_px=32, jitter_p=0, grey_p=0, blur_p=0)


class Patchify(nn.Module):
    """Unit vectors of 4 x 4 patches, with a kernel that is mirrored left and right so that a flip commutes."""

    def __init__(self):
        super().__init__()
        weight = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(1))
        self.register_buffer("weight", weight + weight.flip(-1))

    def forward(self, image, _coordinates=None):
        return F.normalize(F.conv2d(image, self.weight, stride=4), dim=1)


class CellMeans(nn.Module):
    """The mean colour of each cell and a constant, as a unit vector: as near to the image as it gets."""

    def forward(self, image, _coordinates=None):
        return F.normalize(F.pad(F.avg_pool2d(image, 4), (0, 0, 0, 0, 0, 1), value=1.0), dim=1)


@pytest.fixture
def images():
    """Noise on the grids 9 x 14, 12 x 8 and 20 x 10: the square of 8 x 8 cells lies elsewhere in each."""
    rng = np.random.default_rng(0)
    return [torch.from_numpy(rng.integers(0, 256, (3, *size), np.uint8)) for size in ((36, 56), (48, 32), (80, 40))]


def smooth_image(height, width):
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    return (255 * torch.stack([y, x, 0.5 + 0.5 * torch.sin(3 * x + 2 * y)])).to(torch.uint8)


def parts(batch, place):
    return batch.first_B3hw[place], batch.second_B3hw[place], batch.frames[place], batch.crops[place]


def test_a_view_is_of_seed_epoch_and_index_alone(images):
    settings = ViewSettings(frame_px=32, blur_p=1)
    together = siamese_batch(images, [7, 3, 12], seed=5, epoch=2, settings=settings)
    swapped = siamese_batch([images[2], images[0]], [12, 7], seed=5, epoch=2, settings=settings)
    assert together.indices == [7, 3, 12]
    assert together.first_B3hw.shape == together.second_B3hw.shape == (3, 3, 32, 32)
    for place, other in ((2, 0), (0, 1)):
        for own, again in zip(parts(together, place), parts(swapped, other), strict=True):
            if isinstance(own, torch.Tensor):
                torch.testing.assert_close(own, again, atol=3e-6, rtol=0)
            else:
                assert own == again


@pytest.mark.parametrize("key", [(6, 2, 7), (5, 3, 7), (5, 2, 8)], ids=["seed", "epoch", "index"])
def test_another_key_gives_another_view(images, key):
    settings = ViewSettings(frame_px=32)
    before = siamese_batch(images[:1], [7], seed=5, epoch=2, settings=settings)
    seed, epoch, index = key
    after = siamese_batch(images[:1], [index], seed=seed, epoch=epoch, settings=settings)
    assert (before.frames, before.crops) != (after.frames, after.crops)
    assert not torch.allclose(before.first_B3hw, after.first_B3hw, atol=0.05)


def test_the_two_views_have_photometric_draws_of_their_own(images):
    settings = ViewSettings(frame_px=32, min_scale=1, flip_p=0, jitter_p=1, grey_p=0, blur_p=0)
    batch = siamese_batch(images, [0, 1, 2], seed=0, epoch=0, settings=settings)
    assert ((batch.first_B3hw - batch.second_B3hw).abs().amax(dim=(1, 2, 3)) > 0.02).all()


def test_frames_are_squares_of_the_image(images):
    batch = siamese_batch(images, [0, 1, 2], seed=1, epoch=0, settings=PLAIN)
    assert [frame.grid for frame in batch.frames] == [(9, 14), (12, 8), (20, 10)]
    for image, frame, square in zip(images, batch.frames, batch.second_B3hw, strict=True):
        top, left, height, width = frame.box
        assert (height, width) == (8, 8)
        cut = image[:, 4 * top : 4 * top + 32, 4 * left : 4 * left + 32].float() / 255
        torch.testing.assert_close(square, cut, atol=1e-6, rtol=0)
    places = {
        siamese_batch(images[2:], [index], seed=1, epoch=0, settings=PLAIN).frames[0].box[:2] for index in range(200)
    }
    assert {row for row, _ in places} == set(range(13))
    assert {column for _, column in places} == set(range(3))


def test_the_centre_frame(images):
    centred = PLAIN.model_copy(update={"frame": "centre"})
    batch = siamese_batch(images, [0, 1, 2], seed=1, epoch=0, settings=centred)
    # (9 - 8) // 2, (14 - 8) // 2; (12 - 8) // 2, 0; (20 - 8) // 2, (10 - 8) // 2
    assert [frame.box[:2] for frame in batch.frames] == [(0, 3), (2, 0), (6, 1)]


@pytest.mark.parametrize("flip_p", [0.0, 1.0])
def test_without_jitter_and_resize_the_two_embeddings_are_equal(images, flip_p):
    settings = PLAIN.model_copy(update={"min_scale": 1.0, "flip_p": flip_p})
    batch = siamese_batch(images, [3, 1, 4], seed=2, epoch=1, settings=settings)
    assert torch.equal(batch.first_B3hw, batch.second_B3hw.flip(-1) if flip_p else batch.second_B3hw)
    first, second = batch.embed(Patchify())
    assert first.shape == (3, 6, 8, 8)
    torch.testing.assert_close(first, second, atol=1e-6, rtol=0)


def test_position_i_of_both_views_is_the_same_point():
    images = [smooth_image(44, 60), smooth_image(72, 40)] * 6
    batch = siamese_batch(images, list(range(12)), seed=3, epoch=0, settings=PLAIN)
    assert {crop.flip_x for crop in batch.crops} == {True, False}
    assert min(crop.box[2] for crop in batch.crops) < 7
    first, second = batch.embed(CellMeans())
    inside = (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(first[inside], second[inside], atol=0.01, rtol=0)
    # Not because nothing moves: the embedding of view 2 before its crop is far from that of view 1.
    uncut = CellMeans()(batch.second_B3hw)
    assert (first - uncut)[inside].abs().amax(dim=(1, 2, 3)).median() > 0.05


def test_both_embeddings_have_unit_length_and_carry_the_gradient(images):
    net = nn.Conv2d(3, 5, 4, stride=4)
    batch = siamese_batch(images, [0, 1, 2], seed=0, epoch=0, settings=ViewSettings(frame_px=32))
    first, second = batch.embed(lambda image, _coordinates: net(image))
    torch.testing.assert_close(second.norm(dim=1), torch.ones(3, 8, 8))
    for view in (first, second):
        (gradient,) = torch.autograd.grad(view[:, 0].sum(), net.weight, retain_graph=True)
        assert gradient.abs().max() > 0


def test_maps_are_as_long_as_the_network_makes_them(images):
    batch = siamese_batch(images, [0, 1, 2], seed=0, epoch=0, settings=ViewSettings(frame_px=32))
    first, second = batch.maps(lambda image, _coordinates: 5 * Patchify()(image))
    unit_first, unit_second = batch.embed(Patchify())
    torch.testing.assert_close(first, 5 * unit_first)
    assert second.norm(dim=1).max() <= 5 + 1e-4
    assert second.norm(dim=1).min() < 4.9  # means of unit vectors are shorter
    torch.testing.assert_close(F.normalize(second, dim=1), unit_second)


@pytest.mark.parametrize(
    "changed",
    [{"frame_px": 64}, {"frame": "centre"}, {"min_scale": 1.0}, {"flip_p": 1.0}],
    ids=lambda it: next(iter(it)),
)
def test_every_geometric_setting_changes_the_views(changed):
    images = [smooth_image(80, 96)] * 8

    def drawn(settings):
        return siamese_batch(images, range(8), seed=4, epoch=0, settings=settings).first_B3hw

    before, after = drawn(PLAIN), drawn(PLAIN.model_copy(update=changed))
    assert before.shape != after.shape or (before - after).abs().max() > 0.05


def test_the_views_are_new_in_each_epoch(images):
    epochs = [siamese_batch(images, [0, 1, 2], seed=0, epoch=epoch, settings=PLAIN) for epoch in range(5)]
    assert all(one.crops != two.crops for one, two in pairwise(epochs))


def test_an_index_for_each_image(images):
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is (shorter|longer)"):
        siamese_batch(images, [0, 1], seed=0, epoch=0, settings=PLAIN)


def test_colours_are_drawn_for_each_image_and_each_epoch(images):
    settings = ViewSettings(frame_px=32, frame="centre", min_scale=1, flip_p=0, jitter_p=1)
    two, later = (siamese_batch([images[0]] * 2, [7, 3], seed=0, epoch=epoch, settings=settings) for epoch in (0, 1))
    for view in ("first_B3hw", "second_B3hw"):
        own, other = getattr(two, view)
        assert not torch.allclose(own, other, atol=1e-2)  # of the same square
        assert not torch.allclose(own, getattr(later, view)[0], atol=1e-2)


def test_the_network_is_told_where_the_cells_of_each_view_lie(images):
    settings = PLAIN.model_copy(update={"min_scale": 1.0, "flip_p": 1.0})
    batch = siamese_batch(images, [0, 1, 2], seed=0, epoch=0, settings=settings)
    told_first, told_second = batch.maps(lambda _image, coordinates: coordinates)
    torch.testing.assert_close(told_first, batch.first_coordinates())
    torch.testing.assert_close(told_second, told_first)  # flipped as features, so the same points
