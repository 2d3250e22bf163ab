from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from contextseg.randomness import keyed_rng
from contextseg.views.geometry import GeometricView, apply_views, draw_crop, draw_frame

STRIDE = 4
FLIPS = [(False, False), (True, False), (False, True), (True, True)]


@st.composite
def views(draw, grid=None, resized=None):
    """A view of a small grid; `resized` False keeps the size of the box."""
    rows, columns = grid or (draw(st.integers(1, 7)), draw(st.integers(1, 7)))
    top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
    box = (top, left, draw(st.integers(1, rows - top)), draw(st.integers(1, columns - left)))
    size = box[2:]
    if resized or (resized is None and draw(st.booleans())):
        size = (draw(st.integers(1, 8)), draw(st.integers(1, 8)))
    return GeometricView((rows, columns), box, size, draw(st.booleans()), draw(st.booleans()))


def numbered(grid, scale=1):
    """An image in which each pixel has a value of its own."""
    height, width = scale * grid[0], scale * grid[1]
    return torch.arange(height * width, dtype=torch.float32).reshape(1, height, width)


def patchify_weight(generator):
    """Whole numbers, so that sums are exact in any order; mirrored on both axes, so that a flip commutes."""
    weight = torch.randint(-9, 10, (5, 3, STRIDE, STRIDE), generator=generator).float()
    return weight + weight.flip(-1) + weight.flip(-2) + weight.flip(-1, -2)


@pytest.mark.parametrize(("flip_x", "flip_y"), FLIPS)
@pytest.mark.parametrize("box", [(0, 0, 5, 8), (1, 3, 2, 4), (4, 0, 1, 7), (2, 7, 3, 1)])
def test_image_side_and_feature_side_agree_bit_for_bit(box, flip_x, flip_y):
    generator = torch.Generator().manual_seed(3)
    image = torch.randint(0, 256, (2, 3, 5 * STRIDE, 8 * STRIDE), generator=generator).float()
    weight = patchify_weight(generator)
    view = GeometricView((5, 8), box, box[2:], flip_x, flip_y)
    on_features = view.apply(F.conv2d(image, weight, stride=STRIDE))
    on_image = F.conv2d(view.apply(image), weight, stride=STRIDE)
    assert on_features.shape == (2, 5, *box[2:])
    assert torch.equal(on_features, on_image)


def test_one_axis_alone_that_shrinks_is_averaged():
    """Of 8 rows, 2 are left: without an average over them the first row would not be seen."""
    image = torch.zeros(1, 8, 8)
    image[:, 0] = image[:, :, 0] = 1
    assert (GeometricView((8, 8), (0, 0, 8, 8), (2, 8)).apply(image)[0, 0] > 0.05).all()
    assert (GeometricView((8, 8), (0, 0, 8, 8), (8, 2)).apply(image)[0, :, 0] > 0.05).all()


def test_a_flip_of_the_image_meets_the_flipped_kernel():
    generator = torch.Generator().manual_seed(4)
    image = torch.randint(0, 256, (1, 3, 12, 20), generator=generator).float()
    weight = torch.randint(-9, 10, (2, 3, STRIDE, STRIDE), generator=generator).float()
    for flip_x, flip_y, axes in ((True, False, (-1,)), (False, True, (-2,))):
        view = GeometricView((3, 5), (1, 1, 2, 3), (2, 3), flip_x, flip_y)
        on_features = view.apply(F.conv2d(image, weight.flip(axes), stride=STRIDE))
        on_image = F.conv2d(view.apply(image), weight, stride=STRIDE)
        assert torch.equal(on_features, on_image)
        assert not torch.equal(view.apply(F.conv2d(image, weight, stride=STRIDE)), on_image)


def test_by_hand():
    # 0 1 2 3      rows 1-2, columns 1-3 are   5  6  7     mirrored left-right:   7  6  5
    # 4 5 6 7                                  9 10 11                           11 10  9
    # 8 9 10 11                                            top-bottom as well:   11 10  9 /  7  6  5
    grid = numbered((3, 4))
    assert GeometricView((3, 4), (1, 1, 2, 3), (2, 3)).apply(grid).tolist() == [[[5, 6, 7], [9, 10, 11]]]
    assert GeometricView((3, 4), (1, 1, 2, 3), (2, 3), True).apply(grid).tolist() == [[[7, 6, 5], [11, 10, 9]]]
    both = GeometricView((3, 4), (1, 1, 2, 3), (2, 3), True, True)
    assert both.apply(grid).tolist() == [[[11, 10, 9], [7, 6, 5]]]


def test_resizing_by_hand():
    # Twice as wide, half-pixel centres: new centres lie at -.25 .25 .75 1.25 of the old positions 0 and 1, clamped:
    # 0, .25, .75, 1 of the way from 10 to 30.
    wide = GeometricView((1, 2), (0, 0, 1, 2), (1, 4))
    assert wide.apply(torch.tensor([[10.0, 30.0]])).tolist() == [[10.0, 15.0, 25.0, 30.0]]
    assert wide.apply(torch.tensor([[10, 30]]), "nearest").tolist() == [[10, 10, 30, 30]]
    # Half as wide and antialiased: a triangle two old pixels to each side, so weights 1 3 3 1 of 8, cut at the border
    # and scaled to 1: (3*8 + 3*0 + 1*16) / 7 = 40/7 and (1*0 + 3*16 + 3*40) / 7 = 24.
    narrow = GeometricView((1, 4), (0, 0, 1, 4), (1, 2))
    torch.testing.assert_close(narrow.apply(torch.tensor([[8.0, 0.0, 16.0, 40.0]])), torch.tensor([[40 / 7, 24.0]]))


def bilinear_slowly(crop, size):
    (old_h, old_w), (new_h, new_w) = crop.shape, size
    result = np.empty(size)
    for i, j in product(range(new_h), range(new_w)):
        y = min(max((i + 0.5) * old_h / new_h - 0.5, 0), old_h - 1)
        x = min(max((j + 0.5) * old_w / new_w - 0.5, 0), old_w - 1)
        y0, x0 = int(y), int(x)
        y1, x1 = min(y0 + 1, old_h - 1), min(x0 + 1, old_w - 1)
        above = (1 - (x - x0)) * crop[y0, x0] + (x - x0) * crop[y0, x1]
        below = (1 - (x - x0)) * crop[y1, x0] + (x - x0) * crop[y1, x1]
        result[i, j] = (1 - (y - y0)) * above + (y - y0) * below
    return result


def nearest_slowly(crop, size):
    """The old position whose centre lies closest; of two that are as close, the later one."""

    def source(new, old_count, new_count):
        centre = Fraction(2 * new + 1, 2) * old_count / new_count
        return min(range(old_count), key=lambda old: (abs(Fraction(2 * old + 1, 2) - centre), -old))

    rows = [source(i, crop.shape[0], size[0]) for i in range(size[0])]
    columns = [source(j, crop.shape[1], size[1]) for j in range(size[1])]
    return np.array([[crop[i, j] for j in columns] for i in rows])


def flipped(view, result):
    return result[:: -1 if view.flip_y else 1, :: -1 if view.flip_x else 1]


@settings(max_examples=60, deadline=None)
@given(views(), st.sampled_from([1, 2, 3]), st.integers(0, 2**31))
def test_labels_against_a_slow_reference(view, scale, seed):
    labels = torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (scale * view.grid[0], scale * view.grid[1]), np.uint8)
    )
    top, left, height, width = (scale * side for side in view.box)
    crop = labels.numpy()[top : top + height, left : left + width]
    expected = flipped(view, nearest_slowly(crop, (scale * view.size[0], scale * view.size[1])))
    found = view.apply(labels, "nearest")
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), expected)


@settings(max_examples=60, deadline=None)
@given(views(), st.integers(0, 2**31))
def test_an_enlarged_image_against_a_slow_reference(view, seed):
    # A shrinking side is antialiased; test_resizing_by_hand has that.
    view = GeometricView(
        view.grid,
        view.box,
        (max(view.size[0], view.box[2]), max(view.size[1], view.box[3])),
        view.flip_x,
        view.flip_y,
    )
    whole = torch.from_numpy(np.random.default_rng(seed).random((2, *view.grid), np.float32))
    top, left, height, width = view.box
    for channel, found in zip(whole.numpy(), view.apply(whole).numpy(), strict=True):
        expected = flipped(view, bilinear_slowly(channel[top : top + height, left : left + width], view.size))
        np.testing.assert_allclose(found, expected, atol=1e-5)


@settings(max_examples=80, deadline=None)
@given(views(resized=False), st.sampled_from([1, STRIDE]), st.sampled_from(["bilinear", "nearest"]))
def test_inverse_gives_back_what_was_cut_and_fills_the_rest(view, scale, mode):
    whole = numbered(view.grid, scale)
    back = view.inverse(view.apply(whole, mode), fill=-7.0, mode=mode)
    top, left, height, width = (scale * side for side in view.box)
    inside = torch.zeros(whole.shape, dtype=torch.bool)
    inside[:, top : top + height, left : left + width] = True
    assert torch.equal(back, torch.where(inside, whole, torch.tensor(-7.0)))


def test_the_inverse_of_enlarged_labels_is_what_was_cut():
    view = GeometricView((5, 7), (1, 2, 3, 4), (9, 12), flip_x=True)
    labels = torch.from_numpy(np.random.default_rng(0).integers(20, size=(1, 5, 7)))
    back = view.inverse(view.apply(labels, "nearest"), fill=-1, mode="nearest")
    assert torch.equal(back[:, 1:4, 2:6], labels[:, 1:4, 2:6])  # no label that is between two


def test_the_inverse_of_an_enlarged_view_is_near_what_was_cut():
    view = GeometricView((6, 9), (1, 2, 4, 5), (8, 15), flip_x=True, flip_y=True)
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(9.0), indexing="ij")
    back = view.inverse(view.apply(3 * y - 2 * x), fill=99.0)
    assert (back[0] == 99).all()
    torch.testing.assert_close(back[2:4, 3:6], (3 * y - 2 * x)[2:4, 3:6], atol=0.01, rtol=0)


@st.composite
def chained(draw):
    outer = draw(views(resized=False))
    return outer, draw(views(grid=outer.size))


@settings(max_examples=80, deadline=None)
@given(chained(), st.integers(0, 2**31))
def test_then_is_one_view_after_the_other(pair, seed):
    outer, inner = pair
    joint = outer.then(inner)
    whole = torch.from_numpy(np.random.default_rng(seed).random((2, *outer.grid), np.float32))
    torch.testing.assert_close(joint.apply(whole), inner.apply(outer.apply(whole)), atol=1e-5, rtol=0)
    if inner.size == inner.box[2:]:
        assert torch.equal(joint.apply(whole), inner.apply(outer.apply(whole)))
        torch.testing.assert_close(joint.coordinates(), inner.apply(outer.coordinates()))


def test_one_column_shrinks_as_one_row_does():
    # two cells of three: each sees the one at its end and the middle one, by 5/8 and 3/8 of a triangle
    rows = torch.tensor([[1.0, 2.0, 4.0], [5.0, 7.0, 11.0]])
    view = GeometricView((3, 1), (0, 0, 3, 1), (2, 1))
    expected = torch.tensor([[1.375, 3.25], [5.75, 9.5]])
    torch.testing.assert_close(view.apply(rows[..., None])[..., 0], expected)
    torch.testing.assert_close(GeometricView((1, 3), (0, 0, 1, 3), (1, 2)).apply(rows[:, None])[:, 0], expected)


@settings(max_examples=80, deadline=None)
@given(chained())
def test_coordinates_of_a_chain(pair):
    outer, inner = pair
    # A coordinate of the inner view is a fraction of the outer view's box; the box is a linear part of the whole.
    found = outer.then(inner).coordinates()
    for axis, flip in ((0, outer.flip_y), (1, outer.flip_x)):
        within = inner.coordinates()[axis]
        within = 1 - within if flip else within
        expected = (outer.box[axis] + within * outer.box[2 + axis]) / outer.grid[axis]
        torch.testing.assert_close(found[axis], expected, atol=1e-6, rtol=0)


def coordinate_ramp(grid, scale):
    axes = [(torch.arange(scale * side) + 0.5) / (scale * side) for side in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


@settings(max_examples=60, deadline=None)
@given(views(resized=False))
def test_coordinates_are_where_the_cells_lie(view):
    assert view.coordinates().dtype == torch.float32
    torch.testing.assert_close(view.coordinates(), view.apply(coordinate_ramp(view.grid, 1)))
    # On the image's own pixels: the mean over a cell of the ramp is the centre of the cell.
    fine = view.apply(coordinate_ramp(view.grid, STRIDE))
    torch.testing.assert_close(view.coordinates(), F.avg_pool2d(fine, STRIDE))


@pytest.mark.parametrize(("flip_x", "flip_y"), FLIPS)
def test_coordinates_of_a_resized_view(flip_x, flip_y):
    view = GeometricView((8, 11), (1, 2, 5, 8), (7, 12), flip_x, flip_y)
    # The ramp is cut at the box, so that the outermost cells repeat it: there the image has no more to tell.
    inside = (slice(None), slice(1, -1), slice(1, -1))
    torch.testing.assert_close(view.coordinates()[inside], view.apply(coordinate_ramp(view.grid, 1))[inside])


@pytest.mark.parametrize(("flip_x", "flip_y"), FLIPS)
def test_a_resize_agrees_between_image_and_features_on_a_smooth_image(flip_x, flip_y):
    view = GeometricView((9, 13), (2, 1, 6, 9), (9, 13), flip_x, flip_y)
    y, x = coordinate_ramp(view.grid, STRIDE)
    image = (2 * y - x)[None]
    on_features = view.apply(F.avg_pool2d(image, STRIDE))
    on_image = F.avg_pool2d(view.apply(image), STRIDE)
    torch.testing.assert_close(on_features[:, 1:-1, 1:-1], on_image[:, 1:-1, 1:-1], atol=1e-4, rtol=0)
    # Half a cell of the view is 0.5 * 9 / 13 cells of the whole: what a shifted crop would be wrong by.
    half_cell = 0.5 * 9 / 13 / 13
    assert (on_features - on_image)[:, 1:-1, 1:-1].abs().max() < 0.01 * half_cell


def test_the_box_on_the_image_is_whole_cells():
    """PiCIE's own crops of image and features differed by up to half a cell."""
    for index in range(60):
        drawn = draw_crop(keyed_rng(0, "crop", index), 10, 0.3, 0.0)
        view = GeometricView(drawn.grid, drawn.box, drawn.box[2:])
        top, left, height, width = drawn.box
        pixels = view.apply(numbered(drawn.grid, STRIDE))[0].long()
        assert pixels.shape == (STRIDE * height, STRIDE * width)
        rows, columns = pixels // (10 * STRIDE), pixels % (10 * STRIDE)
        assert rows[:, 0].tolist() == list(range(STRIDE * top, STRIDE * (top + height)))
        assert columns[0].tolist() == list(range(STRIDE * left, STRIDE * (left + width)))
        cells = view.apply(numbered(drawn.grid))[0].long()
        of_pixels = (rows // STRIDE) * 10 + columns // STRIDE
        assert torch.equal(of_pixels, cells.repeat_interleave(STRIDE, 0).repeat_interleave(STRIDE, 1))


@pytest.mark.parametrize(
    ("box", "size", "message"),
    [
        ((-1, 0, 2, 2), (2, 2), r"box \(-1, 0, 2, 2\).*corners >= 0"),
        ((0, -1, 2, 2), (2, 2), "corners >= 0"),
        ((0, 0, 0, 2), (2, 2), "sides >= 1"),
        ((0, 0, 2, 0), (2, 2), "sides >= 1"),
        ((0, 0, 2, 2), (2, 0), r"size \(2, 0\) must have sides >= 1"),
        ((2, 0, 2, 5), (2, 5), "leaves the grid of 3 x 5 cells"),
        ((0, 3, 1, 3), (1, 3), "leaves the grid of 3 x 5 cells"),
    ],
)
def test_a_box_outside_the_grid(box, size, message):
    with pytest.raises(ValueError, match=message):
        GeometricView((3, 5), box, size)


@pytest.mark.parametrize("shape", [(3, 4), (6, 5), (12, 21), (2, 5), (6, 15)])
def test_an_image_that_is_no_whole_multiple_of_the_grid(shape):
    view = GeometricView((3, 5), (0, 0, 2, 2), (2, 2))
    with pytest.raises(
        ValueError, match=f"got {shape[0]} x {shape[1]}, expected one whole multiple of the grid's 3 x 5 cells"
    ):
        view.apply(torch.zeros(shape))


@pytest.mark.parametrize("shape", [(5, 4), (4, 5), (1, 2), (4, 8)])
def test_the_inverse_of_what_is_not_a_view(shape):
    view = GeometricView((6, 7), (0, 0, 2, 2), (3, 4))
    with pytest.raises(
        ValueError, match=f"got {shape[0]} x {shape[1]}, expected one whole multiple of the view's 3 x 4"
    ):
        view.inverse(torch.zeros(shape))


def test_views_that_cannot_be_joined():
    inner = GeometricView((2, 3), (0, 0, 1, 1), (1, 1))
    with pytest.raises(ValueError, match=r"cannot join a view of size \(4, 6\)"):
        GeometricView((5, 7), (0, 0, 2, 3), (4, 6)).then(inner)
    resizes = GeometricView((5, 7), (0, 0, 1, 3), (2, 3))
    with pytest.raises(ValueError, match=r"cannot join a view of size \(2, 3\) \(box \(0, 0, 1, 3\)\)"):
        resizes.then(inner)


def test_apply_views_is_one_view_for_each_image():
    images = torch.arange(2 * 3 * 4 * 6, dtype=torch.float32).reshape(2, 3, 4, 6)
    both = [GeometricView((4, 6), (0, 1, 3, 2), (3, 2)), GeometricView((4, 6), (1, 4, 3, 2), (3, 2), True)]
    found = apply_views(both, images)
    assert torch.equal(found, torch.stack([images[0, :, 0:3, 1:3], images[1, :, 1:4, 4:6].flip(-1)]))
    with pytest.raises(ValueError, match=r"zip\(\) argument 2 is (shorter|longer)"):
        apply_views(both[:1], images)


def test_frames_reach_every_place_and_no_further():
    corners = set()
    for index in range(400):
        frame = draw_frame(keyed_rng(1, "frame", index), (5, 8), 3, "random")
        assert frame.grid == (5, 8)
        assert frame.box[2:] == frame.size == (3, 3)
        assert not frame.flip_x
        assert not frame.flip_y
        corners.add(frame.box[:2])
    assert corners == set(product(range(3), range(6)))


def test_the_centre_frame():
    # (5 - 3) // 2 = 1 row and (8 - 3) // 2 = 2 columns before it.
    frames = {draw_frame(keyed_rng(seed, "frame"), (5, 8), 3, "centre") for seed in range(5)}
    assert frames == {GeometricView((5, 8), (1, 2, 3, 3), (3, 3))}


def test_crops_follow_their_ranges():
    crops = [draw_crop(keyed_rng(2, "crop", index), 20, 0.5, 0.25) for index in range(2000)]
    assert all(crop.grid == crop.size == (20, 20) for crop in crops)
    assert all(crop.box[2] == crop.box[3] for crop in crops)
    assert not any(crop.flip_y for crop in crops)
    sides = np.array([crop.box[2] for crop in crops])
    assert set(sides.tolist()) == set(range(10, 21))
    # U(10, 20) rounded: the mean is 15, with a standard error of 10 / sqrt(12 * 2000) = 0.065.
    assert abs(sides.mean() - 15) < 0.3
    # 2000 draws with p = 0.25: standard error 0.0097.
    assert abs(np.mean([crop.flip_x for crop in crops]) - 0.25) < 0.04
    rooms = [(crop.box[0], crop.box[1]) for crop in crops if crop.box[2] == 18]
    assert {row for row, _ in rooms} == {column for _, column in rooms} == {0, 1, 2}
    assert any(row != column for row, column in rooms)


def test_the_ends_of_the_ranges_of_crops():
    whole = draw_crop(keyed_rng(0, "crop"), 6, 1.0, 1.0)
    assert whole == GeometricView((6, 6), (0, 0, 6, 6), (6, 6), flip_x=True)
    assert not any(draw_crop(keyed_rng(0, "crop", index), 6, 0.5, 0.0).flip_x for index in range(50))
    assert draw_crop(keyed_rng(0, "crop"), 1, 0.01, 0.0).box == (0, 0, 1, 1)


def test_draws_follow_their_key():
    def drawn(*key):
        return (
            draw_crop(keyed_rng(5, "geometric", *key), 40, 0.5, 0.5),
            draw_frame(keyed_rng(5, "geometric", *key), (60, 90), 40, "random"),
        )

    assert drawn(2, 7) == drawn(2, 7)
    assert len({drawn(epoch, index) for epoch in range(3) for index in range(10)}) == 30
