import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from sklearn.discriminant_analysis import QuadraticDiscriminantAnalysis

from contextseg.data.scenes import CLASSES, Scene, render_scene, write_scenes
from contextseg.errors import SettingsError

N_SCENES = 64
HEIGHT, WIDTH = 96, 120


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(0, index, HEIGHT, WIDTH) for index in range(N_SCENES)]


@pytest.fixture(scope="module")
def labels(scenes: list[Scene]) -> NDArray[np.uint8]:
    return np.stack([scene.labels for scene in scenes])


@pytest.fixture(scope="module")
def texture(scenes: list[Scene]) -> NDArray[np.float64]:
    return np.stack([texture_features(scene.image) for scene in scenes])


def texture_features(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(H, W, 12): log energy of four slopes at three scales, over 11 x 11 px; without colour."""
    grey = np.log(image.mean(axis=-1) / 255 + 0.05)
    energies = []
    for sigma in (0.6, 1.2, 2.4):
        smooth = ndimage.gaussian_filter(grey, sigma)
        slope_x, slope_y = sigma * ndimage.sobel(smooth, 1), sigma * ndimage.sobel(smooth, 0)
        for slope in (slope_x, slope_y, slope_x + slope_y, slope_x - slope_y):
            energies.append(np.log(ndimage.uniform_filter(slope**2, 11) + 1e-3))
    return np.stack(energies, axis=-1)


def held_out_miou(features: NDArray[np.floating], labels: NDArray[np.uint8]) -> float:
    """mIoU, from one confusion matrix, of a classifier fitted WITH labels on the first half of the scenes."""
    n_train = N_SCENES // 2 * HEIGHT * WIDTH
    flat, target = features.reshape(labels.size, -1)[::5], labels.ravel()[::5]
    train = np.arange(labels.size)[::5] < n_train
    guess = QuadraticDiscriminantAnalysis().fit(flat[train], target[train]).predict(flat[~train])
    k = len(CLASSES)
    confusion = np.bincount(target[~train].astype(int) * k + guess, minlength=k * k).reshape(k, k)
    hits = np.diag(confusion)
    return float(np.mean(hits / (confusion.sum(0) + confusion.sum(1) - hits)))


@pytest.mark.parametrize(("height", "width"), [(96, 128), (131, 77), (32, 200)])
def test_a_scene_has_the_size_asked_for_and_a_class_for_every_pixel(height, width):
    image, labels = render_scene(3, 1, height, width)
    assert (image.shape, image.dtype) == ((height, width, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((height, width), np.uint8)
    assert labels.max() < len(CLASSES)


def test_the_same_arguments_give_the_same_pixels():
    first, second = render_scene(7, 5, 64, 80), render_scene(7, 5, 64, 80)
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.labels, second.labels)


@pytest.mark.parametrize(("seed", "index"), [(7, 6), (8, 5), (5, 7)])
def test_another_seed_or_index_gives_another_scene(seed, index):
    reference, other = render_scene(7, 5, 64, 80), render_scene(seed, index, 64, 80)
    assert np.mean(reference.labels != other.labels) > 0.2
    assert np.abs(reference.image.astype(int) - other.image).mean() > 10


def test_no_class_is_rare_and_none_dominates(labels):
    frequency = np.bincount(labels.ravel(), minlength=len(CLASSES)) / labels.size
    assert frequency[:-1].min() > 0.08, frequency
    assert frequency[-1] > 0.05, frequency
    assert frequency.max() < 0.30, frequency


def test_most_scenes_hold_most_classes(labels):
    present = np.array([[np.mean(one == k) > 0.005 for k in range(len(CLASSES))] for one in labels])
    assert present.mean(axis=0).min() > 0.5
    assert np.median(present.sum(axis=1)) >= 5


def test_every_class_is_found_high_and_low_in_the_frame(labels):
    third = HEIGHT // 3
    for k, name in enumerate(CLASSES):
        shares = [np.mean(part == k) for part in (labels[:, :third], labels[:, -third:])]
        assert min(shares) > 0.01, (name, shares)


def test_images_are_neither_black_nor_burnt_out(scenes):
    for index, scene in enumerate(scenes):
        assert 35 < scene.image.mean() < 225, index
        assert np.mean(scene.image == 255) < 0.25, index


def test_colour_and_position_do_not_give_the_class_away_even_with_labels(scenes, labels):
    colour = np.stack([scene.image / 255 for scene in scenes])
    rows, columns = np.meshgrid(np.linspace(-1, 1, HEIGHT), np.linspace(-1, 1, WIDTH), indexing="ij")
    place = np.broadcast_to(np.stack([rows, columns], axis=-1), (*labels.shape, 2))
    assert held_out_miou(colour, labels) < 0.25
    assert held_out_miou(np.concatenate([colour, place], axis=-1), labels) < 0.30


def test_texture_without_colour_gives_the_class_away(texture, labels):
    assert held_out_miou(texture, labels) > 0.55


def test_textures_have_the_character_of_their_class(texture, labels):
    # Only windows that lie inside one region: an edge between two regions has a texture of its own.
    low, high = ndimage.minimum_filter(labels, (1, 11, 11)), ndimage.maximum_filter(labels, (1, 11, 11))
    inside = [(low == k) & (high == k) for k in range(len(CLASSES))]
    sky, ground, water, vegetation, building, thing = range(len(CLASSES))
    # Natural logarithms of energies at the middle scale: a difference of 0.7 is a factor of 2.
    across, down = ([np.median(texture[..., i][mask]) for mask in inside] for i in (4, 5))
    assert across[sky] < min(across[1:]) - 2
    assert down[water] > across[water] + 1.5
    for balanced in (ground, vegetation, building):
        assert abs(down[balanced] - across[balanced]) < 0.4
    assert across[vegetation] > across[ground] + 0.7
    # Stripes slant one way or the other, so that either diagonal may stand out.
    slant = np.abs(texture[..., 6] - texture[..., 7])
    assert int(np.argmax([np.median(slant[mask]) for mask in inside])) == thing


def test_textures_grow_with_the_image():
    # The layout and the palettes are the same at any size: halving the large labels gives the small ones.
    small, large = render_scene(2, 4, 96, 128), render_scene(2, 4, 192, 256)
    assert np.mean(small.labels == large.labels[::2, ::2]) > 0.95


def test_what_is_written_is_what_was_rendered(tmp_path):
    write_scenes(tmp_path / "set", 3, seed=11, size=(48, 64))
    files = sorted(p.relative_to(tmp_path / "set").as_posix() for p in (tmp_path / "set").rglob("*.*"))
    names = ("0000.png", "0001.png", "0002.png")
    assert files == ["classes.txt", *(f"images/{n}" for n in names), *(f"labels/{n}" for n in names)]
    assert (tmp_path / "set" / "classes.txt").read_text(encoding="utf-8").split() == list(CLASSES)
    for index, name in enumerate(names):
        scene = render_scene(11, index, 48, 64)
        for folder, expected, mode in (("images", scene.image, "RGB"), ("labels", scene.labels, "L")):
            with Image.open(tmp_path / "set" / folder / name) as image:
                assert image.mode == mode
                np.testing.assert_array_equal(np.asarray(image), expected)


@pytest.mark.parametrize(("height", "width"), [(31, 64), (64, 0)])
def test_a_side_that_is_too_short_is_refused(height, width):
    with pytest.raises(SettingsError, match="each side needs at least 32"):
        render_scene(0, 0, height, width)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_a_negative_key_is_refused(seed, index):
    with pytest.raises(SettingsError, match="both must be >= 0"):
        render_scene(seed, index, 64, 64)


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="expected at least 1"):
        write_scenes(tmp_path, 0)
