"""From rows of scores to metrics: per detector, over seeds, against each other."""

from __future__ import annotations

import io
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from jobs.evaluation.histograms import draw_histograms
from jobs.evaluation.metrics import (
    DetectorKey,
    Seed,
    compare_with_reference,
    group_scores,
    measure_detectors,
    summarize_variants,
)
from jobs.evaluation.report import format_false_alarms
from jobs.tables.schema import EVALUATED, METRICS, Status
from model.statistics.calibration import Calibration
from model.statistics.evaluation import compute_auroc, compute_metrics
from model.statistics.false_alarms import Promise, make_promise
from model.statistics.resampling import estimate_seed_interval

PHOTOS = 60


def _rows(
    variant: str, *, seeds: Iterable[Seed] = (0, 1, 2), category: str = "insulator", shift: float = 1.0
) -> list[dict[str, object]]:
    """Normal scores of 30 flawless and 30 defective photos; the noise of a photo is the same for all variants."""
    noise = np.random.default_rng(len(category)).normal(size=PHOTOS)
    found = []
    for seed in seeds:
        own = np.random.default_rng([len(variant), seed or 0]).normal(size=PHOTOS)
        for number in range(PHOTOS):
            found.append(
                {
                    "category": category,
                    "label": "good" if number < 30 else ("rust" if number % 2 else "missing_cap"),
                    "variant": variant,
                    "seed": seed,
                    "detector_id": None if seed is None else f"{seed:016x}",
                    "image_uri": f"file:///{category}/{number:03d}.jpg",
                    "status": Status.SCORED,
                    "score": float(noise[number] + 0.2 * own[number] + shift * (number >= 30)),
                }
            )
    return found


def _table(*parts: list[dict[str, object]]) -> pa.Table:
    rows = [row for part in parts for row in part]
    order = np.random.default_rng(0).permutation(len(rows))  # rows come in any order from a cluster
    return pa.Table.from_pylist([rows[number] for number in order], schema=EVALUATED)


def _lost(row: dict[str, object], status: Status = Status.UNREADABLE) -> dict[str, object]:
    return {**row, "status": status, "error": "truncated: half of it", "score": None}


def _promises(calibration: Calibration, *seeds: Seed) -> dict[DetectorKey, Promise]:
    return {("insulator", "differnet", seed): make_promise(calibration, 0.05) for seed in seeds}


def test_false_alarms_of_flawless_photos_stand_beside_the_promised_rate() -> None:
    scores = tuple(np.random.default_rng(1).normal(size=200) * 1.5)
    table = measure_detectors(
        _table(_rows("differnet", seeds=[0, 1])), promises=_promises(Calibration(scores=scores), 0)
    )
    first, second = table.to_pylist()
    assert table.schema == METRICS
    assert first["false_alarm_rate"] == 0.05
    assert first["realised_rate"] == first["false_alarms"] / 30
    assert first["realised_low"] <= first["realised_rate"] <= first["realised_high"]
    assert first["is_promise_kept"]
    assert (second["false_alarm_rate"], second["false_alarms"], second["is_promise_kept"]) == (None, None, None)


def test_a_broken_promise_is_said_even_where_the_test_has_no_defect() -> None:
    low = Calibration(scores=tuple(np.linspace(-9, -8, 200)))
    flawless = [row for row in _rows("differnet", seeds=[0]) if row["label"] == "good"]
    promises = _promises(low, 0)
    metrics = measure_detectors(_table(flawless), promises=promises)
    (row,) = metrics.to_pylist()
    assert (row["auroc"], row["false_alarms"], row["realised_rate"], row["is_promise_kept"]) == (None, 30, 1, False)
    (said,) = format_false_alarms(metrics, promises)
    assert said.startswith("false alarms of differnet on insulator, seed 0: 30 of 30 flawless photos reported, 100.0%")
    assert "promised 0.05 by 200 calibration photos: MORE THAN PROMISED" in said


def test_a_calibration_that_cannot_report_says_how_many_photos_it_needs() -> None:
    promises = _promises(Calibration(scores=tuple(range(18))), 0)
    rows = _table(_rows("differnet", seeds=[0]))
    metrics = measure_detectors(rows, promises=promises)
    (said,) = format_false_alarms(metrics, promises)
    assert "none possible, 18 held-out photos cannot support a false-alarm rate of 0.05: 19 are needed" in said


def test_metrics_of_each_detector_are_those_of_its_scores_and_lost_photos_are_counted() -> None:
    rows = _rows("differnet", seeds=[0, 1])
    table = measure_detectors(_table([_lost(rows[0]), *rows[1:]]))

    assert table.schema == METRICS
    assert [(row["seed"], row["flawless"], row["not_scored"]) for row in table.to_pylist()] == [(0, 29, 1), (1, 30, 0)]
    scores = np.array([row["score"] for row in rows[PHOTOS:]])
    expected = compute_metrics(np.arange(PHOTOS) >= 30, scores)
    found = table.to_pylist()[1]
    assert found["auroc"] == expected.auroc
    assert found["aupr"] == expected.aupr
    assert (found["recall_at_1_percent"], found["recall_at_5_percent"]) == (
        expected.recall_at_1_percent,
        expected.recall_at_5_percent,
    )
    assert found["auroc_low"] < found["auroc"] < found["auroc_high"]


def test_a_detector_without_metrics_has_a_row_with_the_reason() -> None:
    flawless = _rows("differnet", seeds=[0])[:30]
    silent = [_lost(row, Status.FAILED) for row in _rows("attentdiffernet_se", seeds=[0])]
    first, second = measure_detectors(_table(flawless, silent)).to_pylist()
    assert (first["variant"], first["reason"], first["not_scored"]) == ("attentdiffernet_se", "no photo was scored", 60)
    assert second["reason"] == "evaluation needs both classes, got 30 flawless and 0 defective"
    assert (second["flawless"], second["auroc"]) == (30, None)


def test_a_variant_s_mean_and_interval_are_over_its_seeds_means_over_categories() -> None:
    table = _table(_rows("differnet"), _rows("differnet", category="damper"))
    (summary,) = summarize_variants(measure_detectors(table), variants=["absent", "differnet"])

    def aurocs(category: str) -> list[float]:
        scored = group_scores(table)
        return [
            compute_auroc(photos.labels, photos.scores)
            for photos in (scored[category, "differnet", k] for k in range(3))
        ]

    assert summary.by_category["damper"]["auroc"] == estimate_seed_interval(aurocs("damper"))
    both = [(one + other) / 2 for one, other in zip(aurocs("damper"), aurocs("insulator"), strict=True)]
    assert summary.mean["auroc"].mean == pytest.approx(np.mean(both), abs=1e-12)
    assert summary.mean["auroc"].high == pytest.approx(estimate_seed_interval(both).high, abs=1e-12)
    assert summary.seeds == 3


def test_a_seed_that_misses_a_category_has_no_part_in_the_mean_over_categories() -> None:
    whole = _table(_rows("differnet", seeds=[0, 1]), _rows("differnet", seeds=[0, 1], category="damper"))
    partly = _table(_rows("differnet"), _rows("differnet", seeds=[0, 1], category="damper"))
    (expected,), (found,) = (
        summarize_variants(measure_detectors(table), variants=["differnet"]) for table in (whole, partly)
    )
    assert found.mean == expected.mean
    assert found.seeds == 2


def test_a_category_that_is_set_apart_is_in_no_mean_and_stays_in_the_table() -> None:
    table = _table(_rows("differnet"), _rows("differnet", seeds=[0], category="damper", shift=3.0))
    (alone,) = summarize_variants(measure_detectors(_table(_rows("differnet"))), variants=["differnet"])
    (found,) = summarize_variants(measure_detectors(table), variants=["differnet"], apart=["damper"])
    assert (found.mean, found.seeds) == (alone.mean, 3)
    assert found.by_category["damper"]["auroc"].mean > found.mean["auroc"].mean


def test_a_comparison_is_of_common_photos_and_common_seeds() -> None:
    first, second = _rows("differnet"), _rows("attentdiffernet_se", seeds=[1, 2, 3], shift=1.3)
    gone = [row for row in second if row["image_uri"] >= "file:///insulator/010.jpg"]
    (found,) = compare_with_reference(
        _table(first, gone), variants=["differnet", "attentdiffernet_se"], reference="differnet"
    )

    scored = group_scores(_table(first, gone))
    differences = [
        compute_auroc(other.labels, other.scores) - compute_auroc(one.labels[10:], one.scores[10:])
        for one, other in (
            (scored["insulator", "differnet", seed], scored["insulator", "attentdiffernet_se", seed]) for seed in (1, 2)
        )
    ]
    assert (found.variant, found.reference, found.seeds) == ("attentdiffernet_se", "differnet", 2)
    assert found.categories == ("insulator",)
    assert found.mean == pytest.approx(np.mean(differences), abs=1e-12)
    assert found.low is not None
    assert 0 < found.low < found.mean < (found.high or 0)


def test_a_variant_without_chance_is_compared_with_every_seed() -> None:
    table = _table(_rows("differnet"), _rows("mahalanobis", seeds=[None], shift=0.8))
    (found,) = compare_with_reference(table, variants=["differnet"], reference="mahalanobis")
    assert found.seeds == 3
    scored = group_scores(table)
    baseline = compute_auroc(
        scored["insulator", "mahalanobis", None].labels, scored["insulator", "mahalanobis", None].scores
    )
    aurocs = [compute_auroc(photos.labels, photos.scores) for key, photos in scored.items() if key[1] == "differnet"]
    assert found.mean == pytest.approx(np.mean(aurocs) - baseline, abs=1e-12)


def test_variants_with_nothing_in_common_are_not_compared() -> None:
    table = _table(_rows("differnet", seeds=[0]), _rows("attentdiffernet_se", seeds=[1]))
    (found,) = compare_with_reference(table, variants=["attentdiffernet_se"], reference="differnet")
    assert (found.mean, found.low, found.seeds, found.categories) == (None, None, 0, ())


@pytest.mark.slow
def test_there_is_a_histogram_per_category_and_variant_with_a_panel_per_seed() -> None:
    heavy = [
        {**row, "score": float(np.exp(3 * float(str(row["score"]))))} for row in _rows("differnet", seeds=range(4))
    ]
    found = dict(draw_histograms(group_scores(_table(heavy, _rows("mahalanobis", seeds=[None], category="mtd/tile")))))
    assert sorted(found) == ["insulator.differnet.png", "mtd/tile.mahalanobis.png"]
    sizes = {name: Image.open(io.BytesIO(png)).size for name, png in found.items()}
    # Panels 4.6 x 3.6 inches at 120 dots per inch, three in a row, 0.4 inches for the title.
    assert sizes["insulator.differnet.png"] == (1656, 912)
    assert sizes["mtd/tile.mahalanobis.png"] == (720, 480)


def test_scores_that_are_all_alike_still_give_a_picture() -> None:
    same = [{**row, "score": 1.0} for row in _rows("differnet", seeds=[0])]
    ((_, png),) = draw_histograms(group_scores(_table(same)))
    assert png.startswith(b"\x89PNG")
