"""How a photo becomes the pixels that a detector sees: black and white, proportions, tiles. Needs no torch."""

from __future__ import annotations

from typing import Literal, NamedTuple

MAX_PIXELS = 160_000_000
"""Largest photo decoded by default, in pixels: aerial cameras reach 151 MP. A 160 MP PNG takes 1.6 GB, RGBA 2.4 GB."""

Resize = Literal["stretch", "letterbox", "crop"]


class Tiles(NamedTuple):
    """The squares that a photo is cut into, each of which a network sees at its full input size.

    Attributes:
        rows: of tiles.
        columns: of tiles.
        overlap: share of a tile's side that neighbours have in common, in [0, 0.5].
    """

    rows: int = 1
    columns: int = 1
    overlap: float = 0.0

    @property
    def total(self) -> int:
        """Returns the number of tiles of a photo."""
        return self.rows * self.columns

    def measure_photo(self, side: int) -> tuple[int, int]:
        """Returns height and width in pixels of a photo whose tiles have this side; a square without tiles."""
        step = self._measure_step(side)
        return side + (self.rows - 1) * step, side + (self.columns - 1) * step

    def list_corners(self, side: int) -> list[tuple[int, int]]:
        """Lists row and column, in pixels, of each tile's upper left corner, row by row."""
        step = self._measure_step(side)
        return [(row * step, column * step) for row in range(self.rows) for column in range(self.columns)]

    def _measure_step(self, side: int) -> int:
        return round(side * (1 - self.overlap))


WHOLE = Tiles()
"""The photo as one tile."""


def parse_tiles(text: str, overlap: float) -> Tiles:
    """Parses ``2x3``, rows x columns; one tile overlaps nothing."""
    rows, columns = (int(number) for number in text.split("x"))
    return Tiles(rows, columns, overlap) if rows * columns > 1 else WHOLE


class PixelRules(NamedTuple):
    """How photos become what a detector sees; training and scoring share it.

    Attributes:
        black: sample value that is shown as black; None where the file's own declaration holds.
        white: the same of white.
        resize: what becomes of a photo of other proportions.
        tiles: that it is cut into; a decoded photo has the pixels of all of them, see `Tiles.measure_photo`.
    """

    black: float | None = None
    white: float | None = None
    resize: Resize = "stretch"
    tiles: Tiles = WHOLE


DEFAULT_RULES = PixelRules()
