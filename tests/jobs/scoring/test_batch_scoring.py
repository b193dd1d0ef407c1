"""One scoring actor over photos of many categories: each photo by its own category's detector."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from jobs.archive.manifest import list_archive
from jobs.cluster.datasets import map_in_scoring_actors
from jobs.cluster.telemetry import LocalTelemetry, Workload
from jobs.config import ScoringResources
from jobs.decoding.fetch import FetchDecode
from jobs.detectors import registry
from jobs.scoring import batch_scoring
from jobs.scoring.batch_scoring import BatchScorer
from jobs.scoring.pipeline import MAX_BLOCK_PHOTOS, choose_batch_photos, choose_block_photos
from jobs.scoring.plan import ScoringPlan, plan_detectors
from jobs.tables.schema import STAGED
from model.artifact import save_artifact
from model.config import DetectorConfig, Precision
from model.detector import AttentDifferNet
from model.image import decode_image
from model.inference.detector import EagerScorer, build_scorer
from model.statistics.calibration import Calibration
from tests.support.detectors import GPU, TINY
from tests.support.pretended_device import pretend_gpu

CATEGORIES: dict[str, dict[str, object]] = {
    "bolt": {"variant": "plain", "image_size": 128},
    "cap": {"variant": "se", "image_size": 64, "scales": 1, "attention": {"pool1": {"kind": "se"}}},
    "disc": {"variant": "cbam", "attention": {"conv5": {"kind": "cbam"}}, "backbone": "alexnet_caffe"},
    "earth": {"variant": "fast", "precision": "bf16"},
}
PHOTOS = 5


@pytest.fixture(scope="module")
def fleet(drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, str, dict[str, AttentDifferNet]]:
    """Manifest rows of a few photos per category, and of one without detector; the registry; its detectors."""
    folder = tmp_path_factory.mktemp("fleet")
    photos = sorted((drawn / "data").rglob("*.jpg"))
    for row, category in enumerate([*CATEGORIES, "unknown"]):
        for number in range(PHOTOS):
            path = folder / "archive" / category / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(photos[PHOTOS * row + number].read_bytes())
    detectors: dict[str, AttentDifferNet] = {}
    for seed, (category, changes) in enumerate(CATEGORIES.items()):
        config = DetectorConfig.model_validate({**TINY, "feature_scaling": "none", "seed": seed, **changes})
        detectors[category] = AttentDifferNet(config).eval()
        artifact = folder / "artifact" / category
        save_artifact(artifact, detectors[category], calibration=Calibration(scores=(1.0, 2.0)), metrics={})
        detector_id = registry.put(f"file://{folder}/registry", category, folder=artifact)
        registry.set_alias(f"file://{folder}/registry", category, alias="champion", detector_id=detector_id)
    return list_archive(f"file://{folder}/archive"), f"file://{folder}/registry", detectors


def _plan(registry_uri: str) -> ScoringPlan:
    planned = plan_detectors(
        registry_uri, [*CATEGORIES, "unknown"], alias="champion", false_alarm_rate=0.5, precision="auto"
    )
    return ScoringPlan(run_id="night", detectors=registry_uri, by_category=planned, max_pixels=10**8)


def _decoded(manifest: pa.Table, plan: ScoringPlan) -> pa.Table:
    sizes = {category: detector.image_size for category, detector in plan.by_category.items()}
    return FetchDecode(image_sizes=sizes, max_pixels=10**8, concurrency=4)(manifest)


@pytest.mark.parametrize("cache_bytes", [1, 10**9])
@pytest.mark.parametrize("device", ["cpu", GPU])
@pytest.mark.slow
def test_each_photo_is_scored_by_its_categorys_detector_whatever_stands_beside_it(
    fleet: tuple[pa.Table, str, dict[str, AttentDifferNet]], cache_bytes: int, device: str
) -> None:
    manifest, registry_uri, detectors = fleet
    plan, heard = _plan(registry_uri), LocalTelemetry()
    shuffled = manifest.take(pa.array(np.random.default_rng(0).permutation(len(manifest))))
    scorer = BatchScorer(plan=plan, cache_bytes=cache_bytes, telemetry=heard, device=device)
    # float32 sums in another order; between devices through more layers, and of bf16 with its 8 bits
    tolerance = {"fp32": 1e-5, "bf16": 1e-5} if device == "cpu" else {"fp32": 1e-3, "bf16": 0.05}
    rows = pa.concat_tables([scorer.score_batch(_decoded(shuffled.slice(start, 9), plan)) for start in range(0, 25, 9)])
    assert rows.schema.equals(STAGED)
    assert rows["image_id"].to_pylist() == shuffled["image_id"].to_pylist()
    for row in rows.to_pylist():
        if row["category"] == "unknown":
            assert (row["status"], row["score"], row["detector_id"]) == ("no_detector", None, None)
            continue
        detector = detectors[row["category"]]
        data = Path(row["image_uri"].removeprefix("file://")).read_bytes()
        image = decode_image(data, size=detector.config.image_size)
        expected = float(build_scorer(detector).score(image[None]))
        assert row["status"] == "scored"
        assert row["score"] == pytest.approx(expected, rel=tolerance[row["precision"]])
        assert (row["detector_variant"], row["views"]) == (detector.config.variant, detector.config.views)
    assert heard.reported.counts == {"scored": 20, "no_detector": 5}
    assert heard.reported.measures["detector_loads"] >= 4
    assert (heard.reported.measures.get("detector_evictions", 0) == 0) == (cache_bytes > 1)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.slow
def test_the_row_names_the_precision_of_the_plan(
    fleet: tuple[pa.Table, str, dict[str, AttentDifferNet]], precision: Precision
) -> None:
    manifest, registry_uri, _ = fleet
    plan = _plan(registry_uri)
    earth = plan.by_category["earth"].model_copy(update={"precision": precision})
    plan = plan.model_copy(update={"by_category": {**plan.by_category, "earth": earth}})
    scorer = BatchScorer(plan=plan, cache_bytes=10**9, telemetry=LocalTelemetry(), device="cpu")
    rows = scorer.score_batch(_decoded(manifest, plan)).to_pylist()
    expected = {"bolt": "fp32", "cap": "fp32", "disc": "fp32", "earth": precision, "unknown": None}
    assert {row["category"]: row["precision"] for row in rows} == expected


@pytest.mark.slow
def test_a_detector_that_cannot_be_loaded_costs_the_rows_of_its_category_alone(
    fleet: tuple[pa.Table, str, dict[str, AttentDifferNet]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    manifest, registry_uri, _ = fleet
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))  # a node that has fetched nothing yet
    plan = _plan(registry_uri)
    broken = Path(registry_uri.removeprefix("file://")) / "bolt" / plan.by_category["bolt"].detector_id
    weights = (broken / "detector.safetensors").read_bytes()
    (broken / "detector.safetensors").write_bytes(weights[:-4] + b"\0\0\0\0")
    try:
        scorer = BatchScorer(plan=plan, cache_bytes=10**9, telemetry=LocalTelemetry(), device="cpu")
        rows = scorer.score_batch(_decoded(manifest, plan)).to_pylist()
    finally:
        (broken / "detector.safetensors").write_bytes(weights)
    failed = [row for row in rows if row["status"] == "failed"]
    assert {row["category"] for row in failed} == {"bolt"}
    assert len(failed) == PHOTOS
    assert all(row["error"].startswith("detector: ") and "its id names" in row["error"] for row in failed)
    assert sum(row["status"] == "scored" for row in rows) == 3 * PHOTOS


def test_scores_that_are_not_finite_are_failures(
    fleet: tuple[pa.Table, str, dict[str, AttentDifferNet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, registry_uri, _ = fleet
    plan = _plan(registry_uri)
    scorer = BatchScorer(plan=plan, cache_bytes=10**9, telemetry=LocalTelemetry(), device="cpu")
    nothing = torch.full((PHOTOS,), float("nan"), dtype=torch.float64)
    monkeypatch.setattr(EagerScorer, "inspect", lambda self, images: (nothing[: len(images)], None))
    rows = scorer.score_batch(_decoded(manifest, plan)).to_pylist()
    by_category = {row["category"]: (row["status"], row["error"]) for row in rows}
    assert by_category["bolt"] == ("failed", "not_finite: the detector gave no finite score")


def test_a_gpu_computes_a_part_while_the_host_prepares_the_next(
    fleet: tuple[pa.Table, str, dict[str, AttentDifferNet]], monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, registry_uri, _ = fleet
    plan = _plan(registry_uri)
    events: list[str] = []
    rows = _decoded(manifest.filter(pc.equal(manifest["category"], "bolt")), plan)
    on_cpu = BatchScorer(plan=plan, cache_bytes=10**9, telemetry=LocalTelemetry(), device="cpu").score_batch(rows)
    monkeypatch.setattr(batch_scoring, "PART_VECTORS", 2 * plan.by_category["bolt"].views)
    stack, score, read = batch_scoring.stack_images, EagerScorer.inspect, Tensor.cpu

    def note(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def noting(*given: Any, **named: Any) -> Any:
            events.append(name)
            return call(*given, **named)

        return noting

    with pretend_gpu():
        scorer = BatchScorer(plan=plan, cache_bytes=10**9, telemetry=LocalTelemetry(), device="cuda")
        monkeypatch.setattr(batch_scoring, "stack_images", note("stack", stack))
        monkeypatch.setattr(EagerScorer, "inspect", note("score", score))
        monkeypatch.setattr(Tensor, "cpu", note("read", read))
        on_gpu = scorer.score_batch(rows)
    assert events == ["stack", "score"] * 3 + ["read"]  # 5 photos, two at a time; nothing is waited for in between
    assert on_gpu["score"].to_pylist() == pytest.approx(on_cpu["score"].to_pylist(), rel=1e-5)


def test_how_long_a_run_takes_is_said_before_it_scores(
    fleet: tuple[pa.Table, str, dict[str, AttentDifferNet]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(EagerScorer, "score", lambda self, images: torch.zeros(len(images), dtype=torch.float64))
    ticks = iter([0.0, 8.0])
    scorer = BatchScorer(plan=_plan(fleet[1]), cache_bytes=10**9, telemetry=LocalTelemetry(), device="cpu")
    monkeypatch.setattr("jobs.scoring.batch_scoring.time.perf_counter", lambda: next(ticks))
    scorer.announce_time(Workload(photos=300, processes=10, batch_photos=16))  # soon done
    assert capsys.readouterr().out == ""
    scorer.announce_time(Workload(photos=36_000, processes=10, batch_photos=16))
    assert capsys.readouterr().out == (
        "scoring 36000 photos takes about 30 min: 0.5 s a photo in each of 10 processes, if storage and decoding keep "
        "up\n"
    )


@given(st.integers(1, 20_000_000), st.integers(1, 300), st.integers(1, 64))
def test_a_block_is_whole_scoring_batches_and_no_larger_than_need_be(rows: int, batch: int, actors: int) -> None:
    photos = choose_block_photos(rows, batch=batch, actors=actors)
    assert photos % batch == 0
    assert photos == batch or photos <= min(MAX_BLOCK_PHOTOS, -(-rows // (4 * actors)))


@pytest.mark.parametrize(("rows", "views", "photos"), [(600, 1, 64), (600, 4, 16), (600, 64, 4), (10**7, 4, 64)])
def test_batches_give_first_rows_soon_in_small_runs_and_feed_the_flow_well_in_large_ones(
    rows: int, views: int, photos: int, fleet: tuple[pa.Table, str, dict[str, AttentDifferNet]]
) -> None:
    plan = _plan(fleet[1])
    planned = {name: one.model_copy(update={"views": views}) for name, one in plan.by_category.items()}
    plan = plan.model_copy(update={"by_category": planned})
    assert choose_batch_photos(rows, plan=plan, resources=ScoringResources()) == photos
    on_gpu = choose_batch_photos(rows, plan=plan, resources=ScoringResources(use_gpu=True))
    assert on_gpu == min(512, 1024 // views)  # several passes, so that copies and work overlap


@pytest.mark.parametrize(("rows", "photos"), [(600, 64), (2_000, 128), (100_000, 128), (10_000_000, 1024)])
def test_blocks_grow_with_the_run(rows: int, photos: int) -> None:
    assert choose_block_photos(rows, batch=64, actors=2) == photos


def test_an_actor_that_waits_for_photos_is_kept_with_what_it_has_loaded() -> None:
    class Asked:
        """Takes the place of a Dataset."""

        def map_batches(self, stage: type, **how: Any) -> dict[str, Any]:
            return how

    decoding: Any = Asked()
    how: Any = map_in_scoring_actors(decoding, BatchScorer, {}, batch_photos=4, resources=ScoringResources(actors=3))
    assert (how["compute"].min_size, how["compute"].max_size) == (3, 3)
