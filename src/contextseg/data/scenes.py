"""Procedural outdoor scenes with exact labels: data for the demo and the tests, without a download.

A scene is painted back to front: sky, ground and water, then foliage and buildings, then objects. Lighting,
palettes, viewpoint and layout are drawn for each image; only the textures of the classes stay the same (see
``contextseg.data.scene_textures``). A method has to learn texture and context: colour and position are not
enough.

Convention: x to the right, y down, in reference pixels (an image is 128 of them high), turned by the camera's
roll. The pixel in row r has its centre at (r + 0.5) * 128 / H.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from contextseg.data import scene_textures as tex
from contextseg.data.scene_textures import REFERENCE_HEIGHT, SILHOUETTES, Canvas, Field, Mask, blank_canvas
from contextseg.errors import SettingsError
from contextseg.randomness import keyed_rng

CLASSES = ("sky", "ground", "water", "vegetation", "building", "object")
"""Names of the classes; a label is an index into them."""

_SKY, _GROUND, _WATER, _VEGETATION, _BUILDING, _OBJECT = range(len(CLASSES))
_MIN_SIDE_PX = 32


class Scene(NamedTuple):
    """A rendered scene.

    Attributes:
        image: (H, W, 3) uint8, sRGB.
        labels: (H, W) uint8, indices into ``CLASSES``; every pixel has one.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True)
class _Setting:
    """What all parts of one scene share.

    Attributes:
        horizon: y of the horizon, reference px; may lie outside the image.
        growth: growth of the grain of planes per reference px below the horizon; 0 from straight above.
        colours: base colour, (3,) float32, of sky, ground, water and vegetation.
        sun: -1 (from the left) or 1 (from the right).
    """

    horizon: float
    growth: float
    colours: dict[str, Field]
    sun: int


def _draw_setting(rng: np.random.Generator, horizon: float, growth: float) -> _Setting:
    names = ("sky", "ground", "water", "vegetation")
    return _Setting(
        horizon=horizon,
        growth=growth,
        colours={name: tex.draw_colour(rng, name) for name in names},
        sun=int(rng.choice((-1, 1))),
    )


def _paint_sky(rng: np.random.Generator, canvas: Canvas, setting: _Setting) -> None:
    mask = canvas.y < setting.horizon
    if mask.any():
        tone = tex.sky_tone(rng, canvas.x[mask], canvas.y[mask])
        # Clouds take the sky towards white or dark grey rather than towards a brighter sky colour.
        cloud = np.clip(tone, 0, 0.5)[:, None] * rng.uniform(0, 1.6)
        colour = setting.colours["sky"] * (1 - cloud) + np.float32(rng.uniform(0.45, 0.85)) * cloud
        canvas.paint(mask, _SKY, colour.astype(np.float32), 0.5 * tone)


def _paint_ground(rng: np.random.Generator, canvas: Canvas, setting: _Setting, mask: Mask) -> None:
    """Paint ground in two colours: patches of another soil break the link from colour to class further."""
    if not mask.any():
        return
    x, y = canvas.x[mask], canvas.y[mask] - setting.horizon
    first, second = setting.colours["ground"], tex.draw_colour(rng, "ground")
    patches = tex.noise(rng, *tex.turned(x / 38, y / 24, rng.uniform(0, 3)), soft=True)
    weight = rng.uniform(0.0, 0.9) * (patches > rng.uniform(-0.1, 0.35))
    colour = first + weight[:, None].astype(np.float32) * (second - first)
    canvas.paint(mask, _GROUND, colour, tex.ground_tone(rng, x, y, setting.growth))


def _paint_water(rng: np.random.Generator, canvas: Canvas, setting: _Setting, mask: Mask) -> None:
    if mask.any():
        x, y = canvas.x[mask], canvas.y[mask] - setting.horizon
        tone = tex.water_tone(rng, x, y, setting.growth)
        canvas.paint(mask, _WATER, setting.colours["water"], tone)


def _wavy(rng: np.random.Generator, canvas: Canvas, level: float, sway: float, cell: float) -> Field:
    """Return an (H, W) curve y(x) about ``level`` that sways by ``sway``, both in reference px."""
    zero = np.zeros_like(canvas.x[:1])
    # Sampled along one row only: the roll changes x little from row to row.
    curve = level + sway * tex.noise(rng, canvas.x[:1] / np.float32(cell), zero, soft=True)
    return np.asarray(np.broadcast_to(curve, canvas.x.shape), dtype=np.float32)


def _paint_planes(rng: np.random.Generator, canvas: Canvas, setting: _Setting) -> None:
    """Paint what lies below the horizon: ground and water, either of them in front."""
    below = canvas.y >= setting.horizon
    kind = rng.choice(("near", "far", "ground", "water", "lakes"), p=(0.32, 0.28, 0.12, 0.1, 0.18))
    if kind == "lakes":
        u, v = canvas.x / 45, (canvas.y - setting.horizon) / np.float32(30 if setting.growth == 0 else 18)
        water = tex.noise(rng, *tex.turned(u, v, rng.uniform(-0.3, 0.3)), soft=True) > rng.uniform(-0.1, 0.08)
    elif kind in ("near", "far"):
        top = max(setting.horizon, 0.0)
        level = top + rng.uniform(0.25, 0.75) * (REFERENCE_HEIGHT - top)
        below_shore = canvas.y > _wavy(rng, canvas, level, rng.uniform(2, 25), rng.uniform(30, 70))
        water = below_shore if kind == "near" else ~below_shore
    else:
        water = np.full(below.shape, kind == "water")
    _paint_ground(rng, canvas, setting, below & ~water)
    _paint_water(rng, canvas, setting, below & water)


def _paint_foliage(rng: np.random.Generator, canvas: Canvas, setting: _Setting, level: Field) -> None:
    """Paint foliage where ``level`` (H, W), roughened by leaves, is above 0."""
    rough = level + 0.22 * tex.noise(rng, canvas.x / 5, canvas.y / 5) if level.max() > -0.22 else level
    mask = rough > 0
    if not mask.any():
        return
    colour = setting.colours["vegetation"] if rng.random() < 0.6 else tex.draw_colour(rng, "vegetation")
    tone = tex.leaf_tone(rng, canvas.x[mask], canvas.y[mask], rng.uniform(4.6, 5.6))
    # The rim of a crown away from the sun is darker; the label stays exact.
    canvas.paint(mask, _VEGETATION, colour, tone - np.float32(0.12) * (level[mask] < 0.12))


def _paint_tree(
    rng: np.random.Generator, canvas: Canvas, setting: _Setting, foot: tuple[float, float], radius: float
) -> None:
    """Paint a crown, on a trunk for half of the trees, that stands at ``foot``."""
    rise = rng.uniform(0.5, 1.5) * radius
    _cast_shadow(rng, canvas, setting, foot, radius)
    if rise > radius:
        trunk = (np.abs(canvas.x - foot[0]) < 0.09 * radius) & (canvas.y > foot[1] - rise) & (canvas.y < foot[1])
        if trunk.any():
            bark = tex.leaf_tone(rng, canvas.x[trunk], canvas.y[trunk], 3.0)
            canvas.paint(trunk, _VEGETATION, np.array((0.3, 0.24, 0.2), dtype=np.float32), bark)
    _paint_foliage(rng, canvas, setting, tex.clump(rng, canvas, (foot[0], foot[1] - rise), radius))


def _cast_shadow(
    rng: np.random.Generator, canvas: Canvas, setting: _Setting, foot: tuple[float, float], radius: float
) -> None:
    """Darken an ellipse beside ``foot``, on ground and water only."""
    reach = rng.uniform(0.3, 1.2) * radius
    a = (canvas.x - np.float32(foot[0] - setting.sun * reach)) / np.float32(1.3 * radius)
    b = (canvas.y - np.float32(foot[1])) / np.float32(0.35 * radius)
    plane = (canvas.labels == _GROUND) | (canvas.labels == _WATER)
    canvas.shade((a * a + b * b < 1) & plane & (canvas.y >= setting.horizon), rng.uniform(0.55, 0.75))


def _paint_building(
    rng: np.random.Generator,
    canvas: Canvas,
    setting: _Setting,
    foot: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Paint a building of ``size`` (width, height) whose front stands on ``foot``, its lower left corner.

    A second, darker face recedes to the side away from the sun.
    """
    width, height = size
    _cast_shadow(rng, canvas, setting, (foot[0] + width / 2, foot[1]), 0.7 * width)
    colour = tex.draw_colour(rng, "building")
    pitch = (float(rng.uniform(6.5, 9.5)), float(rng.uniform(6.5, 9.5)))
    a, b = canvas.x - np.float32(foot[0]), canvas.y - np.float32(foot[1] - height)
    depth = rng.uniform(0.0, 0.45) * width
    beyond = a - np.float32(width) if setting.sun < 0 else -a
    slant = b - np.float32(rng.uniform(0.1, 0.5)) * beyond
    side = (beyond > 0) & (beyond < depth) & (slant > 0) & (b < height)
    front = (a >= 0) & (a < width) & (b > 0) & (b < height)
    for mask, along, down, gain in ((side, beyond, slant, rng.uniform(0.55, 0.8)), (front, a, b, 1.0)):
        if mask.any():
            tone = tex.window_tone(rng, along[mask], down[mask], pitch)
            canvas.paint(mask, _BUILDING, colour * np.float32(gain), tone)


def _paint_roof(
    rng: np.random.Generator,
    canvas: Canvas,
    setting: _Setting,
    centre: tuple[float, float],
    size: tuple[float, float],
) -> None:
    """Paint a building seen from above: a turned rectangle with rows of skylights."""
    x, y = canvas.x - np.float32(centre[0]), canvas.y - np.float32(centre[1])
    a, b = tex.turned(x, y, rng.choice((0.0, rng.uniform(-0.3, 0.3))))
    offset = setting.sun * 5
    shadow = (np.abs(a - offset) < size[0] / 2) & (np.abs(b - 4) < size[1] / 2)
    canvas.shade(shadow, rng.uniform(0.5, 0.7))
    mask = (np.abs(a) < size[0] / 2) & (np.abs(b) < size[1] / 2)
    if mask.any():
        pitch = (float(rng.uniform(6.5, 9.5)), float(rng.uniform(6.5, 9.5)))
        tone = tex.window_tone(rng, a[mask] + size[0] / 2, b[mask] + size[1] / 2, pitch)
        canvas.paint(mask, _BUILDING, tex.draw_colour(rng, "building"), tone)


def _paint_object(
    rng: np.random.Generator,
    canvas: Canvas,
    setting: _Setting,
    place: str,
    centre: tuple[float, float],
    radius: float,
) -> None:
    """Paint a glossy striped body with a dark outline.

    Args:
        rng: the generator.
        canvas: painted on.
        setting: gives the side of the sun.
        place: key of ``SILHOUETTES``.
        centre: (x, y) of the middle, reference px.
        radius: half its extent, reference px.
    """
    shapes = SILHOUETTES[place]
    shape = shapes[rng.integers(len(shapes))]
    if place in ("ground", "water"):
        _cast_shadow(rng, canvas, setting, (centre[0], centre[1] + 0.7 * radius), radius)
    a = (canvas.x - np.float32(centre[0])) / np.float32(radius)
    b = (canvas.y - np.float32(centre[1])) / np.float32(radius)
    if rng.random() < 0.5:
        a = -a
    inside = shape(a, b)
    mask = inside > 0
    if not mask.any():
        return
    a, b, depth_px = a[mask], b[mask], inside[mask] * np.float32(radius)
    first, second = tex.draw_colour(rng, "object"), tex.draw_colour(rng, "object")
    # Stripes that differ in hue alone would vanish in a view turned to grey.
    contrast = rng.uniform(1.6, 2.1)
    second = second * (first.mean() / second.mean()) * (contrast if first.mean() < 0.48 else 1 / contrast)
    mix = tex.stripe_mix(rng, canvas.x[mask], canvas.y[mask])
    colour = first + mix[:, None] * (second - first)
    gloss = np.exp(-((a - 0.35 * setting.sun) ** 2 + (b + 0.4) ** 2) / 0.08)
    tone = 0.25 * (setting.sun * a - b) + 0.6 * gloss
    canvas.paint(mask, _OBJECT, colour, np.where(depth_px < 1.6, np.float32(-0.8), tone))


def _scatter_objects(rng: np.random.Generator, canvas: Canvas, setting: _Setting, n_objects: int) -> None:
    """Put objects anywhere; what is painted under an object's middle decides its shape."""
    height, width = canvas.labels.shape
    for _ in range(n_objects):
        row, column = int(rng.uniform(0.05, 0.95) * height), int(rng.uniform(0.03, 0.97) * width)
        under = int(canvas.labels[row, column])
        place = {_SKY: "air", _WATER: "water", _GROUND: "ground"}.get(under, "front")
        centre = (float(canvas.x[row, column]), float(canvas.y[row, column]))
        _paint_object(rng, canvas, setting, place, centre, rng.uniform(20, 34))


def _compose_open(rng: np.random.Generator, canvas: Canvas) -> _Setting:
    """Compose a view with a horizon: planes, a far strip, then things that stand nearer and nearer."""
    horizon = rng.uniform(-0.1, 0.9) * REFERENCE_HEIGHT
    setting = _draw_setting(rng, horizon, growth=rng.uniform(0.003, 0.008))
    _paint_sky(rng, canvas, setting)
    _paint_planes(rng, canvas, setting)
    if rng.random() < 0.4:
        rise = rng.uniform(4, 22)
        crest = _wavy(rng, canvas, horizon - rise, 0.8 * rise, rng.uniform(12, 40))
        _paint_foliage(rng, canvas, setting, np.minimum(canvas.y - crest, horizon + 2 - canvas.y) / 8)
    for foot_y in np.sort(rng.uniform(horizon, horizon + 60, size=rng.integers(2, 5))):
        _paint_standing(rng, canvas, setting, float(foot_y))
    return setting


def _paint_standing(rng: np.random.Generator, canvas: Canvas, setting: _Setting, foot_y: float) -> None:
    """Paint a tree or a building whose foot is at ``foot_y``; the nearer, the larger."""
    nearness = 1 + (foot_y - setting.horizon) / 60
    foot_x = rng.uniform(-1, 1) * canvas.half_width
    if rng.random() < 0.6:
        _paint_tree(rng, canvas, setting, (foot_x, foot_y), nearness * rng.uniform(18, 32))
    else:
        size = (nearness * rng.uniform(28, 56), nearness * rng.uniform(28, 66))
        _paint_building(rng, canvas, setting, (foot_x - size[0] / 2, foot_y), size)


def _compose_aerial(rng: np.random.Generator, canvas: Canvas) -> _Setting:
    """Compose a view from above: no sky, patches of ground, water and foliage, roofs."""
    setting = _draw_setting(rng, horizon=-1e3, growth=0.0)
    _paint_planes(rng, canvas, setting)
    for _ in range(int(rng.integers(1, 4))):
        centre = (rng.uniform(-1, 1) * canvas.half_width, rng.uniform(0, REFERENCE_HEIGHT))
        _paint_foliage(rng, canvas, setting, tex.clump(rng, canvas, centre, rng.uniform(24, 42)))
    for _ in range(int(rng.integers(1, 4))):
        centre = (rng.uniform(-1, 1) * canvas.half_width, rng.uniform(0, REFERENCE_HEIGHT))
        _paint_roof(rng, canvas, setting, centre, (rng.uniform(36, 68), rng.uniform(36, 68)))
    return setting


def _compose_close(rng: np.random.Generator, canvas: Canvas) -> _Setting:
    """Compose a close view: a building or foliage fills most of the frame, seen at any tilt."""
    setting = _draw_setting(rng, rng.uniform(-0.1, 1.2) * REFERENCE_HEIGHT, growth=rng.uniform(0.003, 0.008))
    _paint_sky(rng, canvas, setting)
    _paint_planes(rng, canvas, setting)
    left = rng.uniform(-1.3, 0.2) * canvas.half_width
    width = rng.uniform(0.9, 1.8) * canvas.half_width
    bottom = rng.uniform(0.6, 1.2) * REFERENCE_HEIGHT
    if rng.random() < 0.5:
        _paint_building(rng, canvas, setting, (left, bottom), (width, rng.uniform(0.5, 1.3) * REFERENCE_HEIGHT))
    else:
        centre = (left + width / 2, rng.uniform(-0.1, 1.1) * REFERENCE_HEIGHT)
        _paint_foliage(rng, canvas, setting, tex.clump(rng, canvas, centre, 0.6 * width))
    _paint_standing(rng, canvas, setting, setting.horizon + rng.uniform(20, 70))
    return setting


_VIEWS: tuple[tuple[float, Callable[[np.random.Generator, Canvas], _Setting]], ...] = (
    (0.52, _compose_open),
    (0.22, _compose_aerial),
    (0.26, _compose_close),
)
"""Share of the scenes, and how they are composed."""


def _reflect(rng: np.random.Generator, canvas: Canvas) -> None:
    """Mirror what stands above each water surface in it, blurred along the columns."""
    water = canvas.labels == _WATER
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


def _light(rng: np.random.Generator, canvas: Canvas, setting: _Setting) -> None:
    """Light the canvas: white balance, exposure, a gradient, shadows of clouds, haze towards the horizon."""
    x, y = canvas.x, canvas.y
    angle = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(angle) * x / canvas.half_width + np.sin(angle) * (y / 64 - 1)) * rng.uniform(0, 0.28)
    clouds = np.clip(2 * tex.noise(rng, x / 60, y / 40, soft=True), -0.5, 0.5) * rng.uniform(0, 0.45)
    gain = (1 + slope) * (1 - (clouds + 0.2) * (canvas.labels != _SKY))
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
