"""Training as a job: plans the units, trains those that are not there, promotes champions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

from jobs.cluster.progress import Progress
from jobs.cluster.session import start_ray
from jobs.detectors import registry
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.errors import EXIT_DONE, EXIT_FAILED, JobError
from jobs.storage import uris
from jobs.training.champion import Candidate, choose_champion
from jobs.training.config import TrainConfig
from jobs.training.fleet import UnitResult, count_concurrent_units, train_units
from jobs.training.fleet_table import build_fleet_table, format_fleet_table, save_fleet_table
from jobs.training.units import TrainingUnit, find_trained, plan_units


def train_detectors(config: TrainConfig) -> int:
    """Trains, calibrates and registers the units of a request, promotes champions; returns the exit code.

    Raises:
        RequestError: photos or weights are not there, found before any cluster work.
        JobError: the only unit failed.
    """
    units = plan_units(config)
    results = []
    waiting = Counter(unit.config.category for unit in units)
    for result in train_or_find(config, units):
        results.append(result)
        print_result(result)
        category = result.unit.config.category
        waiting[category] -= 1
        if waiting[category] == 0:
            promote_champion(config, category, [done for done in results if done.unit.config.category == category])
    failed = [result for result in results if result.status == "failed"]
    if len(units) == 1 and failed:
        raise JobError(str(failed[0].reason))
    if len(units) > 1:
        rows = build_fleet_table(results, order=units)
        print(format_fleet_table(rows))
        print("table: " + save_fleet_table(rows, detectors=config.detectors, units=units))
    return EXIT_FAILED if failed else EXIT_DONE


def train_or_find(config: TrainConfig, units: Sequence[TrainingUnit]) -> Iterator[UnitResult]:
    """Yields the results of earlier runs, then each as it is trained; Ray starts only if one is missing."""
    left = []
    for unit in units:
        found = None if config.retrain else find_trained(unit)
        if found is None:
            left.append(unit)
        else:
            yield UnitResult(unit, "already trained", *found, seconds=0, reason=None)
    if left:
        yield from train_missing(config, left)


def train_missing(config: TrainConfig, units: Sequence[TrainingUnit]) -> Iterator[UnitResult]:
    """Loads backbone weights, starts Ray and trains the units; yields each result when it is there."""
    weights = {unit.weights_key: unit.config.detector for unit in units}
    loaded = {
        key: load_backbone_weights(detector, asked_as=f"--detector.weights {detector.weights}")
        for key, detector in weights.items()
    }
    start_ray()
    references = {key: ray.put(tensors) for key, tensors in loaded.items()}
    del loaded
    concurrent = min(count_concurrent_units(config), len(units))
    what = str(units[0]) if len(units) == 1 else f"{len(units)} detectors, {concurrent} at a time"
    print(f"training {what}, {config.workers} worker(s) each", flush=True)
    with Progress(sum(unit.config.optimizer.epochs for unit in units), activity="training", unit="epoch") as progress:
        yield from train_units(units, concurrent=concurrent, weights=references, report=progress.report)


def print_result(result: UnitResult) -> None:
    """Prints what became of one unit, and where its detector is."""
    config = result.unit.config
    if result.status == "failed":
        print(f"failed: {result.reason}", flush=True)
        return
    print(
        f"detector {result.detector_id} of {config.category} ({config.variant}): {result.status}, last epoch's loss "
        f"{result.metrics['loss_by_epoch'][-1]:.4f}"
    )
    for warning in result.metrics.get("warnings", []):
        print(f"warning: attention of {result.unit}: {warning}; compare it with a detector without attention")
    place = uris.join(config.detectors, config.category, str(result.detector_id))
    print(f"registered in {place}, alias {result.unit.alias}", flush=True)


def promote_champion(config: TrainConfig, category: str, results: Sequence[UnitResult]) -> None:
    """Points the alias at the best of a category's detectors, see `jobs.training.champion`."""
    if config.alias is None:
        return
    candidates = [make_candidate(result) for result in results if result.detector_id is not None]
    champion = choose_champion(candidates, variants=config.asked_variants)
    if champion is None:
        print(f"{config.alias} of {category} stays what it is: no new detector is fit to be one", flush=True)
        return
    reason = f"{champion.variant} seed {champion.seed}, of {len(candidates)} trained"
    before = registry.set_alias(
        config.detectors, category, alias=config.alias, detector_id=champion.detector_id, reason=reason
    )
    print(f"{config.alias} of {category}: {before or 'none'} -> {champion.detector_id}", flush=True)


def make_candidate(result: UnitResult) -> Candidate:
    """Returns what `choose_champion` has to know of a trained detector."""
    metrics: Mapping[str, Any] = result.metrics
    return Candidate(
        detector_id=str(result.detector_id),
        variant=result.unit.config.variant,
        seed=result.unit.config.detector.seed,
        validation_loss=metrics["validation_loss"],
        problems=metrics["problems"],
        calibration_photos=metrics["photos"]["calibration"],
    )
