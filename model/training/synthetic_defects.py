"""Synthetic defects: a flawless photo with something wrong drawn into it, for attention to learn from.

Kinds: a patch from elsewhere (CutPaste, arXiv 2104.04015), a scar (the same), a texture in a cloudy mask (DRAEM's
Perlin masks, arXiv 2108.07610), a part that is gone, a blurred part, and a rust-like tint.

They teach what deviations look like in feature space. They are no judge: AUROC on them hardly predicts AUROC on real
defects (rank correlation 0.22 over the 145 trainings of infra/decisions/0001), so presets are not chosen by it.

All of it is numpy and Pillow on the CPU, seeded by the generator given.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageFilter
from torch import Tensor

Photo = npt.NDArray[np.floating]
"""(S, S, 3), 0..255."""
Mask = npt.NDArray[np.floating]
"""(S, S, 1), 0..1, soft at its edge."""

_GREY_SPREAD = 8.0
"""A photo whose channels differ by less is grey: a coloured defect in it would be found by its colour alone."""

Painter = Callable[[Photo, Mask, Photo, np.random.Generator], Photo]


def draw_defects(
    image: Tensor,
    *,
    donor: Tensor,
    rng: np.random.Generator,
    defects: int,
    area: tuple[float, float],
) -> Tensor:
    """Draws ``defects`` synthetic defects of random kinds into a photo.

    Args:
        image: uint8 (3, S, S) RGB, flawless; left as it is.
        donor: uint8 (3, S, S), any photo that patches are cut from, the same one included.
        rng: decides everything.
        defects: how many, >= 1.
        area: smallest and largest share of the photo that one covers, drawn log-uniformly.

    Returns:
        uint8 (3, S, S).
    """
    photo, other = _to_photo(image), _to_photo(donor)
    for kind in rng.choice(list(DEFECT_KINDS), size=defects):
        photo = _paint_defect(photo, other, str(kind), rng, share=float(np.exp(rng.uniform(*np.log(area)))))
    return _to_image(photo)


def draw_defect(image: Tensor, kind: str, *, donor: Tensor, rng: np.random.Generator, share: float) -> Tensor:
    """Draws one defect of ``kind``, one of DEFECT_KINDS, on about ``share`` of the photo; see `draw_defects`."""
    return _to_image(_paint_defect(_to_photo(image), _to_photo(donor), kind, rng, share=share))


def _paint_defect(photo: Photo, donor: Photo, kind: str, rng: np.random.Generator, *, share: float) -> Photo:
    size = photo.shape[0]
    mask = make_scar_mask(size, share, rng) if kind == "scar" else make_blob_mask(size, share, rng)
    painted = DEFECT_KINDS[kind](photo, mask, donor, rng)
    if np.ptp(photo, axis=2).max() < _GREY_SPREAD:
        painted = np.repeat(painted.mean(2, keepdims=True), 3, axis=2)
    return np.asarray(photo + mask * (np.clip(painted, 0, 255) - photo), dtype=np.float32)


def paint_patch(photo: Photo, mask: Mask, donor: Photo, rng: np.random.Generator) -> Photo:
    """Paints the donor, moved by at least an eighth of the side and slightly lighter or darker."""
    size = photo.shape[0]
    down, right = rng.integers(size // 8, size - size // 8, size=2)
    return np.asarray(np.roll(donor, (down, right), axis=(0, 1)) * rng.uniform(0.75, 1.25), dtype=np.float32)


def paint_texture(photo: Photo, mask: Mask, donor: Photo, rng: np.random.Generator) -> Photo:
    """Paints cloudy noise between two colours, fine or coarse."""
    low, high = rng.uniform(0, 255, (2, 1, 1, 3)).astype(np.float32)
    noise = make_clouds(photo.shape[0], rng, cells=int(2 ** rng.integers(3, 7)))
    return np.asarray(low + (high - low) * noise)


def paint_stroke(photo: Photo, mask: Mask, donor: Photo, rng: np.random.Generator) -> Photo:
    """Paints dark or light, as a scratch or a crack is."""
    return photo * 0.2 if rng.random() < 0.6 else 255 - (255 - photo) * 0.3


def paint_background(photo: Photo, mask: Mask, donor: Photo, rng: np.random.Generator) -> Photo:
    """Paints what the surroundings would fill in: the mean of what is outside the mask, weighted by distance."""
    radius = 2.0 * float(np.sqrt(mask.sum() / np.pi)) + 2
    outside = 1 - mask
    return blur(photo * outside, radius) / np.maximum(blur(255 * outside, radius) / 255, 1e-2)


def paint_blur(photo: Photo, mask: Mask, donor: Photo, rng: np.random.Generator) -> Photo:
    """Blurs as a lens out of focus does."""
    return blur(photo, photo.shape[0] * float(rng.uniform(0.01, 0.03)))


def paint_rust(photo: Photo, mask: Mask, donor: Photo, rng: np.random.Generator) -> Photo:
    """Paints a brownish stain that lets the photo's light and dark through."""
    stain = np.array([rng.uniform(90, 170), rng.uniform(45, 90), rng.uniform(10, 50)], dtype=np.float32)
    light = photo.mean(2, keepdims=True) / 128
    patchy = 0.4 + 0.6 * make_clouds(photo.shape[0], rng, cells=32)
    return np.asarray(photo + patchy * (stain * light - photo))


DEFECT_KINDS: dict[str, Painter] = {
    "patch": paint_patch,
    "scar": paint_stroke,
    "texture": paint_texture,
    "gone": paint_background,
    "blur": paint_blur,
    "rust": paint_rust,
}
"""Kind -> what it paints inside its mask."""


def make_blob_mask(size: int, share: float, rng: np.random.Generator) -> Mask:
    """Makes a cloudy region around a random point that covers ``share`` of the photo, and at least four pixels."""
    centre = rng.uniform(0.1, 0.9, 2) * size
    rows, columns = np.ogrid[:size, :size]
    stretch, turn = rng.uniform(0.5, 1.0), rng.uniform(0, np.pi)
    along = np.cos(turn) * (rows - centre[0]) + np.sin(turn) * (columns - centre[1])
    across = np.cos(turn) * (columns - centre[1]) - np.sin(turn) * (rows - centre[0])
    radius = np.sqrt(share * size * size / np.pi)
    nearness = -np.hypot(along, across / stretch) / max(radius, 1.0)
    field = nearness + 1.2 * make_clouds(size, rng, cells=max(4, int(size / max(radius, 2.0))))[..., 0]
    count = max(4, round(share * size * size))
    level = np.partition(field.ravel(), -count)[-count]
    return blur(255 * (field >= level)[..., None], 0.7) / 255


def make_scar_mask(size: int, share: float, rng: np.random.Generator) -> Mask:
    """Makes a bent line; a larger share makes it longer, then wider."""
    length = size * float(rng.uniform(0.15, 0.6))
    width = int(np.clip(round(share * size * size / length), 1, max(1, size // 24)))
    turns = np.cumsum(rng.normal(0, 0.5, 8)) + rng.uniform(0, 2 * np.pi)
    steps = length / 8 * np.stack([np.cos(turns), np.sin(turns)], 1)
    points = rng.uniform(0.2, 0.8, 2) * size + np.cumsum(steps, axis=0)
    canvas = Image.new("L", (size, size))
    ImageDraw.Draw(canvas).line([tuple(point) for point in points.tolist()], fill=255, width=width, joint="curve")
    return blur(np.asarray(canvas, dtype=np.float32)[..., None], 0.5) / 255


def make_clouds(size: int, rng: np.random.Generator, *, cells: int) -> Photo:
    """Makes smooth noise (S, S, 1) in 0..1: random lattices of ``cells`` a side and twice that, enlarged."""
    field = sum(_make_lattice(size, rng, cells=min(cells * 2**octave, size)) / 2**octave for octave in range(2))
    low, high = float(np.min(field)), float(np.max(field))
    return np.asarray((field - low) / max(high - low, 1e-6), dtype=np.float32)[..., None]


def _make_lattice(size: int, rng: np.random.Generator, *, cells: int) -> npt.NDArray[np.float32]:
    values = Image.fromarray(rng.random((cells, cells), dtype=np.float32))
    return np.asarray(values.resize((size, size), Image.Resampling.BICUBIC))


def blur(photo: Photo, radius: float) -> Photo:
    """Blurs (S, S, 1 or 3) by a Gaussian of ``radius`` pixels, to 8 bits: Pillow is 20 times faster than numpy."""
    levels = np.clip(np.rint(photo), 0, 255).astype(np.uint8).squeeze()
    blurred = Image.fromarray(levels).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(blurred, dtype=np.float32).reshape(photo.shape)


def _to_photo(image: Tensor) -> Photo:
    return image.permute(1, 2, 0).numpy().astype(np.float32)


def _to_image(photo: Photo) -> Tensor:
    return torch.from_numpy(np.clip(np.rint(photo), 0, 255).astype(np.uint8)).permute(2, 0, 1).contiguous()
