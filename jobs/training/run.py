"""Training as a job: plans the units, trains those that are not there, promotes champions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import ray

from jobs import storage
from jobs.cluster.progress import Progress
from jobs.cluster.resources import Demand, wait_for_resources
from jobs.cluster.session import start_ray
from jobs.cluster.trackers import check_trackers
from jobs.detectors import registry
from jobs.detectors.aliases import NO_DETECTOR
from jobs.detectors.backbone_weights import WeightsFiles, load_backbone_weights
from jobs.errors import EXIT_DONE, EXIT_FAILED, ConflictError, JobError
from jobs.storage import uris
from jobs.tables.text import make_printable
from jobs.training.champion import Candidate, choose_champion
from jobs.training.config import TrainConfig
from jobs.training.fleet import UnitResult, count_concurrent_units, train_units
from jobs.training.fleet_table import build_fleet_table, format_fleet_table, save_fleet_table
from jobs.training.planning import plan_units
from jobs.training.units import TrainingUnit, find_trained, locate_work
from model.statistics.calibration import describe_guarantee


def train_detectors(config: TrainConfig) -> int:
    """Trains, calibrates and registers the units of a request, promotes champions; returns the exit code.

    Raises:
        RequestError: photos or weights are not there, found before any cluster work.
        JobError: the only unit failed.
    """
    check_trackers(config.trackers)
    weights = WeightsFiles()
    units = plan_units(config, weights)
    champions = read_champions(config, units)
    results = []
    waiting = Counter(unit.config.category for unit in units)
    for result in train_or_find(config, units, weights):
        results.append(result)
        print_result(result)
        category = result.unit.config.category
        waiting[category] -= 1
        if waiting[category] == 0 and config.alias is not None:
            done = [result for result in results if result.unit.config.category == category]
            print(promote_champion(config, category, done, found=champions.get(category)), flush=True)
    failed = [result for result in results if result.status == "failed"]
    if len(units) == 1 and failed:
        raise JobError(str(failed[0].reason))
    if len(units) > 1:
        rows = build_fleet_table(results, order=units)
        print(format_fleet_table(rows))
        print("table: " + save_fleet_table(rows, detectors=config.detectors, units=units))
    return EXIT_FAILED if failed else EXIT_DONE


def train_or_find(config: TrainConfig, units: Sequence[TrainingUnit], weights: WeightsFiles) -> Iterator[UnitResult]:
    """Yields the results of earlier runs, then each as it is trained; Ray starts only if one is missing."""
    left = []
    for unit in units:
        found = None if config.retrain else find_trained(unit)
        if found is None:
            left.append(unit)
        else:
            yield UnitResult(unit, "already trained", *found, seconds=0, reason=None)
    if left:
        yield from train_missing(config, left, weights)


def train_missing(config: TrainConfig, units: Sequence[TrainingUnit], weights: WeightsFiles) -> Iterator[UnitResult]:
    """Loads backbone weights, starts Ray and trains the units; yields each result when it is there.

    Raises:
        StorageError: the registry may not be listed, written or deleted from.
    """
    check_registry_rights(config.detectors)
    detectors = {unit.weights_key: unit.config.detector for unit in units}
    loaded = {
        key: load_backbone_weights(detector, weights, asked_as=f"--detector.weights {detector.weights}")
        for key, detector in detectors.items()
    }
    start_ray()
    flags = f"--workers {config.workers}" + (" --use-gpu" if config.use_gpu else "")
    wait_for_resources(Demand(flags, {"GPU": 1} if config.use_gpu else {"CPU": 1}, config.workers))
    references = {key: ray.put(tensors) for key, tensors in loaded.items()}
    del loaded
    concurrent = min(count_concurrent_units(config), len(units))
    what = str(units[0]) if len(units) == 1 else f"{len(units)} detectors, {concurrent} at a time"
    print(f"training {what}, {config.workers} worker(s) each", flush=True)
    with Progress(sum(unit.config.optimizer.epochs for unit in units), activity="training", unit="epoch") as progress:
        yield from train_units(units, concurrent=concurrent, weights=references, report=progress.report)


def check_registry_rights(detectors: str) -> None:
    """Lists, writes and deletes below a registry, as a training will: one that may not would fail hours later.

    Raises:
        DeniedError: names the right and the place.
        StorageError: the registry cannot be reached.
    """
    folder = locate_work(detectors)
    next(storage.list_between(folder), None)
    probe = uris.join(folder, "rights")
    storage.write(probe, b"")
    storage.delete(probe)


def print_result(result: UnitResult) -> None:
    """Prints what became of one unit, and where its detector is."""
    config = result.unit.config
    if result.status == "failed":
        print(f"failed: {make_printable(result.reason or '')}", flush=True)
        return
    print(
        f"detector {result.detector_id} of {config.category} ({config.variant}): {result.status}, last epoch's loss "
        f"{result.metrics['loss_by_epoch'][-1]:.4f}"
    )
    print(f"{result.unit}: {describe_unit_guarantee(result)}")
    for warning in result.metrics.get("warnings", []):
        print(f"warning: attention of {result.unit}: {warning}; compare it with a detector without attention")
    place = uris.join(config.detectors, config.category, str(result.detector_id))
    print(f"registered in {place}, alias {result.unit.alias}", flush=True)


def describe_unit_guarantee(result: UnitResult) -> str:
    """Says in words what a trained detector's calibration promises at the rate and confidence asked for."""
    config = result.unit.config
    return describe_guarantee(
        result.metrics["photos"]["calibration"], false_alarm_rate=config.false_alarm_rate, confidence=config.confidence
    )


def read_champions(config: TrainConfig, units: Sequence[TrainingUnit]) -> dict[str, str]:
    """Returns the champion of each category before anything is trained; none for a category that has no champion."""
    if config.alias is None:
        return {}
    aliases = {
        category: registry.read_aliases(config.detectors, category).get(config.alias)
        for category in dict.fromkeys(unit.config.category for unit in units)
    }
    return {category: detector_id for category, detector_id in aliases.items() if detector_id is not None}


def promote_champion(config: TrainConfig, category: str, results: Sequence[UnitResult], *, found: str | None) -> str:
    """Points the alias at the best of a category's detectors, see `jobs.training.champion`; returns what became of it.

    A detector of an earlier call replaces no champion: a person may have rolled it back, or a search promoted a better
    one. Neither does a new detector replace a champion that came while it was trained.

    Args:
        config: the request.
        category: whose alias.
        results: of all the category's units.
        found: the champion before anything was trained; None for none.
    """
    alias = str(config.alias)
    candidates = [make_candidate(result) for result in results if result.detector_id is not None]
    best = choose_champion(candidates, variants=config.asked_variants)
    stays = f"{alias} of {category} stays {found or 'unset'}"
    if best is None:
        return f"{stays}: no new detector is fit to be one"
    if best.detector_id == found:
        return stays
    if found is not None and not best.is_new:
        said = f"the best of this request, {best.detector_id}, was trained by an earlier call"
        return f"{stays}: {said}; {advise_promotion(config, best, category=category)}"
    reason = f"{best.variant} seed {best.seed}, of {len(candidates)} trained"
    expected = found or NO_DETECTOR
    try:
        registry.set_alias(
            config.detectors, category, alias=alias, detector_id=best.detector_id, reason=reason, expected=expected
        )
    except ConflictError as error:
        return f"{error}; it changed while this call trained. {advise_promotion(config, best, category=category)}"
    return f"{alias} of {category}: {found or 'none'} -> {best.detector_id}"


def advise_promotion(config: TrainConfig, best: Candidate, *, category: str) -> str:
    """Returns the command that promotes a detector by hand."""
    return (
        f"to promote it: python -m jobs.registry promote --detectors {config.detectors} --category {category} "
        f"--name {best.detector_id} --alias {config.alias}"
    )


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
        is_new=result.status == "trained",
    )
