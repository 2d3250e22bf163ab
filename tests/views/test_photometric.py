import colorsys
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

from contextseg.randomness import keyed_rng
from contextseg.settings import ViewSettings
from contextseg.views.photometric import PhotometricView, apply_photometric, draw_photometric

LUMA = np.array([0.299, 0.587, 0.114])
NO_PHOTOMETRIC = ViewSettings(jitter_p=0, grey_p=0, blur_p=0)


@pytest.fixture
def images():
    # Neither the width of the values nor the sides are alike; nothing is cut off at 0 or 1 by a factor near 1.
    generator = torch.Generator().manual_seed(0)
    return 0.2 + 0.5 * torch.rand(3, 3, 11, 17, generator=generator)


def apply_one(image_3HW, **values):
    return apply_photometric(image_3HW[None], [PhotometricView(**values)])[0].numpy()


def test_the_neutral_draw_is_the_identity(images):
    torch.testing.assert_close(apply_photometric(images, [PhotometricView()] * 3), images, atol=1e-6, rtol=0)


def test_nothing_is_drawn_where_every_probability_is_zero():
    assert draw_photometric(keyed_rng(0, "photometric-1"), NO_PHOTOMETRIC) == PhotometricView()


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_brightness_multiplies(images, factor):
    np.testing.assert_allclose(apply_one(images[0], brightness=factor), images[0].numpy() * factor, atol=1e-6)


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_contrast_is_about_the_mean_grey_of_the_image(images, factor):
    image = images[1].numpy()
    mean_grey = np.einsum("c,chw->hw", LUMA, image).mean()
    np.testing.assert_allclose(
        apply_one(images[1], contrast=factor), mean_grey + factor * (image - mean_grey), atol=1e-6
    )


@pytest.mark.parametrize("factor", [0.7, 1.3])
def test_saturation_is_about_the_own_grey_of_the_pixel(images, factor):
    image = images[2].numpy()
    grey = np.einsum("c,chw->hw", LUMA, image)
    np.testing.assert_allclose(apply_one(images[2], saturation=factor), grey + factor * (image - grey), atol=1e-6)


@pytest.mark.parametrize("shift", [-0.1, 0.07, 0.3])
def test_hue_turns_the_colour_circle(images, shift):
    found = apply_one(images[0], hue=shift)
    for y, x in ((0, 0), (3, 16), (10, 5), (7, 9)):
        hue, saturation, value = colorsys.rgb_to_hsv(*images[0, :, y, x].tolist())
        expected = colorsys.hsv_to_rgb((hue + shift) % 1, saturation, value)
        np.testing.assert_allclose(found[:, y, x], expected, atol=1e-4)


def test_grey_has_three_equal_channels(images):
    found = apply_one(images[0], grey=True)
    np.testing.assert_allclose(found[0], np.einsum("c,chw->hw", LUMA, images[0].numpy()), atol=1e-4)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])


@pytest.mark.parametrize("sigma", [0.4, 1.0, 1.7])
def test_blur_is_gaussian(images, sigma):
    image = torch.rand(3, 20, 31, generator=torch.Generator().manual_seed(1))
    # SciPy's "mirror" is the border that PyTorch calls "reflect"; six deviations are the whole curve.
    expected = image.numpy()
    for axis in (1, 2):
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode="mirror", truncate=6)
    found = apply_one(image, blur_sigma_px=sigma)
    assert np.abs(found - image.numpy()).max() > 0.05
    np.testing.assert_allclose(found, expected, atol=0.004)


def test_a_blur_wider_than_the_image():
    image = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(2))
    found = apply_one(image, blur_sigma_px=4.0)
    assert found.shape == (3, 4, 5)
    assert found.std(axis=(1, 2)).max() < 0.5 * image.std(dim=(1, 2)).min()


def test_values_stay_between_0_and_1(images):
    found = apply_one(images[0], brightness=1.2, contrast=9.0, saturation=4.0)
    assert found.min() == 0
    assert found.max() == 1


def test_the_order_is_brightness_contrast_saturation_hue_grey_blur(images):
    draw = PhotometricView(1.2, 0.8, 1.3, 0.05, True, 0.9)
    in_turn = images[0]
    for field in fields(PhotometricView):
        step = replace(PhotometricView(), **{field.name: getattr(draw, field.name)})
        in_turn = apply_photometric(in_turn[None], [step])[0]
    torch.testing.assert_close(apply_photometric(images[:1], [draw])[0], in_turn, atol=1e-6, rtol=0)


def test_grey_p_makes_grey(images):
    """PiCIE's released code drew 'gray' and tested for 'grey': its option did nothing."""
    draws = [draw_photometric(keyed_rng(0, "photometric-1", i), ViewSettings(grey_p=1)) for i in range(3)]
    found = apply_photometric(images, draws)
    assert torch.equal(found[:, 0], found[:, 1])
    assert torch.equal(found[:, 0], found[:, 2])
    draws = [draw_photometric(keyed_rng(0, "photometric-1", i), ViewSettings(grey_p=0)) for i in range(3)]
    found = apply_photometric(images, draws)
    assert ((found[:, 0] - found[:, 1]).abs().amax(dim=(1, 2)) > 0.05).all()


@pytest.mark.parametrize(
    "changed",
    [
        {"jitter_p": 1.0},
        {"jitter_p": 0.0},
        {"brightness": (0.2, 0.3)},
        {"contrast": (0.2, 0.3)},
        {"saturation": (0.2, 0.3)},
        {"hue": (0.3, 0.4)},
        {"grey_p": 1.0},
        {"blur_p": 0.0},
        {"blur_p": 1.0},
        {"blur_sigma_px": (2.5, 3.0)},
    ],
    ids=lambda changed: "{}={}".format(*next(iter(changed.items()))),
)
def test_every_setting_changes_the_images(images, changed):
    def drawn(settings):
        draws = [draw_photometric(keyed_rng(0, "photometric-1", index), settings) for index in range(12)]
        return apply_photometric(images[:1].expand(12, -1, -1, -1), draws)

    assert (drawn(ViewSettings()) - drawn(ViewSettings(**changed))).abs().max() > 0.02


def test_every_photometric_field_of_the_settings_is_tested_above():
    geometric = {"frame_px", "frame", "min_scale", "flip_p"}  # tests/views/test_siamese.py
    (mark,) = [mark for mark in test_every_setting_changes_the_images.pytestmark if mark.name == "parametrize"]
    assert {name for changed in mark.args[1] for name in changed} == set(ViewSettings.model_fields) - geometric


def test_draws_follow_their_probabilities_and_ranges():
    settings = ViewSettings(
        jitter_p=0.7,
        brightness=(0.4, 0.6),
        contrast=(1.5, 1.9),
        saturation=(2.0, 2.2),
        hue=(0.1, 0.3),
        grey_p=0.15,
        blur_p=0.35,
        blur_sigma_px=(0.5, 2.0),
    )
    draws = [draw_photometric(keyed_rng(7, "photometric-1", 0, index), settings) for index in range(3000)]
    neutral = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, "blur_sigma_px": 0.0}
    for name, value in neutral.items():
        drawn = np.array([getattr(draw, name) for draw in draws])
        changed = drawn[drawn != value]
        low, high = getattr(settings, name)
        assert low <= changed.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < changed.max() <= high
        # The standard error of a share of 3000 is at most sqrt(1 / 4 / 3000) = 0.0091.
        assert abs(len(changed) / 3000 - (0.35 if name == "blur_sigma_px" else 0.7)) < 0.035
    assert abs(np.mean([draw.grey for draw in draws]) - 0.15) < 0.035
    # The draws are independent: brightness and contrast are both neutral in 0.3 * 0.3 of the images.
    both = np.mean([draw.brightness == 1.0 and draw.contrast == 1.0 for draw in draws])
    assert abs(both - 0.09) < 0.02


def test_draws_follow_their_key():
    settings = ViewSettings()
    keys = [(seed, f"photometric-{view}", epoch, 3) for seed in (0, 1) for view in (1, 2) for epoch in (0, 1)]
    draws = [draw_photometric(keyed_rng(*key), settings) for key in keys]
    assert draws == [draw_photometric(keyed_rng(*key), settings) for key in reversed(keys)][::-1]
    assert len(set(draws)) == len(keys)


def test_the_images_of_a_batch_do_not_influence_one_another(images):
    draws = [
        PhotometricView(1.2, 0.8, 1.3, 0.05, False, 1.0),
        PhotometricView(0.9, 1.1, 0.7, -0.1, True, 2.6),
        PhotometricView(1.0, 1.25, 1.0, 0.0, False, 0.4),
    ]
    together = apply_photometric(images, draws)
    for index in range(3):
        alone = apply_photometric(images[index : index + 1], draws[index : index + 1])[0]
        torch.testing.assert_close(together[index], alone, atol=2e-6, rtol=0)
    torch.testing.assert_close(apply_photometric(images.flip(0), draws[::-1]).flip(0), together, atol=2e-6, rtol=0)


def test_the_given_images_are_not_changed(images):
    before = images.clone()
    apply_photometric(images, [PhotometricView(1.2, 0.8, 1.3, 0.05, True, 1.0)] * 3)
    assert torch.equal(images, before)


def test_a_draw_for_each_image(images):
    with pytest.raises(RuntimeError, match=r"tensor a \(3\) must match the size of tensor b \(2\)"):
        apply_photometric(images, [PhotometricView(brightness=1.1)] * 2)
