"""Synthetic defects: seeded, of the size asked for, and a change to nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from jobs import pretext_sheet
from jobs.errors import RequestError
from model.training.synthetic_defects import DEFECT_KINDS, draw_defect, draw_defects
from tests.support.training import draw_photos

_PHOTO, _DONOR = draw_photos(2)


def _draw(kind: str, *, seed: int, share: float = 0.03, photo: Tensor = _PHOTO) -> Tensor:
    return draw_defect(photo, kind, donor=_DONOR, rng=np.random.default_rng(seed), share=share)


def _measure_change(one: Tensor, other: Tensor) -> float:
    """Share of pixels that differ by more than the rounding of 8 bits."""
    return float(((one.int() - other.int()).abs().amax(0) > 2).float().mean())


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_a_defect_is_seeded(kind: str) -> None:
    assert torch.equal(_draw(kind, seed=3), _draw(kind, seed=3))
    assert not torch.equal(_draw(kind, seed=3), _draw(kind, seed=4))


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_a_defect_changes_a_part_of_the_photo_and_leaves_the_original(kind: str) -> None:
    before = _PHOTO.clone()
    shares = [_measure_change(_PHOTO, _draw(kind, seed=seed)) for seed in range(20)]
    assert torch.equal(before, _PHOTO)
    # Drawn on 3 % of the photo; the soft edge of a mask of some 11 pixels across adds a ring of a pixel or two. A stain
    # or a blur may leave a pixel as it was.
    assert max(shares) < 0.09
    assert np.mean(shares) > 0.003


@pytest.mark.parametrize("kind", sorted(set(DEFECT_KINDS) - {"scar", "blur", "gone"}))
def test_a_larger_share_changes_more(kind: str) -> None:
    small, large = (
        np.mean([_measure_change(_PHOTO, _draw(kind, seed=seed, share=share)) for seed in range(10)])
        for share in (0.01, 0.1)
    )
    assert large > 3 * small


@pytest.mark.parametrize("kind", DEFECT_KINDS)
def test_a_grey_photo_stays_grey(kind: str) -> None:
    grey = _PHOTO[:1].expand(3, -1, -1).contiguous()
    defective = _draw(kind, seed=1, photo=grey)
    if kind != "patch":  # a patch brings the donor's colours, greyed all the same
        assert not torch.equal(defective, grey)
    assert torch.equal(defective[0], defective[1])
    assert torch.equal(defective[0], defective[2])


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(64, 130), st.integers(1, 4), st.floats(0.0005, 0.3))
def test_any_photo_of_any_side_gets_defects_of_its_own_type_and_shape(
    seed: int, size: int, defects: int, share: float
) -> None:
    photo = torch.randint(0, 256, (3, size, size), generator=torch.Generator().manual_seed(seed % 2**31)).to(
        torch.uint8
    )
    drawn = draw_defects(photo, donor=photo, rng=np.random.default_rng(seed), defects=defects, area=(share / 2, share))
    assert (drawn.dtype, drawn.shape) == (torch.uint8, photo.shape)
    assert not torch.equal(drawn, photo)


def test_a_contact_sheet_shows_every_kind_on_the_readable_photos(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(b"<html>")
    for name, image in zip(("b.png", "c.png"), draw_photos(2), strict=True):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(photos / name)
    argv = ["--photos", str(photos), "--output", str(tmp_path / "sheet.png"), "--size", "64"]
    assert pretext_sheet.main(argv) == 0
    assert Image.open(tmp_path / "sheet.png").size == (64 * (2 + len(DEFECT_KINDS)), 2 * 64 + 16)
    assert f"warning: left out file://{photos}/a.jpg: not_an_image" in capsys.readouterr().out


def test_a_contact_sheet_needs_a_photo_that_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"<html>")
    with pytest.raises(RequestError, match="found none that can be read"):
        pretext_sheet.main(["--photos", str(tmp_path), "--output", str(tmp_path / "sheet.png")])
