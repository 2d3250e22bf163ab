"""What a procedural scene is made of: sky, planes, foliage, trees, buildings and objects, each painted onto the canvas.

Convention: see `contextseg.data.scenes`. A place is (x, y), a size is (width, height), both in reference pixels.
"""

from dataclasses import dataclass

import numpy as np

from contextseg.data import scene_textures as tex
from contextseg.data.scene_textures import REFERENCE_HEIGHT, SILHOUETTES, Canvas, Field, Mask

CLASSES = ("sky", "ground", "water", "vegetation", "building", "object")
"""Names of the classes; a label is an index into them."""

SKY, GROUND, WATER, VEGETATION, BUILDING, OBJECT = range(len(CLASSES))


@dataclass(frozen=True)
class Setting:
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


def draw_setting(rng: np.random.Generator, horizon: float, growth: float) -> Setting:
    """Draw what all parts of a scene share: a colour for each kind of surface, and the side of the sun."""
    names = ("sky", "ground", "water", "vegetation")
    return Setting(
        horizon=horizon,
        growth=growth,
        colours={name: tex.draw_colour(rng, name) for name in names},
        sun=int(rng.choice((-1, 1))),
    )


def paint_sky(rng: np.random.Generator, canvas: Canvas, setting: Setting) -> None:
    """Paint the sky, and clouds in it, above the horizon."""
    mask = canvas.y < setting.horizon
    if mask.any():
        tone = tex.sky_tone(rng, canvas.x[mask], canvas.y[mask])
        # Clouds take the sky towards white or dark grey rather than towards a brighter sky colour.
        cloud = np.clip(tone, 0, 0.5)[:, None] * rng.uniform(0, 1.6)
        colour = setting.colours["sky"] * (1 - cloud) + np.float32(rng.uniform(0.45, 0.85)) * cloud
        canvas.paint(mask, SKY, colour.astype(np.float32), 0.5 * tone)


def _paint_ground(rng: np.random.Generator, canvas: Canvas, setting: Setting, mask: Mask) -> None:
    """Paint ground in two colours: patches of another soil break the link from colour to class further."""
    if not mask.any():
        return
    x, y = canvas.x[mask], canvas.y[mask] - setting.horizon
    first, second = setting.colours["ground"], tex.draw_colour(rng, "ground")
    patches = tex.noise(rng, *tex.turned(x / 38, y / 24, rng.uniform(0, 3)), soft=True)
    weight = rng.uniform(0.0, 0.9) * (patches > rng.uniform(-0.1, 0.35))
    colour = first + weight[:, None].astype(np.float32) * (second - first)
    canvas.paint(mask, GROUND, colour, tex.ground_tone(rng, x, y, setting.growth))


def _paint_water(rng: np.random.Generator, canvas: Canvas, setting: Setting, mask: Mask) -> None:
    if mask.any():
        x, y = canvas.x[mask], canvas.y[mask] - setting.horizon
        tone = tex.water_tone(rng, x, y, setting.growth)
        canvas.paint(mask, WATER, setting.colours["water"], tone)


def wavy(rng: np.random.Generator, canvas: Canvas, level: float, sway: float, cell: float) -> Field:
    """Return an (H, W) curve y(x) about ``level`` that sways by ``sway``, both in reference px."""
    zero = np.zeros_like(canvas.x[:1])
    # Sampled along one row only: the roll changes x little from row to row.
    curve = level + sway * tex.noise(rng, canvas.x[:1] / np.float32(cell), zero, soft=True)
    return np.asarray(np.broadcast_to(curve, canvas.x.shape), dtype=np.float32)


def paint_planes(rng: np.random.Generator, canvas: Canvas, setting: Setting) -> None:
    """Paint what lies below the horizon: ground and water, either of them in front."""
    below = canvas.y >= setting.horizon
    kind = rng.choice(("near", "far", "ground", "water", "lakes"), p=(0.32, 0.28, 0.12, 0.1, 0.18))
    if kind == "lakes":
        u, v = canvas.x / 45, (canvas.y - setting.horizon) / np.float32(30 if setting.growth == 0 else 18)
        water = tex.noise(rng, *tex.turned(u, v, rng.uniform(-0.3, 0.3)), soft=True) > rng.uniform(-0.1, 0.08)
    elif kind in ("near", "far"):
        top = max(setting.horizon, 0.0)
        level = top + rng.uniform(0.25, 0.75) * (REFERENCE_HEIGHT - top)
        below_shore = canvas.y > wavy(rng, canvas, level, rng.uniform(2, 25), rng.uniform(30, 70))
        water = below_shore if kind == "near" else ~below_shore
    else:
        water = np.full(below.shape, kind == "water")
    _paint_ground(rng, canvas, setting, below & ~water)
    _paint_water(rng, canvas, setting, below & water)


def paint_foliage(rng: np.random.Generator, canvas: Canvas, setting: Setting, level: Field) -> None:
    """Paint foliage where ``level`` (H, W), roughened by leaves, is above 0."""
    rough = level + 0.22 * tex.noise(rng, canvas.x / 5, canvas.y / 5) if level.max() > -0.22 else level
    mask = rough > 0
    if not mask.any():
        return
    colour = setting.colours["vegetation"] if rng.random() < 0.6 else tex.draw_colour(rng, "vegetation")
    tone = tex.leaf_tone(rng, canvas.x[mask], canvas.y[mask], rng.uniform(4.6, 5.6))
    # The rim of a crown away from the sun is darker; the label stays exact.
    canvas.paint(mask, VEGETATION, colour, tone - np.float32(0.12) * (level[mask] < 0.12))


def paint_tree(
    rng: np.random.Generator, canvas: Canvas, setting: Setting, foot: tuple[float, float], radius: float
) -> None:
    """Paint a crown, on a trunk for half of the trees, that stands at ``foot``."""
    rise = rng.uniform(0.5, 1.5) * radius
    _cast_shadow(rng, canvas, setting, foot, radius)
    if rise > radius:
        trunk = (np.abs(canvas.x - foot[0]) < 0.09 * radius) & (canvas.y > foot[1] - rise) & (canvas.y < foot[1])
        if trunk.any():
            bark = tex.leaf_tone(rng, canvas.x[trunk], canvas.y[trunk], 3.0)
            canvas.paint(trunk, VEGETATION, np.array((0.3, 0.24, 0.2), dtype=np.float32), bark)
    paint_foliage(rng, canvas, setting, tex.clump(rng, canvas, (foot[0], foot[1] - rise), radius))


def _cast_shadow(
    rng: np.random.Generator, canvas: Canvas, setting: Setting, foot: tuple[float, float], radius: float
) -> None:
    """Darken an ellipse beside ``foot``, on ground and water only."""
    reach = rng.uniform(0.3, 1.2) * radius
    a = (canvas.x - np.float32(foot[0] - setting.sun * reach)) / np.float32(1.3 * radius)
    b = (canvas.y - np.float32(foot[1])) / np.float32(0.35 * radius)
    plane = (canvas.labels == GROUND) | (canvas.labels == WATER)
    canvas.shade((a * a + b * b < 1) & plane & (canvas.y >= setting.horizon), rng.uniform(0.55, 0.75))


def paint_building(
    rng: np.random.Generator,
    canvas: Canvas,
    setting: Setting,
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
            canvas.paint(mask, BUILDING, colour * np.float32(gain), tone)


def paint_roof(
    rng: np.random.Generator,
    canvas: Canvas,
    setting: Setting,
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
        canvas.paint(mask, BUILDING, tex.draw_colour(rng, "building"), tone)


def paint_object(
    rng: np.random.Generator,
    canvas: Canvas,
    setting: Setting,
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
    canvas.paint(mask, OBJECT, colour, np.where(depth_px < 1.6, np.float32(-0.8), tone))
