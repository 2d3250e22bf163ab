"""Procedural outdoor scenes with exact labels: data for the demo and the tests, without a download.

A scene is painted back to front: sky, ground and water, then foliage and buildings, then objects. Lighting,
palettes, viewpoint and layout are drawn for each image; only the textures of the classes stay the same (see
``contextseg.data.scene_textures``). A method has to learn texture and context: colour and position are not
enough.

Convention: x to the right, y down, in reference pixels (an image is 128 of them high), turned by the camera's
roll. The pixel in row r has its centre at (r + 0.5) * 128 / H.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from contextseg.data import scene_parts as parts
from contextseg.data import scene_textures as tex
from contextseg.data.scene_parts import CLASSES, GROUND, SKY, WATER, Setting
from contextseg.data.scene_textures import REFERENCE_HEIGHT, Canvas, blank_canvas
from contextseg.errors import SettingsError
from contextseg.randomness import keyed_rng

__all__ = ["CLASSES", "Scene", "render_scene", "write_scenes"]

_MIN_SIDE_PX = 32


class Scene(NamedTuple):
    """A rendered scene.

    Attributes:
        image: (H, W, 3) uint8, sRGB.
        labels: (H, W) uint8, indices into ``CLASSES``; every pixel has one.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def _scatter_objects(rng: np.random.Generator, canvas: Canvas, setting: Setting, n_objects: int) -> None:
    """Put objects anywhere; what is painted under an object's middle decides its shape."""
    height, width = canvas.labels.shape
    for _ in range(n_objects):
        row, column = int(rng.uniform(0.05, 0.95) * height), int(rng.uniform(0.03, 0.97) * width)
        under = int(canvas.labels[row, column])
        place = {SKY: "air", WATER: "water", GROUND: "ground"}.get(under, "front")
        centre = (float(canvas.x[row, column]), float(canvas.y[row, column]))
        parts.paint_object(rng, canvas, setting, place, centre, rng.uniform(20, 34))


def _compose_open(rng: np.random.Generator, canvas: Canvas) -> Setting:
    """Compose a view with a horizon: planes, a far strip, then things that stand nearer and nearer."""
    horizon = rng.uniform(-0.1, 0.9) * REFERENCE_HEIGHT
    setting = parts.draw_setting(rng, horizon, growth=rng.uniform(0.003, 0.008))
    parts.paint_sky(rng, canvas, setting)
    parts.paint_planes(rng, canvas, setting)
    if rng.random() < 0.4:
        rise = rng.uniform(4, 22)
        crest = parts.wavy(rng, canvas, horizon - rise, 0.8 * rise, rng.uniform(12, 40))
        parts.paint_foliage(rng, canvas, setting, np.minimum(canvas.y - crest, horizon + 2 - canvas.y) / 8)
    for foot_y in np.sort(rng.uniform(horizon, horizon + 60, size=rng.integers(2, 5))):
        _paint_standing(rng, canvas, setting, float(foot_y))
    return setting


def _paint_standing(rng: np.random.Generator, canvas: Canvas, setting: Setting, foot_y: float) -> None:
    """Paint a tree or a building whose foot is at ``foot_y``; the nearer, the larger."""
    nearness = 1 + (foot_y - setting.horizon) / 60
    foot_x = rng.uniform(-1, 1) * canvas.half_width
    if rng.random() < 0.6:
        parts.paint_tree(rng, canvas, setting, (foot_x, foot_y), nearness * rng.uniform(18, 32))
    else:
        size = (nearness * rng.uniform(28, 56), nearness * rng.uniform(28, 66))
        parts.paint_building(rng, canvas, setting, (foot_x - size[0] / 2, foot_y), size)


def _compose_aerial(rng: np.random.Generator, canvas: Canvas) -> Setting:
    """Compose a view from above: no sky, patches of ground, water and foliage, roofs."""
    setting = parts.draw_setting(rng, horizon=-1e3, growth=0.0)
    parts.paint_planes(rng, canvas, setting)
    for _ in range(int(rng.integers(1, 4))):
        centre = (rng.uniform(-1, 1) * canvas.half_width, rng.uniform(0, REFERENCE_HEIGHT))
        parts.paint_foliage(rng, canvas, setting, tex.clump(rng, canvas, centre, rng.uniform(24, 42)))
    for _ in range(int(rng.integers(1, 4))):
        centre = (rng.uniform(-1, 1) * canvas.half_width, rng.uniform(0, REFERENCE_HEIGHT))
        parts.paint_roof(rng, canvas, setting, centre, (rng.uniform(36, 68), rng.uniform(36, 68)))
    return setting


def _compose_close(rng: np.random.Generator, canvas: Canvas) -> Setting:
    """Compose a close view: a building or foliage fills most of the frame, seen at any tilt."""
    setting = parts.draw_setting(rng, rng.uniform(-0.1, 1.2) * REFERENCE_HEIGHT, growth=rng.uniform(0.003, 0.008))
    parts.paint_sky(rng, canvas, setting)
    parts.paint_planes(rng, canvas, setting)
    left = rng.uniform(-1.3, 0.2) * canvas.half_width
    width = rng.uniform(0.9, 1.8) * canvas.half_width
    bottom = rng.uniform(0.6, 1.2) * REFERENCE_HEIGHT
    if rng.random() < 0.5:
        parts.paint_building(rng, canvas, setting, (left, bottom), (width, rng.uniform(0.5, 1.3) * REFERENCE_HEIGHT))
    else:
        centre = (left + width / 2, rng.uniform(-0.1, 1.1) * REFERENCE_HEIGHT)
        parts.paint_foliage(rng, canvas, setting, tex.clump(rng, canvas, centre, 0.6 * width))
    _paint_standing(rng, canvas, setting, setting.horizon + rng.uniform(20, 70))
    return setting


_VIEWS: tuple[tuple[float, Callable[[np.random.Generator, Canvas], Setting]], ...] = (
    (0.52, _compose_open),
    (0.22, _compose_aerial),
    (0.26, _compose_close),
)
"""Share of the scenes, and how they are composed."""


def _reflect(rng: np.random.Generator, canvas: Canvas) -> None:
    """Mirror what stands above each water surface in it, blurred along the columns."""
    water = canvas.labels == WATER
    if not water.any():
        return
    height, width = water.shape
    shore = np.argmax(water, axis=0)
    rows = np.clip(2 * shore - np.arange(height)[:, None], 0, height - 1)
    blurred = ndimage.uniform_filter1d(canvas.rgb, max(3, height // 16), axis=0)
    mirrored = blurred[rows, np.arange(width)]
    own = canvas.rgb[water]
    # Tinted, not averaged: the ripples keep their contrast and the water takes the colour of what it mirrors.
    tint = mirrored[water] / np.maximum(blurred[water], 0.08)
    canvas.rgb[water] = own * np.clip(tint, 0.4, 1.6) ** np.float32(rng.uniform(0.1, 0.6))


def _light(rng: np.random.Generator, canvas: Canvas, setting: Setting) -> None:
    """Light the canvas: white balance, exposure, a gradient, shadows of clouds, haze towards the horizon."""
    x, y = canvas.x, canvas.y
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * x / canvas.half_width + np.sin(angle) * (y / 64 - 1)) * rng.uniform(0, 0.28)
    clouds = np.clip(2 * tex.noise(rng, x / 60, y / 40, soft=True), -0.5, 0.5) * rng.uniform(0, 0.45)
    gain = (1 + slope) * (1 - (clouds + 0.2) * (canvas.labels != SKY))
    haze = rng.uniform(0, 0.16) * np.exp(-np.abs(y - setting.horizon) / 30)
    veil = np.float32(0.5) * (setting.colours["sky"] + np.float32(0.5))
    canvas.rgb *= gain[:, :, None].astype(np.float32)
    canvas.rgb += haze[:, :, None].astype(np.float32) * (veil - canvas.rgb)
    warmth = rng.normal(0.0, 0.13)
    balance = np.exp(np.array((warmth, rng.normal(0.0, 0.04), -warmth)) + rng.uniform(-0.3, 0.12))
    canvas.rgb *= balance.astype(np.float32)


def render_scene(seed: int, index: int, height: int, width: int) -> Scene:
    """Render a scene; the same arguments give the same pixels.

    Args:
        seed: the seed of the set, >= 0.
        index: the number of the scene in the set, >= 0.
        height: height in pixels, at least 32. Textures grow with it.
        width: width in pixels, at least 32.

    Raises:
        SettingsError: a side is shorter than 32 pixels, or ``seed`` or ``index`` is negative.

    >>> render_scene(0, 3, 96, 128).image.shape
    (96, 128, 3)
    """
    if min(height, width) < _MIN_SIDE_PX:
        raise SettingsError(f"got a scene of {height} x {width} pixels; each side needs at least 32, such as 128 x 160")
    if min(seed, index) < 0:
        raise SettingsError(f"got seed {seed} and index {index}; both must be >= 0, such as 0")
    rng = keyed_rng(seed, "scene", index)
    canvas = blank_canvas(rng, height, width)
    shares = [share for share, _ in _VIEWS]
    _, compose = _VIEWS[rng.choice(len(_VIEWS), p=shares)]
    setting = compose(rng, canvas)
    _reflect(rng, canvas)
    _scatter_objects(rng, canvas, setting, int(rng.integers(1, 3)))
    _light(rng, canvas, setting)
    return Scene(tex.develop(rng, canvas), canvas.labels)


def write_scenes(root: Path, n: int, seed: int = 0, size: tuple[int, int] = (128, 160)) -> None:
    """Write scenes as a folder of images and masks.

    The layout is ``images/NNNN.png`` (RGB), ``labels/NNNN.png`` (8-bit grey, indices into ``CLASSES``) and
    ``classes.txt`` (one name a line, in the order of the labels). Both are PNG, so that what is read back is
    what was rendered.

    Args:
        root: the folder, made where missing; files of the same name are replaced.
        n: number of scenes, >= 1.
        seed: the seed of the set, >= 0.
        size: (height, width) in pixels, each at least 32.

    Raises:
        SettingsError: ``n`` is below 1, or an argument does not suit ``render_scene``.
    """
    if n < 1:
        raise SettingsError(f"got n = {n} scenes to write; expected at least 1, such as 200")
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for index in range(n):
        scene = render_scene(seed, index, *size)
        Image.fromarray(scene.image).save(root / "images" / f"{index:04d}.png")
        Image.fromarray(scene.labels).save(root / "labels" / f"{index:04d}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n", encoding="utf-8")
