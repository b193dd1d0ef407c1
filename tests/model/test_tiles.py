"""Photos cut into tiles: every pixel is seen, one score and one place a photo, and without tiles nothing changes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn

from model.artifact import load_artifact, save_artifact
from model.artifact.files import CONFIG, compute_weights_id
from model.baselines import BASELINES, score_baseline
from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.flops import count_scoring_gflop
from model.image import decode_image
from model.inference.detector import CompiledDetector, build_scorer
from model.localization.explaining import explain_photos
from model.localization.fitting import fit_positions
from model.localization.places import find_place, find_places
from model.network.rotation import list_scoring_angles
from model.pictures.resizing import resize_photo
from model.pictures.rules import WHOLE, Tiles, parse_tiles
from model.statistics.calibration import Calibration
from model.thumbnails import make_thumbnail
from model.tiling import combine_scores, cut_tiles, place_maps
from model.training.attention_pretext import pretrain_attention
from model.training.estimate import WorkSeconds, estimate_seconds
from model.training.loop import train
from model.training.photos import InMemory, split_calibration, tile_photos
from model.training.unlikely_photos import find_unlikely_photos
from model.training.views import compute_view_features
from tests.support.detectors import build_config, draw_images, needs_fast_bf16
from tests.support.training import build_training_config, draw_photos, ignore_epoch

GAUSSIAN = {"flow": {"blocks": 0}, "feature_scaling": "whiten", "feature_stage": "pool1+pool2", "views": 1}
GAUSSIAN |= {"train_views": 1, "train_angles": "scoring"}
grids = st.builds(Tiles, st.integers(1, 5), st.integers(1, 5), st.floats(0, 0.5))


@given(grids, st.integers(3, 40))
def test_the_tiles_cover_every_pixel_of_a_photo(tiles: Tiles, side: int) -> None:
    height, width = tiles.measure_photo(side)
    seen = np.zeros((height, width), bool)
    for top, left in tiles.list_corners(side):
        assert 0 <= top <= height - side
        assert 0 <= left <= width - side
        seen[top : top + side, left : left + side] = True
    assert seen.all()
    assert len(tiles.list_corners(side)) == tiles.total


@settings(deadline=None, max_examples=25)
@given(grids)
def test_tiles_are_cut_photo_by_photo_and_row_by_row(tiles: Tiles) -> None:
    height, width = tiles.measure_photo(8)
    photos = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    cut = cut_tiles(photos, tiles, side=8).view(2, tiles.total, 3, 8, 8)
    for number, (top, left) in enumerate(tiles.list_corners(8)):
        assert torch.equal(cut[:, number], photos[:, :, top : top + 8, left : left + 8])


def test_one_tile_is_no_tile_to_the_bit_whatever_its_overlap() -> None:
    plain, tiled = (
        AttentDifferNet(build_config(**more)).eval() for more in ({}, {"tiles": "1x1", "tile_overlap": 0.4})
    )
    assert tiled.config.pixel_rules == plain.config.pixel_rules
    photos = draw_images(3)
    assert torch.equal(tiled.score(photos), plain.score(photos))
    assert tile_photos(held := InMemory(photos), tiled.config) is held


@pytest.mark.slow
@pytest.mark.parametrize(("score", "top"), [("max", 1), ("top2", 2)])
@pytest.mark.parametrize("views", [1, 4])
def test_a_photos_score_is_that_of_its_highest_tiles(score: str, top: int, views: int) -> None:
    tiled = AttentDifferNet(build_config(tiles="2x3", tile_overlap=0.25, tile_score=score, views=views)).eval()
    alone = AttentDifferNet(build_config(views=views)).eval()
    grid = Tiles(2, 3, 0.25)
    photos = torch.randint(0, 256, (2, 3, *grid.measure_photo(64)), dtype=torch.uint8)
    by_tile = alone.score(cut_tiles(photos, grid, side=64)).view(2, 6)
    expected = by_tile.sort(dim=1, descending=True).values[:, :top].mean(1)
    torch.testing.assert_close(tiled.score(photos), expected)
    features = compute_view_features(tiled, InMemory(photos), angles=list_scoring_angles(views))
    torch.testing.assert_close(tiled.score_pooled(features), expected, rtol=1e-5, atol=0)
    assert len(tiled.score(photos[:0])) == 0


def test_photos_of_another_size_than_the_tiles_need_are_refused() -> None:
    tiled = AttentDifferNet(build_config(tiles="1x2", tile_overlap=0.5)).eval()
    with pytest.raises(
        ValueError, match=r"needed uint8 images of shape \(N, 3, 64, 96\), got torch.uint8 \(1, 3, 64, "
    ):
        tiled.score(draw_images(1))


@pytest.mark.slow
@needs_fast_bf16
def test_the_compiled_scorer_cuts_the_same_tiles() -> None:
    config = build_config(image_size=128, scales=2, precision="bf16", tiles="2x2", views=2)
    detector = AttentDifferNet(config).eval()
    coarse = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 255
    photos = nn.functional.interpolate(coarse, size=config.tile_grid.measure_photo(128), mode="bilinear").to(
        torch.uint8
    )
    exact = AttentDifferNet(config.model_copy(update={"precision": "fp32"})).eval()
    exact.load_state_dict(detector.state_dict())
    scorer = CompiledDetector(detector)
    torch.testing.assert_close(scorer.score(photos), exact.score(photos), rtol=0.03, atol=0)
    torch.testing.assert_close(scorer.score(photos), scorer.score(photos.flip(0)).flip(0), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"tiles": "2x2", "resize": "letterbox"}, "tiles need resize stretch or crop, got letterbox"),
        ({"tiles": "2x2", "tile_overlap": 0.6}, "less than or equal to 0.5"),
        ({"tiles": "2x2", "tile_overlap": -0.1}, "greater than or equal to 0"),
        ({"tiles": "1x2", "tile_score": "top3"}, "tile_score top3 needs as many tiles, got tiles 1x2"),
        ({"tile_score": "top2"}, "tile_score top2 needs as many tiles, got tiles 1x1"),
        ({"tiles": "0x2"}, "match pattern"),
        ({"tiles": "2"}, "match pattern"),
        ({"tiles": "2x2", "tile_score": "mean"}, "match pattern"),
        ({"tiles": "16x16", "image_size": 1024}, "tiles 16x16 of 1024 px are .* over 160000000 px"),
    ],
)
def test_tiles_that_make_no_sense_are_refused(wrong: dict[str, object], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        DetectorConfig.model_validate(wrong)


def test_a_crop_keeps_the_proportions_of_the_tiles_together() -> None:
    photo = torch.randint(0, 256, (60, 100, 3), dtype=torch.uint8)
    shape = Tiles(1, 3).measure_photo(20)
    middle = photo[13:46]  # 100 x 33: three squares beside each other
    assert torch.equal(resize_photo(photo, shape, resize="crop"), resize_photo(middle, shape))


def _encode(photo: Tensor) -> bytes:
    file = io.BytesIO()
    Image.fromarray(photo.permute(1, 2, 0).numpy()).save(file, "PNG")
    return file.getvalue()


def _draw_large(count: int, *, seed: int) -> Tensor:
    """Smooth photos with a little noise, (count, 3, 192, 192)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator) * 60 + 90
    smooth = nn.functional.interpolate(coarse, size=192, mode="bilinear")
    return (smooth + torch.randn(smooth.shape, generator=generator) * 2).round().clamp(0, 255).to(torch.uint8)


def _fit(config: DetectorConfig, photos: Tensor) -> AttentDifferNet:
    detector = AttentDifferNet(config).eval()
    train(detector, InMemory(photos), optimizer=OptimizerConfig(epochs=1), on_epoch=ignore_epoch)
    fit_positions(detector, InMemory(photos))
    return detector


@pytest.mark.slow
def test_a_defect_smaller_than_a_tile_is_found_with_tiles_alone_and_placed_in_the_photo() -> None:
    flawless, spoilt = _draw_large(18, seed=0), _draw_large(1, seed=1)
    spoilt[0, :, 150:162, 40:52] = torch.tensor([[60, 180], [180, 60]], dtype=torch.uint8).repeat(6, 6)
    excess = {}
    for tiles in ("1x1", "3x3"):
        config = build_config(**GAUSSIAN, tiles=tiles, tile_overlap=0)
        pixels = torch.stack(
            [decode_image(_encode(one), size=64, **config.pixel_rules._asdict()) for one in (*flawless, *spoilt)]
        )
        detector = _fit(config, pixels[:12])
        scores, maps = build_scorer(detector).inspect(pixels[12:])
        excess[tiles] = float(scores[6]) / float(scores[:6].max())
    assert excess["3x3"] > 2
    assert excess["1x1"] < 1.2
    assert maps is not None
    place = find_places(maps.numpy())[6]
    assert place is not None
    assert (place.x, place.y) == pytest.approx((46 / 192, 156 / 192), abs=0.05)
    assert place.box[2] * place.box[3] < 0.05


def test_the_highest_tile_is_what_a_photo_is_explained_by() -> None:
    near = {"feature_stage": "pool2", "attention": {"pool1": {"kind": "se"}}}  # a map of several positions
    config = build_training_config(tiles="1x2", tile_overlap=0, **near)
    detector = AttentDifferNet(config).eval()
    photos = torch.cat([draw_photos(2), draw_photos(2, seed=1)], dim=3)
    with torch.no_grad():
        detector.fit_feature_scaling(detector.pool_features(draw_photos(8)))
    highest = int(detector.score_tiles(cut_tiles(photos[1:], Tiles(1, 2), side=64)).argmax())
    maps = explain_photos(detector, photos)[1]
    assert set(maps) == {"gradcam", "gradcam_without_attention"}
    for found in maps.values():
        assert found.shape[1] == 2 * found.shape[0]
        halves = np.split(found, 2, axis=1)
        assert np.ptp(halves[highest]) > 0
        assert np.ptp(halves[1 - highest]) == 0


@pytest.mark.parametrize(("tile", "top", "left"), [(0, 0, 0), (2, 0, 16), (4, 8, 8)])
def test_the_place_of_a_photo_is_the_place_in_its_highest_tile(tile: int, top: int, left: int) -> None:
    tiles = Tiles(2, 3, 0.2)
    maps = torch.rand(2 * 6, 10, 10, generator=torch.Generator().manual_seed(3))
    maps[6 + tile, 4, 7] = 9
    maps[6 + (tile + 1) % 6, 2, 2] = 99  # deviates more, but decided nothing
    scores = torch.zeros(12)
    scores[6 + tile] = 1
    placed = place_maps(maps, scores, tiles)[1]
    assert placed.shape == (18, 26)
    own, found = find_place(maps[6 + tile].numpy()), find_place(placed.numpy())
    assert (found.x * 26, found.y * 18) == pytest.approx((left + own.x * 10, top + own.y * 10))
    assert found.box[2:] == pytest.approx((own.box[2] * 10 / 26, own.box[3] * 10 / 18))
    assert found.share == pytest.approx(own.share)


def test_tiles_of_a_photo_never_part() -> None:
    photos = InMemory(draw_images(6, side=96), groups=np.array([0, 0, 1, 2, 3, 4]))
    tiled = tile_photos(photos, DetectorConfig(image_size=64, scales=1, tiles="2x2", tile_overlap=0.5))
    assert len(tiled) == 24
    order = torch.tensor([23, 0, 21, 3, 0])
    every = cut_tiles(photos.images, Tiles(2, 2, 0.5), side=64)
    assert torch.equal(tiled.take(order), every[order])
    train_part, held_out = split_calibration(24, fraction=0.4, seed=0, groups=tiled.groups)
    assert not set(train_part // 4) & set(held_out // 4)
    assert tiled.groups is not None
    assert not set(tiled.groups[train_part]) & set(tiled.groups[held_out])


@pytest.mark.slow
def test_a_training_on_photos_is_a_training_on_their_tiles() -> None:
    tiles = {"tiles": "2x1", "tile_overlap": 0.0}
    photos = torch.cat([draw_photos(4), draw_photos(4, seed=1)], dim=2)
    cut = cut_tiles(photos, Tiles(2, 1), side=64)
    outcomes = []
    for more, images in ((tiles, InMemory(photos)), ({}, InMemory(cut, np.repeat(np.arange(4), 2)))):
        detector = AttentDifferNet(
            build_training_config(attention_training="pretext", pretext={"steps": 1, "pairs": 2}, **more)
        )
        train(detector, images, optimizer=OptimizerConfig(epochs=1), on_epoch=ignore_epoch)
        outcomes.append(detector.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(o.values() for o in outcomes), strict=True))


def test_attention_of_a_fleet_learns_from_tiles() -> None:
    config = build_training_config(
        attention_training="pretext", pretext={"steps": 1, "pairs": 2}, tiles="2x1", tile_overlap=0
    )
    learnt = pretrain_attention(AttentDifferNet(config), [InMemory(torch.cat([draw_photos(4)] * 2, dim=2))])
    assert learnt


def test_features_of_whole_photos_train_as_photos_do() -> None:
    config = build_training_config(tiles="1x2", tile_overlap=0, train_angles="scoring", attention={})
    photos = torch.cat([draw_photos(4), draw_photos(4, seed=1)], dim=3)
    states = []
    for shares in (False, True):
        detector = AttentDifferNet(config).eval()
        features = compute_view_features(detector, InMemory(photos), angles=list_scoring_angles(4)) if shares else None
        assert features is None or features.shape == (4, 8, detector.feature_dim)
        train(detector, InMemory(photos), optimizer=OptimizerConfig(epochs=1), on_epoch=ignore_epoch, features=features)
        states.append(detector.state_dict())
    assert all(torch.equal(one, other) for one, other in zip(*(one.values() for one in states), strict=True))


def test_an_artifact_keeps_its_tiles_and_one_of_before_has_none(tmp_path: Path) -> None:
    config = build_config(tiles="2x2", tile_overlap=0.25, tile_score="top2")
    detector = AttentDifferNet(config).eval()
    calibration = Calibration(scores=tuple(map(float, range(20))))
    save_artifact(tmp_path / "tiled", detector, calibration=calibration, metrics={})
    loaded = load_artifact(tmp_path / "tiled")
    assert loaded.detector.config == config
    data = _encode(_draw_large(1, seed=0)[0])
    pixels = decode_image(data, size=64, tiles=config.tile_grid)[None]
    assert loaded.score_bytes(data).score == float(detector.score(pixels)[0])

    plain = AttentDifferNet(build_config()).eval()
    plain.load_state_dict(detector.state_dict())
    save_artifact(tmp_path / "plain", plain, calibration=calibration, metrics={})
    written = {name: json.loads((tmp_path / name / CONFIG).read_text()) for name in ("tiled", "plain")}
    assert compute_weights_id(written["tiled"]) != compute_weights_id(written["plain"])
    for name in ("tiles", "tile_overlap", "tile_score"):
        del written["plain"]["detector"][name]
    (tmp_path / "plain" / CONFIG).write_text(json.dumps(written["plain"]))
    before = load_artifact(tmp_path / "plain")
    assert before.detector.config.tile_grid == WHOLE
    assert before.score_bytes(data).score == float(plain.score(decode_image(data, size=64)[None])[0])
    assert "2x2 tiles" in (tmp_path / "tiled" / "card.md").read_text()


def test_what_takes_time_counts_the_tiles() -> None:
    one, four = (AttentDifferNet(build_config(tiles=tiles)) for tiles in ("1x1", "2x2"))
    assert count_scoring_gflop(four) == pytest.approx(4 * count_scoring_gflop(one))
    seconds = [
        estimate_seconds(WorkSeconds(1.0, 2.0), detector, OptimizerConfig(batch_size=4), photos=8, scored=4, epochs=3)
        for detector in (one, four)
    ]
    assert seconds[1] == pytest.approx(4 * seconds[0])


def test_an_unlikely_photo_is_found_by_one_of_its_tiles() -> None:
    detector = AttentDifferNet(build_config(tiles="1x2", tile_overlap=0)).eval()
    photos = torch.cat([draw_photos(12), draw_photos(12, seed=1)], dim=3)
    photos[7, :, :, 70:120] = draw_images(1)[0, :, :, :50]
    assert find_unlikely_photos(detector, InMemory(photos), count=1)[0].index == 7


@pytest.mark.parametrize("name", ["mahalanobis", "patch_memory"])
def test_baselines_look_at_tiles_too(name: str) -> None:
    assert name in BASELINES
    config = build_config(tiles="1x2", tile_overlap=0, views=2)
    photos = torch.cat([draw_photos(12), draw_photos(12, seed=1)], dim=3)
    test = photos[:4].clone()
    test[2, :, :, 70:120] = draw_images(1)[0, :, :, :50]
    scores = score_baseline(name, config, weights=None, train=photos, test=test, seed=0)
    assert scores.shape == (4,)
    assert int(scores.argmax()) == 2


def test_a_thumbnail_of_any_proportions_is_the_photos() -> None:
    tall = np.repeat(np.repeat(np.arange(64, dtype=np.uint8)[None, :, None], 3, 0), 128, 2).repeat(3, 1)
    shown = make_thumbnail(tall)
    assert np.allclose(shown, np.arange(64)[:, None], atol=0.01)


def test_scores_of_tiles_combine_photo_by_photo() -> None:
    scores = torch.tensor([1.0, 5, 3, 8, 2, 4])
    assert combine_scores(scores, count=3, top=1).tolist() == [5, 8]
    assert combine_scores(scores, count=3, top=2).tolist() == [4, 6]
    assert parse_tiles("2x3", 0.1) == Tiles(2, 3, 0.1)
