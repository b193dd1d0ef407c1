"""Command: a contact sheet of the synthetic defects that attention learns from, on drawn photos or on yours.

``python -m jobs.pretext_sheet --photos URI --output sheet.png``: look at it before a training with
``attention_training: pretext``. Defects that could never happen to the asset teach attention little about it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from pydantic import Field

from jobs import storage
from jobs.cli import parse_config, run_command
from jobs.config import JobConfig, Uri
from jobs.errors import EXIT_DONE, RequestError
from jobs.synthetic.photo import draw_photo
from model.config import PretextConfig
from model.image import ImageError, decode_image
from model.training.synthetic_defects import DEFECT_KINDS, draw_defect, draw_defects

_CAPTION_PX = 16
_SHARE = 0.03


class PretextSheetConfig(JobConfig):
    """Draw every kind of synthetic defect into a few flawless photos, side by side in one PNG."""

    output: Uri = Field(description="PNG file to write")
    photos: Uri | None = Field(None, description="folder of flawless photos; default: drawn ones")
    count: int = Field(3, ge=1, le=50, description="photos, a row each")
    size: int = Field(160, ge=64, le=1024, description="side in pixels of a picture")
    seed: int = Field(0, ge=0, description="decides the defects")
    pretext: PretextConfig = Field(default_factory=PretextConfig, description="settings of the last column")


def main(argv: Sequence[str]) -> int:
    """Draws the sheet."""
    config = parse_config(PretextSheetConfig, argv, prog="python -m jobs.pretext_sheet")
    images = _images(config)
    rng = np.random.default_rng(config.seed)
    rows = [_row(config, image, images[(number + 1) % len(images)], rng) for number, image in enumerate(images)]
    captions = ["flawless", *DEFECT_KINDS, f"as in training: {config.pretext.defects}"]
    sheet = Image.new("RGB", (config.size * len(captions), config.size * len(rows) + _CAPTION_PX), "white")
    for column, caption in enumerate(captions):
        ImageDraw.Draw(sheet).text((column * config.size + 3, 2), caption, fill="black")
    pixels = torch.cat(rows, dim=1).permute(1, 2, 0).numpy()
    sheet.paste(Image.fromarray(pixels), (0, _CAPTION_PX))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    storage.write(config.output, buffer.getvalue())
    print(f"{len(rows)} photos, {len(DEFECT_KINDS)} kinds of defect: {config.output}")
    return EXIT_DONE


def _row(
    config: PretextSheetConfig, image: torch.Tensor, donor: torch.Tensor, rng: np.random.Generator
) -> torch.Tensor:
    """One photo in every state, (3, S, columns * S)."""
    one_each = [draw_defect(image, kind, donor=donor, rng=rng, share=_SHARE) for kind in DEFECT_KINDS]
    several = draw_defects(image, donor=donor, rng=rng, defects=config.pretext.defects, area=config.pretext.area)
    return torch.cat([image, *one_each, several], dim=2)


def _images(config: PretextSheetConfig) -> list[torch.Tensor]:
    if config.photos is None:
        rng = np.random.default_rng(config.seed)
        drawn = [draw_photo(rng, size_px=config.size, defect="good") for _ in range(config.count)]
        return [torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous() for photo in drawn]
    found = []
    for info in storage.list_objects(config.photos):
        try:
            found.append(decode_image(storage.read(info.uri), size=config.size))
        except ImageError as error:
            print(f"warning: left out {info.uri}: {error}")
        if len(found) == config.count:
            break
    if not found:
        raise RequestError(f"expected photos in {config.photos}, found none that can be read")
    return found


if __name__ == "__main__":
    run_command(main)
