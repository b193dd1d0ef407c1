"""Photos that a detector cuts into tiles are decoded as one image each, in training, scoring, comparison and search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from jobs.archive.manifest import list_archive
from jobs.archive.mvtec import list_labelled, select_split
from jobs.config import ScoringResources
from jobs.decoding.fetch import FetchDecode, stack_images
from jobs.decoding.fingerprints import group_fingerprints
from jobs.decoding.photos import decode_images, fingerprint_photos
from jobs.detectors.registry import RegisteredDetector
from jobs.evaluation.comparison_tasks import decode_category
from jobs.evaluation.comparison_units import ComparisonUnit
from jobs.evaluation.run import split_into_passes
from jobs.evaluation.stage import NamedDetector
from jobs.scoring.pipeline import choose_batch_photos
from jobs.scoring.plan import PlannedDetector, ScoringPlan, plan_detector
from jobs.tables.schema import MANIFEST
from model.config import DetectorConfig, PixelRules
from model.detector import AttentDifferNet
from model.image import decode_image
from model.pictures.rules import Tiles
from model.statistics.calibration import Calibration
from tests.support.detectors import TINY
from tuning.trials.features import Extractor, hash_extractor
from tuning.trials.photos import SearchPhotos, add_synthetic_defects, shift_photos

SIDE = 32
GRID = Tiles(2, 3, 0.25)
RULES = PixelRules(tiles=GRID)
SHAPE = (56, 80)


@pytest.fixture
def photos(tmp_path: Path) -> pa.Table:
    """MANIFEST rows of three photos of one category, the third with a box."""
    rows = []
    for number, box in enumerate((None, None, "10,20,60,30")):
        samples = np.random.default_rng(number).integers(0, 256, (90, 120, 3)).astype(np.uint8)
        Image.fromarray(samples).save(tmp_path / f"{number}.png")
        uri = f"file://{tmp_path}/{number}.png"
        rows.append(dict.fromkeys(MANIFEST.names) | {"image_uri": uri, "category": "x", "box": box})
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def test_photos_and_boxes_come_from_the_decoder_with_the_pixels_of_their_tiles(
    photos: pa.Table, tmp_path: Path
) -> None:
    stage = FetchDecode(image_sizes={"x": SIDE}, max_pixels=10**6, concurrency=2, rules={"x": RULES})
    images = stack_images(stage(photos)["pixels"], size=SIDE, tiles=GRID)
    assert images.shape == (3, 3, *SHAPE)
    data = [(tmp_path / f"{number}.png").read_bytes() for number in range(2)]
    assert np.array_equal(images[:2], decode_images(data, size=SIDE, rules=RULES).numpy())
    with Image.open(tmp_path / "2.png") as whole:
        whole.crop((10, 20, 70, 50)).save(tmp_path / "crop.png")
    crop = decode_image((tmp_path / "crop.png").read_bytes(), size=SIDE, tiles=GRID)
    assert np.array_equal(images[2], crop.numpy())


def test_copies_of_photos_that_are_no_squares_are_grouped(photos: pa.Table) -> None:
    twice = pa.concat_tables([photos.slice(0, 2), photos.slice(0, 1)])
    prints = fingerprint_photos(twice, size=SIDE, max_pixels=10**6, rules=RULES)
    assert prints["error"].null_count == 3
    assert group_fingerprints(prints).tolist() == [0, 1, 0]


def _register(config: DetectorConfig) -> RegisteredDetector:
    return RegisteredDetector(category="x", detector_id="0" * 16, config=config, calibration=None)


def test_a_plan_keeps_the_tiles_and_counts_them_in_a_batch() -> None:
    calibration = Calibration(scores=tuple(map(float, range(50))))
    plans = {}
    for tiles in ("1x1", "2x2"):
        config = DetectorConfig(tiles=tiles, views=2)
        plans[tiles] = plan_detector(_register(config), calibration=calibration, false_alarm_rate=0.05)
        assert PlannedDetector.model_validate_json(plans[tiles].model_dump_json()) == plans[tiles]
    assert plans["2x2"].rules.tiles == Tiles(2, 2, 0.1)
    assert plans["2x2"].vectors == 8
    batches = [
        choose_batch_photos(
            100,
            plan=ScoringPlan(run_id="r", detectors="", by_category={"x": planned}, max_pixels=1),
            resources=ScoringResources(),
        )
        for planned in plans.values()
    ]
    assert batches == [32, 8]


def test_detectors_of_other_tiles_are_decoded_for_by_themselves() -> None:
    configs = [
        DetectorConfig(tiles=tiles, tile_overlap=overlap) for tiles, overlap in (("1x1", 0), ("1x2", 0), ("1x2", 0.5))
    ]
    mine = [NamedDetector("v", seed, _register(config)) for seed, config in enumerate(configs)]
    assert [len(one["x"]) for one in split_into_passes({"x": mine})] == [1, 1, 1]
    units = [ComparisonUnit("x", "v", 0, config, None, "") for config in configs]
    assert len({unit.photos_key for unit in units}) == 3
    assert len({hash_extractor(config, photos_hash="") for config in configs}) == 3


def test_a_comparison_groups_photos_alike_with_and_without_tiles(drawn: Path) -> None:
    rows = select_split(list_labelled(f"file://{drawn}/data", category="insulator"), "train").slice(0, 12)
    whole, tiled = (decode_category(rows, 64, 10**8, rules, 0.25) for rules in (PixelRules(), RULES))
    assert tiled.train.shape[2:] == (112, 160)
    assert (len(tiled.train), len(tiled.calibration)) == (len(whole.train), len(whole.calibration))


def test_a_search_judges_whole_photos_by_their_tiles() -> None:
    config = DetectorConfig.model_validate({**TINY, "image_size": 128, "tiles": "1x2", "views": 2})
    drawn = np.random.default_rng(0).integers(0, 256, (6, 3, *config.tile_grid.measure_photo(128)), np.uint8)
    photos = SearchPhotos(drawn[:3], drawn[3:5], drawn[5:], np.array([True]), ["x"], {}, [])
    detector = AttentDifferNet(config).eval()
    features = Extractor(photos, "hash", None).extract(detector)
    assert features.train.shape[:2] == (3, 4)
    scores = detector.score_pooled(features.held_out)
    torch.testing.assert_close(scores, detector.score(torch.tensor(drawn[3:5])), rtol=1e-5, atol=0)


@pytest.mark.parametrize("shape", [(64, 64), (48, 112), (112, 48)])
def test_photos_of_any_proportions_are_shifted_and_get_a_defect(shape: tuple[int, int]) -> None:
    photos = torch.full((4, 3, *shape), 128, dtype=torch.uint8)
    photos[..., ::4, :] = 90
    assert shift_photos(photos).shape == photos.shape
    spoilt = add_synthetic_defects(photos)
    assert torch.equal(spoilt, add_synthetic_defects(photos))
    assert all(
        0 < int((one != other).any(0).sum()) < photos[0, 0].numel() / 2
        for one, other in zip(spoilt, photos, strict=True)
    )


def test_photos_of_a_list_without_categories_are_decoded(drawn: Path) -> None:
    listing = list_archive(f"file://{drawn}/data/insulator/train/good").slice(0, 2)
    assert listing["category"].null_count == 2
    prints = fingerprint_photos(listing, size=SIDE, max_pixels=10**6)
    assert prints["pixel_hash"].null_count == 0
    assert len(set(prints["pixel_hash"].to_pylist())) == 2
