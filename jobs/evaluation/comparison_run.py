"""The comparison as a job: plan the units, run those that are not finished as Ray tasks, report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray
import torch

from jobs.archive.manifest import list_archive
from jobs.cluster.datasets import count_scoring_actors
from jobs.cluster.progress import Progress, Report
from jobs.cluster.session import explain_error, start_ray
from jobs.cluster.task_pool import run_tasks
from jobs.config import ScoringResources
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.detectors.lineage import hash_manifest, read_git_commit
from jobs.errors import EXIT_DONE, EXIT_FAILED, RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.evaluation.comparison_report import Failure, report
from jobs.evaluation.comparison_units import Unit, decode, finished, learn_attention, run_unit
from model.baselines import BASELINES
from model.config import DetectorConfig

_LABELLED = r"(?P<category>[^/]+)/(?P<site>train/good|test/[^/]+)/"
"""The label stands where an archive has its site, so that it travels with the row."""
FEWEST_TRAINING_PHOTOS = 4

Outcome = Mapping[str, Any]
_Weights = Mapping[str, torch.Tensor] | None


def run(config: ComparisonConfig) -> int:
    """Runs what is not finished yet, writes and prints the comparison; returns 1 if a unit failed, else 0."""
    manifests = _manifests(config)
    units = {unit.uri(config.output): unit for unit in plan_units(config, manifests)}
    known = {uri: finished(uri) for uri in units}
    outcomes: dict[str, Outcome] = {uri: outcome for uri, outcome in known.items() if outcome is not None}
    failures: list[Failure] = []
    todo = {uri: unit for uri, unit in units.items() if uri not in outcomes}
    print(f"comparison of {len(units)} units, {len(outcomes)} of them finished before", flush=True)
    _warn_of_other_code(outcomes.values())
    if todo:
        weights = {unit.weights: _weights(unit.detector) for unit in todo.values()}
        start_ray()
        new, failures = _run_units(config, todo, manifests, weights)
        outcomes |= new
    report(config, [outcomes[uri] for uri in units if uri in outcomes], failures, manifests)
    return EXIT_FAILED if failures else EXIT_DONE


def _manifests(config: ComparisonConfig) -> dict[str, pa.Table]:
    """``<data set>/<category>`` -> MANIFEST rows of its training and labelled test photos.

    Raises:
        RequestError: two data sets of one name, or a category without training photos or test photos of both classes.
    """
    found: dict[str, pa.Table] = {}
    for root in config.data:
        listing = list_archive(root, key_pattern=_LABELLED)
        for category in sorted({name for name in listing["category"].to_pylist() if name}):
            name = f"{root.rsplit('/', 1)[-1]}/{category}"
            if name in found:
                raise RequestError(f"two of --data hold {name}: the last parts of their paths must differ")
            found[name] = listing.filter(pc.equal(listing["category"], category))
            _check_photos(name, Counter(found[name]["site"].to_pylist()))
        if not any(name.startswith(root.rsplit("/", 1)[-1] + "/") for name in found):
            raise RequestError(f"{root} has no photos in MVTec layout: expected <category>/train/good/<photo>")
    return found


def _check_photos(name: str, counts: Mapping[str, int]) -> None:
    defective = sum(count for site, count in counts.items() if site not in ("train/good", "test/good"))
    if counts["train/good"] < FEWEST_TRAINING_PHOTOS or not counts["test/good"] or not defective:
        raise RequestError(
            f"{name} needs at least {FEWEST_TRAINING_PHOTOS} photos in train/good, and some in test/good and "
            f"test/<defect>, got {counts['train/good']}, {counts['test/good']} and {defective}"
        )


def plan_units(config: ComparisonConfig, manifests: Mapping[str, pa.Table]) -> list[Unit]:
    """All units, seed by seed so that a comparison of fewer seeds is there early, anchors first.

    Args:
        config: what is asked for.
        manifests: category -> MANIFEST rows.
    """
    if shared := BASELINES.keys() & set(config.variants):
        raise RequestError(f"custom: {', '.join(shared)} is the name of an anchor, take another")
    hashes = {category: hash_manifest(manifest) for category, manifest in manifests.items()}
    every_hash = "+".join(hashes[category] for category in sorted(hashes))
    units = []
    for name, anchor in BASELINES.items() if config.anchors else ():
        plain = DetectorConfig.model_validate({**config.detector.model_dump(exclude_unset=True), "variant": name})
        seeds = range(config.seeds) if anchor.is_seeded else [None]
        units += [Unit(category, name, seed, plain, None, hashes[category]) for category in manifests for seed in seeds]
    for seed in range(config.seeds):
        for variant in config.variants:
            detector = config.detector_config(variant, seed=seed)
            photos = dict.fromkeys(hashes, every_hash) if _sees_all(config, detector) else hashes
            units += [
                Unit(category, variant, seed, detector, config.optimizer, photos[category]) for category in manifests
            ]
    return units


def _sees_all(config: ComparisonConfig, detector: DetectorConfig) -> bool:
    """Whether a unit's attention learns from the photos of all categories."""
    return config.pretext_on == "all" and detector.attention_training == "pretext" and bool(detector.attention)


def _warn_of_other_code(outcomes: Iterable[Outcome]) -> None:
    commit = read_git_commit()
    others = Counter(outcome["git_commit"] for outcome in outcomes if outcome["git_commit"] != commit)
    for other, count in others.items():
        print(
            f"warning: {count} finished unit(s) come from code {other}, this is {commit}: take a new --output to redo"
        )


def _weights(detector: DetectorConfig) -> _Weights:
    return load_backbone_weights(detector, asked_as=f"weights {detector.weights} of {detector.backbone}")


def _run_units(
    config: ComparisonConfig,
    todo: Mapping[str, Unit],
    manifests: Mapping[str, pa.Table],
    weights: Mapping[tuple[str, str], _Weights],
) -> tuple[dict[str, Outcome], list[Failure]]:
    """Runs units as Ray tasks, a limited number at a time; one that fails does not end the others."""
    tasks = config.tasks or count_scoring_actors(ScoringResources())
    photos = _decoded(config, todo.values(), manifests)
    references = {source: ray.put(tensors) for source, tensors in weights.items()}
    attention = _attention(config, todo.values(), photos, references, tasks=tasks)
    remote = ray.remote(num_cpus=1)(run_unit)
    outcomes: dict[str, Outcome] = {}
    failures: list[Failure] = []

    def start(uri: str) -> Any:
        unit = todo[uri]
        mine = photos[unit.category, unit.detector.image_size]
        return remote.remote(unit, uri, mine, references[unit.weights], attention.get(_attention_key(unit)))

    with Progress(len(todo), activity="comparing", unit="unit") as progress:
        for uri, done in run_tasks(list(todo), start, tasks=tasks):
            outcome = _outcome(done, todo[uri], progress.report)
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                outcomes[uri] = outcome
    return outcomes, failures


def _attention(
    config: ComparisonConfig,
    todo: Iterable[Unit],
    photos: Mapping[tuple[str, int], Any],
    references: Mapping[tuple[str, str], Any],
    *,
    tasks: int,
) -> dict[str, Any]:
    """References to attention that has learnt from all categories, by `_attention_key`; one for many units."""
    wanted = {_attention_key(unit): unit for unit in todo if unit.optimizer and _sees_all(config, unit.detector)}
    remote = ray.remote(num_cpus=1)(learn_attention)

    def start(key: str) -> Any:
        unit = wanted[key]
        categories = [photos[name] for name in sorted(photos) if name[1] == unit.detector.image_size]
        return remote.remote(unit.detector, references[unit.weights], *categories)

    if not wanted:
        return {}
    with Progress(len(wanted), activity="learning attention", unit="variant and seed") as progress:
        found = {}
        for key, done in run_tasks(list(wanted), start, tasks=tasks):
            progress.report({"done": 1})
            found[key] = done  # one that failed fails its units, each with the reason
        return found


def _attention_key(unit: Unit) -> str:
    return unit.detector.model_dump_json()


def _decoded(
    config: ComparisonConfig, todo: Iterable[Unit], manifests: Mapping[str, pa.Table]
) -> dict[tuple[str, int], Any]:
    """(category, image size) -> reference to the photos, decoded once in a task; only those that units need."""
    needed: set[tuple[str, int]] = set()
    for unit in todo:
        sees_all = unit.optimizer is not None and _sees_all(config, unit.detector)
        needed |= {(category, unit.detector.image_size) for category in (manifests if sees_all else [unit.category])}
    remote = ray.remote(num_cpus=1)(decode)
    return {
        (category, size): remote.remote(manifests[category], size, config.max_pixels)
        for category, size in sorted(needed)
    }


def _outcome(done: Any, unit: Unit, tell: Report) -> Outcome | Failure:
    """What a task came to; a failure is said at once."""
    try:
        found: Outcome = ray.get(done)
    except ray.exceptions.RayError as error:
        reason = explain_error(error).removeprefix("JobError: ")
        print(f"failed: {unit}: {reason}", flush=True)
        tell({"failed": 1})
        return Failure(unit.category, unit.variant, unit.seed, reason)
    tell({"done": 1}, f"{unit} took {found['seconds']:.0f} s")
    return found
