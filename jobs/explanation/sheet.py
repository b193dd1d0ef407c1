"""One picture of several photos and their maps, a row a photo: what `jobs.explain` writes."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageFont

from jobs.explanation.drawing import draw_overlay, mark_photo
from jobs.tables.text import make_printable
from model.localization.explaining import GRADCAM, GRADCAM_WITHOUT, POSITIONS, Map, scale_map
from model.localization.places import Place

_MARGIN_PX = 8
_TITLE_PX = 20
_FONT_PX = 13
_LETTER_PX = 7
"""About the width of a letter: reasons are wrapped by it."""
_SHORTENED = "..."


@dataclass(frozen=True)
class ExplainedPhoto:
    """A row of the picture.

    Attributes:
        key: of the photo.
        said: what is known of it, such as p-value and score; or why nothing is.
        photo: as people see it; None where it could not be read.
        maps: by name, as `explain_photos` gives them.
        place: where it deviates most.
    """

    key: str
    said: str
    photo: Image.Image | None = None
    maps: Mapping[str, Map] = field(default_factory=dict)
    place: Place | None = None


def draw_sheet(rows: Sequence[ExplainedPhoto], *, panel_px: int) -> bytes:
    """Draws rows of photos, maps and titles below each other; returns a PNG.

    Args:
        rows: at least one.
        panel_px: longer side in pixels of each photo.
    """
    names = [name for name in (POSITIONS, GRADCAM, GRADCAM_WITHOUT) if any(name in row.maps for row in rows)]
    width = _MARGIN_PX + (1 + len(names)) * (panel_px + _MARGIN_PX)
    strips = [draw_headings(names, width=width, panel_px=panel_px)]
    strips += [draw_row(row, names, width=width, panel_px=panel_px) for row in rows]
    sheet = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        sheet.paste(strip, (0, top))
        top += strip.height
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_headings(names: Sequence[str], *, width: int, panel_px: int) -> Image.Image:
    """Draws what each column shows."""
    both = GRADCAM_WITHOUT in names
    said = {
        POSITIONS: "deviation of positions",
        GRADCAM: "Grad-CAM of the score, attention on" if both else "Grad-CAM of the score",
        GRADCAM_WITHOUT: "Grad-CAM, attention off",
    }
    strip = Image.new("RGB", (width, _TITLE_PX + _MARGIN_PX), "white")
    for column, heading in enumerate(["photo", *(said[name] for name in names)]):
        place = (_MARGIN_PX + column * (panel_px + _MARGIN_PX), _MARGIN_PX)
        ImageDraw.Draw(strip).text(place, shorten(heading, room_px=panel_px), fill="black", font=make_font())
    return strip


def draw_row(row: ExplainedPhoto, names: Sequence[str], *, width: int, panel_px: int) -> Image.Image:
    """Draws one photo with its maps below its title; or, of a photo that could not be read, the reason."""
    room_px = width - 2 * _MARGIN_PX
    said = make_printable(row.said)
    if row.photo is None:
        lines = textwrap.wrap(said, room_px // _LETTER_PX) or [""]
        panels: list[Image.Image | None] = []
    else:
        lines, panels = [said], draw_panels(row, row.photo, names)
    titles = [shorten(row.key, room_px=room_px), *lines]
    height = len(titles) * _TITLE_PX + max((one.height for one in panels if one is not None), default=0)
    strip = Image.new("RGB", (width, height + 2 * _MARGIN_PX), "white")
    draw = ImageDraw.Draw(strip)
    for number, line in enumerate(titles):
        place = (_MARGIN_PX, _MARGIN_PX // 2 + number * _TITLE_PX)
        draw.text(place, line, fill="black" if number == 0 else "dimgrey", font=make_font())
    for column, panel in enumerate(panels):
        if panel is not None:
            strip.paste(panel, (_MARGIN_PX + column * (panel_px + _MARGIN_PX), len(titles) * _TITLE_PX + _MARGIN_PX))
    return strip


def draw_panels(row: ExplainedPhoto, photo: Image.Image, names: Sequence[str]) -> list[Image.Image | None]:
    """Draws the photo with its place, and each map over it; None for a map that this photo does not have."""
    panels: list[Image.Image | None] = [mark_photo(photo, row.place)]
    for name in names:
        values = row.maps.get(name)
        panels.append(None if values is None else draw_overlay(photo, scale_map(values, name)))
    if POSITIONS in row.maps and (panel := panels[1 + list(names).index(POSITIONS)]) is not None:
        panels[1 + list(names).index(POSITIONS)] = mark_photo(panel, row.place)
    return panels


def shorten(text: str, *, room_px: int) -> str:
    """Returns text that can be drawn on one line: control characters escaped, its beginning left out if it is long."""
    font, shown = make_font(), make_printable(text)
    if font.getlength(shown) <= room_px:
        return shown
    # The end of a key names the photo. No letter is narrower than 2 pixels, so that a key of a kilobyte is soon cut.
    shown = shown[-(room_px // 2) :]
    while shown and font.getlength(_SHORTENED + shown) > room_px:
        shown = shown[1:]
    return _SHORTENED + shown


def make_font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Returns Pillow's own font: no font of the machine is needed."""
    return ImageFont.load_default(size=_FONT_PX)
