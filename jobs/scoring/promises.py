"""What a run says of its p-values: the promise of each calibration, and what all alarms together are worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from jobs.scoring.plan import PlannedDetector, ScoringPlan
from jobs.scoring.publication.tally import RunTally
from model.statistics.calibration import count_ranks, describe_guarantee, find_min_rate, find_min_sample_size
from model.statistics.false_discovery import AlarmEstimates, add_estimates, estimate_alarms, list_trusted
from model.statistics.tail_rank import Tail


def describe_promises(plan: ScoringPlan) -> dict[str, dict[str, Any]]:
    """Describes what each category's calibration promises at its false-alarm rate.

    Returns:
        By category: ``false_alarm_rate`` asked for or chosen, ``confidence``, ``calibration_photos``, ``smallest_rate``
        that they support, ``photos_needed`` for the rate, ``threshold`` (None: no photo could be an anomaly, and
        is_anomaly is null) and ``promise``, the same in words.
    """
    return {
        category: {
            "false_alarm_rate": (rate := detector.false_alarm_rate),
            "confidence": (confidence := detector.confidence),
            "calibration_photos": (photos := len(detector.calibration.scores)),
            "smallest_rate": find_min_rate(photos, confidence=confidence),
            "photos_needed": find_min_sample_size(rate, confidence=confidence),
            "threshold": detector.threshold,
            "promise": describe_guarantee(photos, false_alarm_rate=rate, confidence=confidence),
        }
        for category, detector in sorted(plan.by_category.items())
    }


def describe_false_discoveries(plan: ScoringPlan, tally: RunTally) -> dict[str, Any]:
    """Describes what the alarms of a run are worth, see `model.statistics.false_discovery`.

    Returns:
        Of all photos, and under ``by_category`` of those of each category that has some: ``photos``, ``alarms``,
        ``expected_false_alarms``, ``defective_share`` and ``true_alarm_share`` (each ``value``, ``low``, ``high``), and
        ``lists``: for each ``q`` the ``photos`` that can be trusted and their ``p_value``, or the calibration
        ``photos_needed``.
    """
    known = {
        category: plan.by_category[category] for category in sorted(tally.p_values) if category in plan.by_category
    }
    estimates = {
        category: estimate_alarms(
            tally.p_values[category],
            calibration_photos=(photos := len(detector.calibration.scores)),
            ranks=count_ranks(photos, detector.false_alarm_rate, confidence=detector.confidence),
            alarms=tally.by_category[category]["anomalies"],
        )
        for category, detector in known.items()
    }
    return {
        **describe_estimates(add_estimates(list(estimates.values())), known, tally),
        "by_category": {
            category: describe_estimates(found, {category: known[category]}, tally)
            for category, found in estimates.items()
        },
    }


def describe_estimates(
    found: AlarmEstimates, detectors: Mapping[str, PlannedDetector], tally: RunTally
) -> dict[str, Any]:
    """Describes the estimates and trusted lists of some categories, as `describe_false_discoveries` says."""
    photos = [len(detector.calibration.scores) for detector in detectors.values()]
    lists = list_trusted([tally.p_values[category] for category in detectors], calibration_photos=photos)
    return {
        "photos": found.photos,
        "alarms": found.alarms,
        "expected_false_alarms": round(found.expected_false_alarms, 3),
        "defective_share": asdict(found.defective_share),
        "true_alarm_share": asdict(found.true_alarm_share) if found.alarms else None,
        "lists": [asdict(one) for one in lists],
    }


def describe_tail(tail: Tail) -> dict[str, Any]:
    """Describes the model behind a category's tail ranks: no estimate but an order where ``exceedances`` is 0."""
    return tail.model_dump(mode="json")
