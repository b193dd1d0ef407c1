"""The comparison as a job: plan the units, run those that are not finished as Ray tasks, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import safetensors.torch
from torch import Tensor

from jobs import storage
from jobs.archive.mvtec import list_labelled
from jobs.archive.selection import Selection
from jobs.cluster.datasets import count_scoring_actors
from jobs.cluster.resources import Demand, wait_for_resources
from jobs.cluster.session import start_ray
from jobs.cluster.task_pool import FAILED, Stored, read_outcomes, run_and_keep, run_units
from jobs.config import ScoringResources
from jobs.detectors.backbone_weights import WeightsFiles, load_backbone_weights
from jobs.detectors.lineage import read_git_commit
from jobs.errors import EXIT_DONE, EXIT_FAILED, JobError, MissingObjectError, RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.evaluation.comparison_features import can_share_features, locate_features
from jobs.evaluation.comparison_report import Failure, count_photos, write_comparison
from jobs.evaluation.comparison_tasks import decode_category, learn_attention, train_and_test
from jobs.evaluation.comparison_units import ComparisonUnit, plan_units
from model.config import PixelRules

MIN_TRAINING_PHOTOS = 4

Units = Mapping[str, ComparisonUnit]
"""URI of the outcome -> unit."""
References = Mapping[tuple[Any, ...], Any]
"""`ComparisonUnit.photos_key` or `ComparisonUnit.weights_key` -> what it names, in Ray's object store."""


def compare_variants(config: ComparisonConfig) -> int:
    """Runs what is not finished yet, writes and prints the comparison; returns 1 if a unit failed, else 0."""
    manifests = list_categories(config)
    weights = WeightsFiles()
    units = {unit.locate_outcome(config.output): unit for unit in plan_units(config, manifests, weights)}
    outcomes = read_outcomes(units)
    print(f"comparison of {len(units)} units, {len(outcomes)} of them finished before", flush=True)
    warn_of_other_code(outcomes.values())
    if len(outcomes) < len(units):
        missing = {uri: unit for uri, unit in units.items() if uri not in outcomes}
        outcomes |= run_missing(missing, config, manifests, weights)
    failures = [
        Failure(unit.category, unit.variant, unit.seed, outcomes[uri][FAILED])
        for uri, unit in units.items()
        if FAILED in outcomes[uri]
    ]
    write_comparison(config, [outcomes[uri] for uri in units if FAILED not in outcomes[uri]], failures, manifests)
    return EXIT_FAILED if failures else EXIT_DONE


def list_categories(config: ComparisonConfig) -> dict[str, pa.Table]:
    """Lists the photos of all data sets.

    Returns:
        ``<data set>/<category>`` -> LABELLED rows of its training and test photos.

    Raises:
        RequestError: two data sets of one name, or a category without training photos or test photos of both classes.
    """
    found: dict[str, pa.Table] = {}
    for root in config.data:
        listing = list_labelled(root, selection=Selection(config.include, config.exclude))
        listing = listing.filter(pc.not_equal(listing["split"], "validation"))
        for category in sorted(set(listing["category"].to_pylist())):
            name = f"{root.rsplit('/', 1)[-1]}/{category}"
            if name in found:
                raise RequestError(f"two of --data hold {name}: the last parts of their paths must differ")
            found[name] = listing.filter(pc.equal(listing["category"], category))
            check_photos(name, found[name])
        if not any(name.startswith(root.rsplit("/", 1)[-1] + "/") for name in found):
            raise RequestError(f"{root} has no photos in MVTec layout: expected <category>/train/good/<photo>")
    return found


def check_photos(name: str, rows: pa.Table) -> None:
    """Checks that a category has photos to train with and test photos of both classes.

    Args:
        name: of the category, for the message.
        rows: its LABELLED rows.

    Raises:
        RequestError: it has not.
    """
    count = count_photos(rows)
    if count["train"] < MIN_TRAINING_PHOTOS or not count["test_flawless"] or not count["test_defective"]:
        raise RequestError(
            f"{name} needs at least {MIN_TRAINING_PHOTOS} photos in train/good, and some in test/good and "
            f"test/<defect>, got {count['train']}, {count['test_flawless']} and {count['test_defective']}"
        )


def warn_of_other_code(outcomes: Iterable[Stored]) -> None:
    """Prints how many outcomes come from another commit than this one."""
    commit = read_git_commit()
    others = Counter(outcome["git_commit"] for outcome in outcomes if outcome["git_commit"] != commit)
    for other, count in others.items():
        print(
            f"warning: {count} finished unit(s) come from code {other}, this is {commit}: take a new --output to redo"
        )


def run_missing(
    units: Units, config: ComparisonConfig, manifests: Mapping[str, pa.Table], files: WeightsFiles
) -> dict[str, Stored]:
    """Runs units as Ray tasks, a limited number at a time, and keeps their outcomes.

    Returns:
        URI -> outcome.

    Raises:
        RequestError: backbone weights are not there, found before any cluster work.
    """
    detectors = {unit.weights_key: unit.detector for unit in units.values()}
    loaded = {
        key: load_backbone_weights(detector, files, asked_as=f"weights {detector.weights} of {detector.backbone}")
        for key, detector in detectors.items()
    }
    start_ray()
    wait_for_resources(Demand("comparison", {"CPU": 1}))
    tasks = config.tasks or count_scoring_actors(ScoringResources())
    weights = {key: ray.put(tensors) for key, tensors in loaded.items()}
    photos = decode_photos(config, units.values(), manifests)
    attention = learn_shared_attention(units.values(), photos, weights, tasks=tasks, output=config.output)
    remote: Any = ray.remote(num_cpus=1)(train_and_test)
    commit = read_git_commit()

    def work(unit: ComparisonUnit) -> Stored:
        learnt = attention.get(unit.detector.model_dump_json())
        shares = config.leave_one_set_out and can_share_features(unit)
        features = locate_features(unit, config.output) if shares else None
        task = remote.remote(unit, photos[unit.photos_key], weights[unit.weights_key], learnt, features)
        return {**ray.get(task), "git_commit": commit}

    return run_and_keep(units, work, at_a_time=tasks, activity="comparing", noun="unit")


def learn_shared_attention(
    units: Iterable[ComparisonUnit], photos: References, weights: References, *, tasks: int, output: str
) -> dict[str, Any]:
    """Learns attention from all categories, one for many units, and keeps each in ``output`` as soon as it is there.

    Returns:
        Detector as JSON -> reference to its attention. One that failed fails its units, each with the reason.

    Raises:
        JobError: the cluster is gone, or attention cannot be kept.
    """
    learners = {unit.detector.model_dump_json(): unit for unit in units if unit.sees_all}
    learnt: dict[str, Any] = {
        key: ray.put(kept) for key, unit in learners.items() if (kept := read_attention(unit, output)) is not None
    }
    remote = ray.remote(num_cpus=1)(learn_attention)

    def work(key: str) -> Any:
        unit = learners[key]
        categories = [photos[name] for name in sorted(photos) if name[1:] == unit.photos_key[1:]]
        task = remote.remote(unit.detector, weights[unit.weights_key], *categories)
        try:
            tensors = ray.get(task)
        except ray.exceptions.RayError:
            return task  # its units fail by it, each with the reason
        storage.write(unit.locate_attention(output), safetensors.torch.save(tensors))
        return task

    missing = [key for key in learners if key not in learnt]
    if learners:
        before = f", {len(learnt)} of them learnt before" if learnt else ""
        print(f"learning the attention of {len(learners)} variant(s) and seed(s){before}", flush=True)
    for number, found in enumerate(run_units(missing, work, at_a_time=tasks), start=1):
        if found.reason:
            raise JobError(found.reason)
        learnt[found.unit] = found.result
        print(f"learnt {number} of {len(missing)}, took {found.seconds:.0f} s", flush=True)
    return learnt


def read_attention(unit: ComparisonUnit, output: str) -> dict[str, Tensor] | None:
    """Reads the attention that an earlier run has learnt; None where there is none."""
    try:
        return safetensors.torch.load(storage.read(unit.locate_attention(output)))
    except MissingObjectError:
        return None


def decode_photos(
    config: ComparisonConfig, units: Iterable[ComparisonUnit], manifests: Mapping[str, pa.Table]
) -> dict[tuple[str, int, PixelRules], Any]:
    """Decodes the photos that units need, once in a task; returns references by `ComparisonUnit.photos_key`."""
    needed = {
        (category, unit.detector.image_size, unit.detector.pixel_rules)
        for unit in units
        for category in (manifests if unit.sees_all else [unit.category])
    }
    remote: Any = ray.remote(num_cpus=1)(decode_category)
    held_out = (config.calibration_fraction, config.group_by, config.key_pattern)
    return {
        key: remote.remote(manifests[key[0]], key[1], config.max_pixels, key[2], *held_out)
        for key in sorted(needed, key=str)
    }
