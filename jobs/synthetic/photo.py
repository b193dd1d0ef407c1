"""Procedural photos of power-line insulators: flawless, with a missing cap, or rusty.

Nothing here comes from a real photo, so the demo and the tests need no download and no licence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Defect = Literal["good", "missing_cap", "rust"]
Colour = tuple[int, int, int]
Floats = NDArray[np.float64]

_OVERSAMPLING = 2
_STEEL: Colour = (104, 110, 116)
_CLEAR_SKY = np.array([(128, 160, 198), (198, 212, 224)], dtype=np.float64)
_OVERCAST_SKY = np.array([(142, 166, 194), (206, 216, 222)], dtype=np.float64)
_MEADOW = np.array([(82, 102, 66)], dtype=np.float64)
_DRY_GRASS = np.array([(94, 107, 70)], dtype=np.float64)
_GLASS: Colour = (84, 136, 124)


@dataclass(frozen=True)
class InsulatorString:
    """Where the string of caps lies on a canvas of side 1, and how bright its glass is."""

    start: Floats
    """(2,) tower end, x and y as fractions of the side."""
    along: Floats
    """(2,) from one cap to the next, as fractions of the side."""
    caps: int
    radius: float
    """half a disc's height, as a fraction of the side."""
    tint: float
    """brightness of the glass, about 1."""

    def point(self, cap: float) -> tuple[float, float]:
        """Returns the place on the axis, ``cap`` pitches from the first cap."""
        x, y = self.start + cap * self.along
        return float(x), float(y)

    def ellipse(self, cap: float, *, width: float, height: float, across: float = 0.0) -> list[tuple[float, float]]:
        """Returns a polygon of 40 points about the place ``cap`` pitches along and ``across`` radii beside the axis.

        Args:
            cap: place along the axis, in pitches from the first cap.
            width: half axis along the string, in pitches.
            height: half axis across the string, in radii.
            across: distance from the axis, in radii.
        """
        turns = np.linspace(0, 2 * np.pi, 40, endpoint=False)[:, None]
        beside = self.radius * np.array([-self.along[1], self.along[0]]) / np.linalg.norm(self.along)
        points = self.start + (cap + width * np.cos(turns)) * self.along + (across + height * np.sin(turns)) * beside
        return [(x, y) for x, y in points.tolist()]


class Canvas:
    """A square canvas of side 1 to draw on with fractions instead of pixels; colours may carry an alpha."""

    def __init__(self, image: Image.Image) -> None:
        """Draws onto ``image``, which must be square."""
        self.side_px = image.width
        self._draw = ImageDraw.Draw(image, "RGBA")

    def line(self, points: list[tuple[float, float]], *, color: tuple[int, ...], width: float) -> None:
        """Draws a line through ``points``; its width is a fraction of the side."""
        width_px = max(1, round(width * self.side_px))
        self._draw.line(self._scale_points(points), fill=color, width=width_px, joint="curve")

    def polygon(self, points: list[tuple[float, float]], *, color: tuple[int, ...]) -> None:
        """Fills the polygon of these corners."""
        self._draw.polygon(self._scale_points(points), fill=color)

    def _scale_points(self, points: list[tuple[float, float]]) -> list[tuple[float, float]]:
        return [(x * self.side_px, y * self.side_px) for x, y in points]


def draw_photo(rng: np.random.Generator, *, size_px: int, defect: Defect) -> Image.Image:
    """Draws one inspection photo: a string of 7 to 11 glass caps between a tower and its conductor.

    Scene, string, defect and camera draw from four generators spawned from ``rng``, so generators in the same state
    give the same photo but for the defect.

    Args:
        rng: source of everything random; each call spawns from it, so calls in turn give different photos.
        size_px: side of the square RGB photo in pixels.
        defect: ``good``; ``missing_cap``, one disc away from both ends is gone and the bare rod shows; ``rust``,
            irregular brown stains on one to three caps.

    Raises:
        ValueError: another defect.
    """
    if defect not in get_args(Defect):
        raise ValueError(f"defect must be one of {', '.join(get_args(Defect))}, got {defect!r}")
    scene_rng, string_rng, defect_rng, camera_rng = rng.spawn(4)
    drawn_px = size_px * _OVERSAMPLING
    image = draw_background(scene_rng, side_px=size_px).resize((drawn_px, drawn_px), Image.Resampling.BILINEAR)
    canvas = Canvas(image)
    string = place_string(string_rng)
    draw_tower_and_wires(canvas, string, rng=scene_rng)
    missing = int(defect_rng.integers(2, string.caps - 2)) if defect == "missing_cap" else None
    draw_string(canvas, string, missing=missing)
    if defect == "rust":
        draw_rust(canvas, string, rng=defect_rng)
    return take_photo(image, size_px=size_px, rng=camera_rng)


def draw_texture(rng: np.random.Generator, *, side_px: int, cells: int) -> Floats:
    """Returns smooth noise, (side_px, side_px), about -1 to 1, with ``cells`` bumps along a side."""
    grid = Image.fromarray(rng.uniform(-1, 1, (cells, cells)).astype(np.float32))
    return np.asarray(grid.resize((side_px, side_px), Image.Resampling.BICUBIC), dtype=np.float64)


def draw_background(rng: np.random.Generator, *, side_px: int) -> Image.Image:
    """Draws a sky that fades to the horizon, a wooded ridge and textured vegetation below it."""
    haze, dryness = rng.uniform(0, 1, 2)
    top, low = mix_colors(_CLEAR_SKY, _OVERCAST_SKY, haze)
    (land,) = mix_colors(_MEADOW, _DRY_GRASS, dryness)
    rows = np.linspace(0, 1, side_px)[:, None]
    sky = top + (low - top) * rows[..., None] + 4 * draw_texture(rng, side_px=side_px, cells=5)[..., None]
    leaves = sum(
        weight * draw_texture(rng, side_px=side_px, cells=cells) for weight, cells in ((8, 7), (10, 24), (14, 80))
    )
    vegetation = land * (1.15 - 0.35 * rows[..., None]) + np.asarray(leaves)[..., None]
    ridge = (
        0.015 * draw_texture(rng, side_px=side_px, cells=4)[:1]
        + 0.008 * draw_texture(rng, side_px=side_px, cells=60)[:1]
    )
    below = np.clip((rows - rng.uniform(0.81, 0.83) - ridge) * 60, 0, 1)[..., None]
    return Image.fromarray((sky + (vegetation - sky) * below).clip(0, 255).astype(np.uint8))


def mix_colors(first: Floats, second: Floats, share: float) -> Floats:
    """Returns the colours (n, 3) between ``first`` and ``second``, both (n, 3)."""
    return first + share * (second - first)


def place_string(rng: np.random.Generator) -> InsulatorString:
    """Draws at random where a string hangs, how many caps it has and how it is tinted."""
    caps = int(rng.integers(7, 12))
    angle = np.deg2rad(rng.uniform(-4, 4))
    pitch = rng.uniform(0.69, 0.7) / caps
    along = pitch * np.array([np.cos(angle), np.sin(angle)])
    middle = np.array([0.54, 0.46]) + rng.uniform(-0.012, 0.012, 2)
    return InsulatorString(
        start=middle - along * (caps - 1) / 2,
        along=along,
        caps=caps,
        radius=float(rng.uniform(0.144, 0.147)),
        tint=float(rng.uniform(0.98, 1.02)),
    )


def draw_tower_and_wires(canvas: Canvas, string: InsulatorString, *, rng: np.random.Generator) -> None:
    """Draws a lattice mast on the left, two far wires, and the conductor that leaves the string to the right."""
    xs = np.linspace(0, 1, 30)
    for height in rng.uniform(0.1, 0.22, 2):
        sag = height - 0.12 * (xs - 0.5) ** 2 + 0.04 * xs
        canvas.line(list(zip(xs.tolist(), sag.tolist(), strict=True)), color=(70, 74, 80), width=0.004)
    left, right, bays = 0.005, rng.uniform(0.08, 0.09), 7
    for bay in range(bays):
        above, below = bay / bays, (bay + 1) / bays
        canvas.line([(left, above), (right, below)], color=(92, 97, 102), width=0.007)
        canvas.line([(right, above), (left, below)], color=(124, 129, 134), width=0.007)
        canvas.line([(left, below), (right, below)], color=(92, 97, 102), width=0.006)
    for leg in (left, right):
        canvas.line([(leg, 0), (leg, 1)], color=_STEEL, width=0.016)
        canvas.line([(leg + 0.004, 0), (leg + 0.004, 1)], color=(150, 154, 158), width=0.004)
    (start_x, start_y), (end_x, end_y) = string.point(-1.1), string.point(string.caps + 0.1)
    canvas.line([(right, start_y - 0.02), (start_x, start_y)], color=_STEEL, width=0.014)
    canvas.line([(end_x, end_y), (1.0, end_y + 0.5 * (1 - end_x))], color=(72, 76, 82), width=0.011)


def draw_string(canvas: Canvas, string: InsulatorString, *, missing: int | None) -> None:
    """Draws the rod with its end clamps, then each cap but the ``missing`` one."""
    rod = [string.point(-1.1), string.point(string.caps + 0.1)]
    canvas.line(rod, color=(78, 82, 88), width=0.016)
    canvas.line(rod, color=(140, 144, 148), width=0.004)
    for clamp in (-1.1, string.caps + 0.1):
        canvas.polygon(string.ellipse(clamp, width=0.28, height=0.34), color=_STEEL)
    for cap in range(string.caps):
        if cap != missing:
            draw_cap(canvas, string, cap=cap)


def draw_cap(canvas: Canvas, string: InsulatorString, *, cap: int) -> None:
    """Draws a metal socket behind a ribbed, shaded disc with a highlight."""
    canvas.polygon(string.ellipse(cap - 0.3, width=0.3, height=0.34), color=(84, 88, 92))
    canvas.polygon(string.ellipse(cap - 0.34, width=0.12, height=0.2), color=(150, 154, 158))
    for width, height, gain in ((0.34, 1.0, 0.5), (0.3, 0.95, 0.86), (0.2, 0.78, 0.7), (0.17, 0.72, 1.0)):
        color = (*(round(part * gain * string.tint) for part in _GLASS), 245)
        canvas.polygon(string.ellipse(cap, width=width, height=height), color=color)
    highlight = string.ellipse(cap + 0.06, width=0.07, height=0.26, across=-0.5)
    canvas.polygon(highlight, color=(236, 244, 242, 190))


def draw_rust(canvas: Canvas, string: InsulatorString, *, rng: np.random.Generator) -> None:
    """Stains one to three neighbouring caps with translucent brown blots, darker where they overlap."""
    stained = int(rng.integers(1, 4))
    first = int(rng.integers(0, string.caps - stained + 1))
    for cap in range(first, first + stained):
        middle = rng.uniform(-0.4, 0.4)
        for _ in range(16):
            brown = (int(rng.integers(98, 142)), int(rng.integers(48, 74)), int(rng.integers(20, 40)), 150)
            across = float(np.clip(middle + rng.normal(0, 0.3), -0.75, 0.75))
            size = rng.uniform(0.08, 0.26) * (1 - across**2)
            room = max(0.0, 0.34 * np.sqrt(1 - across**2) - 0.8 * size)
            place = cap + rng.uniform(-room, room)
            blot = string.ellipse(place, width=0.8 * size, height=size, across=across)
            canvas.polygon(blot, color=brown)


def take_photo(image: Image.Image, *, size_px: int, rng: np.random.Generator) -> Image.Image:
    """Returns what a camera sees: sun from one side, exposure, slight defocus and sensor noise."""
    sharp = image.resize((size_px, size_px), Image.Resampling.LANCZOS)
    blurred = sharp.filter(ImageFilter.GaussianBlur(size_px / 512 * rng.uniform(0.4, 1.0)))
    across, down = np.meshgrid(np.linspace(-1, 1, size_px), np.linspace(-1, 1, size_px))
    sun = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(0.98, 1.02) * (1 + 0.05 * (across * np.cos(sun) + down * np.sin(sun)))
    noise = rng.normal(0, 2.5, (size_px, size_px, 3))
    return Image.fromarray((np.asarray(blurred) * light[..., None] + noise).clip(0, 255).astype(np.uint8))
