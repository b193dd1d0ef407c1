"""Draws a contact sheet of the synthetic defects that attention learns from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from jobs import storage
from jobs.errors import RequestError
from jobs.synthetic.photo import draw_photo
from jobs.tables.text import make_printable
from model.config import PretextConfig
from model.image import ImageError, decode_image
from model.training.synthetic_defects import DEFECT_KINDS, draw_defect, draw_defects

_CAPTION_PX = 16
_SHARE = 0.03


def draw_sheet(images: Sequence[torch.Tensor], *, pretext: PretextConfig, seed: int) -> Image.Image:
    """Draws each photo flawless, with every kind of defect alone, and with defects as in training, a row each.

    Args:
        images: photos, uint8 (3, S, S); each lends its pixels to the one before it.
        pretext: settings of the last column.
        seed: decides the defects.
    """
    rng = np.random.default_rng(seed)
    rows = [
        draw_row(image, images[(number + 1) % len(images)], pretext=pretext, rng=rng)
        for number, image in enumerate(images)
    ]
    size_px, captions = images[0].shape[-1], ["flawless", *DEFECT_KINDS, f"as in training: {pretext.defects}"]
    sheet = Image.new("RGB", (size_px * len(captions), size_px * len(rows) + _CAPTION_PX), "white")
    for column, caption in enumerate(captions):
        ImageDraw.Draw(sheet).text((column * size_px + 3, 2), caption, fill="black")
    pixels = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    sheet.paste(Image.fromarray(pixels), (0, _CAPTION_PX))
    return sheet


def draw_row(
    image: torch.Tensor, donor: torch.Tensor, *, pretext: PretextConfig, rng: np.random.Generator
) -> torch.Tensor:
    """Draws one photo in every state, side by side: uint8 (3, S, columns * S)."""
    one_each = [draw_defect(image, kind, donor=donor, rng=rng, share=_SHARE) for kind in DEFECT_KINDS]
    several = draw_defects(image, donor=donor, rng=rng, defects=pretext.defects, area=pretext.area)
    return torch.cat([image, *one_each, several], dim=2)


def draw_photos(count: int, *, size_px: int, seed: int) -> list[torch.Tensor]:
    """Draws flawless photos, uint8 (3, S, S)."""
    rng = np.random.default_rng(seed)
    photos = [draw_photo(rng, size_px=size_px, defect="good") for _ in range(count)]
    return [torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous() for photo in photos]


def read_photos(folder: str, *, count: int, size_px: int) -> list[torch.Tensor]:
    """Reads the first photos below a URI that can be read, uint8 (3, S, S).

    Raises:
        RequestError: there is none.
    """
    found = []
    for info in storage.list_objects(folder):
        try:
            found.append(decode_image(storage.read(info.uri), size=size_px))
        except ImageError as error:
            print(f"warning: left out {make_printable(info.uri)}: {make_printable(str(error))}")
        if len(found) == count:
            break
    if not found:
        raise RequestError(f"expected photos in {folder}, found none that can be read")
    return found
