"""Black and white of a detector reach the decoder, category by category, in training, scoring and evaluation alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.decoding.fetch import FetchDecode, stack_images
from jobs.decoding.photos import decode_rows
from jobs.detectors.registry import RegisteredDetector
from jobs.evaluation.run import split_into_passes
from jobs.evaluation.stage import NamedDetector
from jobs.scoring.plan import PlannedDetector, plan_detector
from jobs.tables.schema import MANIFEST
from model.config import DetectorConfig, PixelRules
from model.statistics.calibration import Calibration

SIDE = 32


@pytest.fixture
def counts(tmp_path: Path) -> pa.Table:
    """MANIFEST rows of one photo of 12-bit counts, as a photo of the categories `raw` and `twelve`."""
    samples = np.random.default_rng(0).integers(0, 4096, (SIDE, SIDE)).astype(np.uint16)
    samples[0, :2] = 0, 4095
    Image.fromarray(samples).save(tmp_path / "counts.png")
    nothing = dict.fromkeys(MANIFEST.names)
    rows = [nothing | {"image_uri": f"file://{tmp_path}/counts.png", "category": name} for name in ("raw", "twelve")]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def test_each_category_has_its_own_black_and_white(counts: pa.Table) -> None:
    sizes = dict.fromkeys(("raw", "twelve"), SIDE)
    stage = FetchDecode(image_sizes=sizes, max_pixels=10**6, concurrency=2, rules={"twelve": PixelRules(0.0, 4095.0)})
    images = stack_images(stage(counts)["pixels"], size=SIDE)
    assert [int(image.max()) for image in images] == [15, 255]


def test_training_and_scoring_decode_alike(counts: pa.Table) -> None:
    rows, _ = decode_rows(counts, size=SIDE, max_pixels=10**6, rules=PixelRules(None, 4095.0))
    stage = FetchDecode(
        image_sizes={"raw": SIDE, "twelve": SIDE},
        max_pixels=10**6,
        concurrency=2,
        rules=dict.fromkeys(("raw", "twelve"), PixelRules(None, 4095.0)),
    )
    assert rows["pixels"].to_pylist() == stage(counts)["pixels"].to_pylist()


def register(config: DetectorConfig) -> RegisteredDetector:
    return RegisteredDetector(category="x", detector_id="0" * 16, config=config, calibration=None)


def test_a_scoring_plan_keeps_the_detectors_black_and_white() -> None:
    calibration = Calibration(scores=tuple(map(float, range(50))))
    planned = plan_detector(register(DetectorConfig(white=4095)), calibration=calibration, false_alarm_rate=0.05)
    assert planned.rules == PixelRules(None, 4095.0)
    assert PlannedDetector.model_validate_json(planned.model_dump_json()).rules == planned.rules


def test_detectors_of_different_white_are_evaluated_in_passes_of_their_own() -> None:
    mine = [NamedDetector("v", seed, register(DetectorConfig(white=white))) for seed, white in ((0, None), (1, 4095))]
    assert [len(one["x"]) for one in split_into_passes({"x": mine})] == [1, 1]
