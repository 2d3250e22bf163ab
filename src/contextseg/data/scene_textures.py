"""Canvas, colours, textures and silhouettes of the procedural scenes.

The six classes differ in *texture*: smooth sky, isotropic ground grain, stretched ripples, leafy blobs,
window grids, glossy stripes. Their colours come from wide palettes that overlap on purpose, so that a colour
says little about a class.

Convention: every texture is a function of points. ``x`` and ``y`` are float32 arrays of one shape, x to the
right and y down, in *reference pixels*: an image is always 128 of them high, whatever its height in pixels.
A tone is a relative change of brightness, about zero; a texture multiplies a colour by ``1 + tone``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

# float32 throughout; numpy's stubs lose that in arithmetic with Python numbers, hence the wide type.
Field = NDArray[np.floating[Any]]

Mask = NDArray[np.bool_]

REFERENCE_HEIGHT = 128.0
_LATTICE = 64

# Linear-ish RGB in [0, 1]. No anchor is very dark or very bright: the textures need room on either side.
PALETTES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "sky": (
        (0.38, 0.57, 0.82),  # clear blue
        (0.22, 0.40, 0.70),  # deep blue
        (0.62, 0.64, 0.67),  # overcast
        (0.42, 0.44, 0.48),  # storm
        (0.85, 0.55, 0.32),  # sunset
        (0.78, 0.52, 0.58),  # dusk, pink
        (0.86, 0.87, 0.88),  # near white
        (0.45, 0.62, 0.60),  # greenish haze
        (0.74, 0.66, 0.48),  # dust
    ),
    "ground": (
        (0.42, 0.42, 0.44),  # asphalt
        (0.66, 0.65, 0.63),  # concrete
        (0.76, 0.64, 0.44),  # sand
        (0.60, 0.35, 0.24),  # red soil
        (0.40, 0.31, 0.22),  # dark soil
        (0.82, 0.84, 0.88),  # snow
        (0.38, 0.52, 0.24),  # green field
        (0.60, 0.58, 0.30),  # dry field
        (0.50, 0.54, 0.64),  # wet stone, bluish
    ),
    "water": (
        (0.24, 0.42, 0.66),  # blue
        (0.42, 0.62, 0.78),  # light blue
        (0.26, 0.48, 0.42),  # green
        (0.45, 0.40, 0.28),  # brown
        (0.50, 0.53, 0.56),  # grey
        (0.72, 0.74, 0.76),  # silver
        (0.72, 0.50, 0.36),  # sunset
        (0.36, 0.46, 0.24),  # algae
        (0.30, 0.60, 0.62),  # turquoise
    ),
    "vegetation": (
        (0.26, 0.45, 0.18),  # leaf green
        (0.46, 0.58, 0.26),  # spring green
        (0.74, 0.60, 0.22),  # autumn yellow
        (0.66, 0.32, 0.18),  # autumn red
        (0.22, 0.34, 0.28),  # conifer
        (0.62, 0.58, 0.42),  # pale, dry
        (0.42, 0.50, 0.46),  # olive grey
        (0.68, 0.48, 0.58),  # blossom
        (0.72, 0.76, 0.74),  # frost
    ),
    "building": (
        (0.58, 0.32, 0.24),  # brick
        (0.60, 0.60, 0.60),  # concrete
        (0.36, 0.48, 0.60),  # glass
        (0.78, 0.72, 0.58),  # cream
        (0.80, 0.80, 0.80),  # white
        (0.42, 0.55, 0.42),  # painted green
        (0.76, 0.52, 0.30),  # ochre
        (0.40, 0.38, 0.40),  # slate
        (0.45, 0.58, 0.74),  # painted blue
    ),
    "object": (
        (0.76, 0.20, 0.18),  # red
        (0.22, 0.36, 0.72),  # blue
        (0.84, 0.68, 0.18),  # yellow
        (0.24, 0.54, 0.30),  # green
        (0.84, 0.46, 0.18),  # orange
        (0.52, 0.30, 0.58),  # violet
        (0.78, 0.78, 0.78),  # white
        (0.40, 0.42, 0.45),  # grey
        (0.36, 0.64, 0.72),  # cyan
    ),
}


@dataclass
class Canvas:
    """What is painted so far.

    Attributes:
        x: (H, W) float32, reference px from the middle of the image.
        y: (H, W) float32, reference px from its top.
        rgb: (H, W, 3) float32, about [0, 1].
        labels: (H, W) uint8.
        half_width: half the width of the image, reference px.
    """

    x: Field
    y: Field
    rgb: Field
    labels: NDArray[np.uint8]
    half_width: float

    def paint(self, mask: Mask, label: int, colour: Field, tone: Field) -> None:
        """Cover the N pixels of ``mask`` with (3,) or (N, 3) ``colour`` times 1 + (N,) ``tone``."""
        self.rgb[mask] = colour * (1 + tone[:, None])
        self.labels[mask] = label

    def shade(self, mask: Mask, gain: float) -> None:
        """Multiply the brightness of the pixels of ``mask``."""
        self.rgb[mask] *= np.float32(gain)


def blank_canvas(rng: np.random.Generator, height: int, width: int) -> Canvas:
    """Return an empty canvas with a slight camera roll."""
    unit = REFERENCE_HEIGHT / height
    rows = (np.arange(height, dtype=np.float32) + 0.5) * unit - REFERENCE_HEIGHT / 2
    columns = (np.arange(width, dtype=np.float32) + 0.5 - width / 2) * unit
    x, y = np.meshgrid(columns, rows)
    x, y = turned(x, y, np.clip(rng.normal(0.0, 0.05), -0.14, 0.14))
    return Canvas(
        x=x.astype(np.float32),
        y=(y + REFERENCE_HEIGHT / 2).astype(np.float32),
        rgb=np.zeros((height, width, 3), dtype=np.float32),
        labels=np.zeros((height, width), dtype=np.uint8),
        half_width=width * unit / 2,
    )


def develop(rng: np.random.Generator, canvas: Canvas) -> NDArray[np.uint8]:
    """Return the canvas as (H, W, 3) uint8: lens blur, sensor noise and a tone curve."""
    height, width = canvas.labels.shape
    blur_px = 0.45 * height / REFERENCE_HEIGHT
    rgb = ndimage.gaussian_filter(np.clip(canvas.rgb, 0.0, 1.1), (blur_px, blur_px, 0), truncate=2.5)
    rgb = np.clip(rgb, 0, 1) ** np.float32(rng.uniform(0.8, 1.25))
    rgb += np.float32(rng.uniform(0.003, 0.015)) * rng.standard_normal((height, width, 1), dtype=np.float32)
    return np.asarray(np.clip(255 * rgb + 0.5, 0, 255), dtype=np.uint8)


def draw_colour(rng: np.random.Generator, name: str) -> Field:
    """Draw a base colour of a class.

    Args:
        rng: the generator.
        name: a key of ``PALETTES``.

    Returns:
        (3,) float32 RGB in [0.08, 0.95]: an anchor, mixed with a second one and jittered, of mean brightness
        0.36 to 0.72, so that the textures of every class have room in the dark and in the light.
    """
    anchors = np.asarray(PALETTES[name], dtype=np.float32)
    first, second = anchors[rng.integers(len(anchors), size=2)]
    colour = first + rng.uniform(0.0, 0.35) * (second - first)
    colour = colour * np.exp(rng.normal(0.0, 0.14)) + rng.normal(0.0, 0.03, size=3)
    brightness = float(colour.mean())
    colour = colour * (np.clip(brightness, 0.36, 0.72) / brightness)
    return np.asarray(np.clip(colour, 0.08, 0.95), dtype=np.float32)


def noise(rng: np.random.Generator, u: Field, v: Field, soft: bool = False) -> Field:
    """Sample a random function that varies over a distance of 1 in ``u`` and ``v``.

    Args:
        rng: the generator; the draws do not depend on the number of points.
        u: (N,) or (H, W) coordinates along the columns of a lattice that repeats every 64.
        v: coordinates along its rows, of the same shape.
        soft: no creases at the lattice lines; needed where a cell is larger than some 10 pixels.

    Returns:
        float32 in [-1, 1], of the shape of ``u``.
    """
    lattice = rng.uniform(-1.0, 1.0, size=(_LATTICE, _LATTICE)).astype(np.float32)
    points = np.stack([v, u])
    if soft:
        whole = np.floor(points)
        part = points - whole
        points = whole + part * part * (3 - 2 * part)
    sampled = ndimage.map_coordinates(lattice, points, order=1, mode="grid-wrap", output=np.float32)
    return np.asarray(sampled, dtype=np.float32)


def turned(x: Field, y: Field, angle_rad: float) -> tuple[Field, Field]:
    """Return the points turned by an angle; hides the axes of a lattice, or tilts a pattern."""
    c, s = np.float32(np.cos(angle_rad)), np.float32(np.sin(angle_rad))
    return c * x + s * y, c * y - s * x


def receding(x: Field, y: Field, cell: float, growth: float) -> tuple[Field, Field]:
    """Return lattice coordinates of a plane that recedes towards y = 0.

    A cell is ``s = cell + growth * max(y, 0)`` wide and, because v is the integral of 1/s, also s high.

    Args:
        x: distance from the middle of the view, reference px.
        y: distance below the horizon, reference px.
        cell: size of a cell at the horizon, reference px.
        growth: growth of a cell per reference px; 0 is a plane seen from straight above.
    """
    if growth < 1e-4:
        return x / np.float32(cell), y / np.float32(cell)
    size = np.float32(cell) + np.float32(growth) * np.maximum(y, 0)
    return x / size, np.log(size / np.float32(cell)) / np.float32(growth)


def sky_tone(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Tone of the sky: nothing finer than soft clouds of some 50 reference px."""
    clouds = noise(rng, x / 44, y / 26, soft=True) + 0.5 * noise(rng, x / 22, y / 14, soft=True)
    gradient = np.float32(rng.uniform(-0.2, 0.2)) * (y / 64 - 1)
    return np.float32(rng.uniform(0.06, 0.24)) * clouds + gradient


def ground_tone(rng: np.random.Generator, x: Field, y: Field, growth: float) -> Field:
    """Tone of the ground: isotropic grain and dark pebbles, coarser towards the viewer."""
    u, v = receding(x, y, 1.5, growth)
    angle = rng.uniform(0.4, 1.2)
    grain = noise(rng, *turned(u, v, angle))
    pebbles = np.maximum(noise(rng, *turned(u / 1.6, v / 1.6, -angle)) - 0.25, 0)
    tone: Field = np.float32(0.34) * grain - np.float32(0.5) * pebbles + np.float32(0.05)
    return tone


def water_tone(rng: np.random.Generator, x: Field, y: Field, growth: float) -> Field:
    """Tone of water: ripples some five times as wide as they are high, with glitter on the crests."""
    u, v = receding(x, y, 1.9, growth)
    sway = np.float32(0.6) * noise(rng, u / 14, v / 6)
    long_wave = noise(rng, u / 9, v / 1.5 + sway)
    short_wave = noise(rng, u / 5, v + sway)
    ripples = np.tanh(np.float32(1.6) * (long_wave + 0.7 * short_wave))
    glitter = np.maximum(short_wave + 0.4 * long_wave - 0.45, 0)
    tone: Field = np.float32(0.34) * ripples + glitter - np.float32(0.06)
    return tone


def leaf_tone(rng: np.random.Generator, x: Field, y: Field, cell: float) -> Field:
    """Tone of foliage: blobs with deep gaps between them, and leaves on the blobs.

    Args:
        rng: the generator.
        x: points, reference px.
        y: points, reference px.
        cell: size of a blob, reference px.
    """
    angle = rng.uniform(0.3, 1.3)
    u, v = turned(x / np.float32(cell), y / np.float32(cell), angle)
    blobs = np.tanh(np.float32(3.0) * (noise(rng, u, v) + 0.4 * noise(rng, 2 * u, 2 * v)))
    leaves = noise(rng, 2.6 * u, 2.6 * v)
    return np.float32(0.52) * blobs + np.float32(0.22) * leaves


def window_tone(rng: np.random.Generator, a: Field, b: Field, pitch: tuple[float, float]) -> Field:
    """Tone of a facade: a regular grid of windows, each with a brightness of its own.

    Args:
        rng: the generator.
        a: distance from the left edge of the facade, reference px.
        b: distance from its top edge, reference px.
        pitch: distance from window to window along a and along b, reference px.
    """
    i, j = a / np.float32(pitch[0]), b / np.float32(pitch[1])
    width, height = rng.uniform(0.46, 0.6, size=2)
    inside = (np.abs(i % 1 - 0.5) < width / 2) & (np.abs(j % 1 - 0.5) < height / 2)
    panes = rng.uniform(-0.12, 0.12, size=(_LATTICE, _LATTICE)).astype(np.float32)
    pane = panes[np.floor(j).astype(int) % _LATTICE, np.floor(i).astype(int) % _LATTICE]
    sign = 1 if rng.random() < 0.25 else -1
    return np.where(inside, np.float32(0.66 * sign) + pane, np.float32(-0.18 * sign))


def stripe_mix(rng: np.random.Generator, x: Field, y: Field) -> Field:
    """Weight in [0, 1] of an object's second colour: slanted soft-edged bands, some 10 reference px apart."""
    angle = rng.choice((-1, 1)) * rng.uniform(0.6, 0.95)
    across, along = turned(x, y, angle)
    bend = np.float32(1.2) * np.sin(along / 9)
    wave = np.sin((across + bend) * np.float32(2 * np.pi / rng.uniform(8.5, 11.0)))
    mix: Field = np.float32(0.5) + np.float32(0.5) * np.tanh(3 * wave)
    return mix


def clump(rng: np.random.Generator, canvas: Canvas, centre: tuple[float, float], radius: float) -> Field:
    """Return the (H, W) level, above 0 inside, of a few discs about ``centre``."""
    # Overlapping discs give the lobes of a crown.
    level = np.full(canvas.x.shape, -1.0, dtype=np.float32)
    for _ in range(int(rng.integers(3, 7))):
        size = radius * rng.uniform(0.5, 0.9)
        dx, dy = rng.normal(0.0, 0.42 * radius, size=2)
        a = (canvas.x - np.float32(centre[0] + dx)) / np.float32(size)
        b = (canvas.y - np.float32(centre[1] + 0.7 * dy)) / np.float32(size)
        np.maximum(level, 1 - np.sqrt(a * a + b * b), out=level)
    return level


def _ball(a: Field, b: Field) -> Field:
    """A balloon with a basket."""
    basket = 1 - np.maximum(np.abs(a) / 0.26, np.abs(b - 1.1) / 0.2)
    balloon: Field = np.maximum(1 - np.sqrt(a * a + (b + 0.05) ** 2), 0.4 * basket)
    return balloon


def _kite(a: Field, b: Field) -> Field:
    """A kite."""
    return 1 - np.abs(a) / 0.75 - np.abs(b + 0.2 * np.abs(a))


def _car(a: Field, b: Field) -> Field:
    """A car from the side: body, cabin and wheels.

    Wheels and windows get levels so low that all of them counts as outline, and is dark.
    """
    body = 1 - (a**4 + ((b - 0.25) / 0.42) ** 4) ** 0.25
    cabin = 1 - (((a + 0.08) / 0.6) ** 4 + ((b + 0.25) / 0.5) ** 4) ** 0.25
    wheels = 1 - np.sqrt((np.abs(a) - 0.52) ** 2 + (b - 0.62) ** 2) / 0.26
    windows = (np.abs(b + 0.32) < 0.2) & (np.abs(np.abs(a + 0.08) - 0.24) < 0.18)
    car = np.where(wheels > 0, 0.04 * wheels, np.maximum(body, cabin))
    return np.where(windows, np.float32(0.01), car)


def _boat(a: Field, b: Field) -> Field:
    """A sailing boat: hull and sail."""
    hull = np.minimum(np.minimum(b - 0.45, 1.0 - b) * 2, (1.1 - 0.45 * b - np.abs(a)) * 1.2)
    sail = np.minimum((b + 1) * 0.55 - np.abs(a + 0.05), 0.47 - b)
    boat: Field = np.maximum(hull, sail)
    return boat


def _drum(a: Field, b: Field) -> Field:
    """A barrel, buoy or container."""
    return np.asarray(1 - (np.abs(a / 0.9) ** 5 + np.abs(b) ** 5) ** 0.2, dtype=np.float32)


def _sign(a: Field, b: Field) -> Field:
    """A round sign on a pole."""
    disc = 1 - np.sqrt(a * a + (b + 0.2) ** 2) / 0.8
    pole = 1 - np.maximum(np.abs(a) / 0.09, np.abs(b - 0.8) / 0.4)
    sign: Field = np.maximum(disc, 0.3 * pole)
    return sign


SILHOUETTES: dict[str, tuple[Callable[[Field, Field], Field], ...]] = {
    "air": (_ball, _ball, _kite),
    "ground": (_car, _car, _drum, _sign),
    "front": (_sign, _sign, _ball),
    "water": (_boat, _boat, _drum),
}
