"""Command: a contact sheet of the synthetic defects that attention learns from, on drawn photos or on yours.

``python -m jobs.pretext_sheet --photos URI --output sheet.png``: look at it before a training with
``attention_training: pretext``. Defects that could never happen to the asset teach attention little about it.
"""

from __future__ import annotations

import io
from collections.abc import Sequence

from pydantic import Field

from jobs import storage
from jobs.cli import parse_config, run_command
from jobs.config import JobConfig, Uri
from jobs.errors import EXIT_DONE
from model.config import PretextConfig


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
    # Imported once the request is right: torch takes 2 s of CPU, --help and a typo take 0.3 s.
    from jobs.synthetic.defect_sheet import draw_photos, draw_sheet, read_photos

    if config.photos is None:
        images = draw_photos(config.count, size_px=config.size, seed=config.seed)
    else:
        images = read_photos(config.photos, count=config.count, size_px=config.size)
    buffer = io.BytesIO()
    draw_sheet(images, pretext=config.pretext, seed=config.seed).save(buffer, "PNG", optimize=True)
    storage.write(config.output, buffer.getvalue())
    print(f"{len(images)} photos with every kind of synthetic defect: {config.output}")
    return EXIT_DONE


if __name__ == "__main__":
    run_command(main)
