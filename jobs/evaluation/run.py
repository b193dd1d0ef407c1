"""Evaluation as a job: score labelled photos with registered detectors, and say how well each variant does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import ray

from jobs.archive.mvtec import list_labelled, select_split
from jobs.archive.selection import Selection
from jobs.cluster.arithmetic import choose_precisions
from jobs.cluster.datasets import (
    collect_table,
    count_most_scoring_actors,
    decode_manifest,
    map_in_scoring_actors,
    wait_for_scoring_resources,
)
from jobs.cluster.progress import Progress
from jobs.cluster.session import explain_error, start_ray
from jobs.cluster.tally import Report
from jobs.decoding.decoder import make_decode_limits
from jobs.decoding.fetch import DECODE_BATCH_PHOTOS, FetchDecode
from jobs.detectors import registry
from jobs.errors import EXIT_DONE, JobError, RequestError
from jobs.evaluation.config import EvaluateConfig
from jobs.evaluation.flawless import (
    build_calibration_rows,
    check_flawless_photos,
    list_calibrations,
    list_without_flawless,
    make_promises,
)
from jobs.evaluation.metrics import (
    DetectorKey,
    compare_with_reference,
    measure_detectors,
    summarize_variants,
)
from jobs.evaluation.report import Evaluation, MissingDetector, format_evaluation, write_evaluation
from jobs.evaluation.stage import NamedDetector, ScoreWithEach
from jobs.tables.schema import EVALUATED
from model.statistics.false_alarms import Promise

"""The label stands where the archive has its site, so that it travels with the row."""
_BATCH_PHOTOS = 64
"""Photos per batch: each of its detectors may have to be loaded for it."""

DetectorsByCategory = Mapping[str, Sequence[NamedDetector]]


def evaluate_detectors(config: EvaluateConfig) -> int:
    """Evaluates what there is of the detectors asked for, prints the metrics and returns the exit code.

    Raises:
        RequestError: no photos or no detector, found before any cluster work.
        JobError: the cluster failed.
    """
    manifest = list_labelled_photos(config)
    candidates, missing = find_detectors(config, sorted(set(manifest["category"].to_pylist())))
    calibrations = list_calibrations(candidates)
    start_ray()
    try:
        rows = score_photos(config, manifest, candidates)
    except ray.exceptions.RayError as error:
        raise JobError(f"evaluation stopped: {explain_error(error)}") from error
    lacking = list_without_flawless(manifest)
    rows = pa.concat_tables([rows, build_calibration_rows(calibrations, lacking=lacking)])
    promises = make_promises(config, calibrations, lacking=lacking)
    found = summarize_rows(config, rows, missing, promises=promises)
    print(format_evaluation(found))
    if config.output:
        write_evaluation(found, config.output, request=config.model_dump(mode="json"))
        print(f"written to {config.output}")
    return EXIT_DONE


def summarize_rows(
    config: EvaluateConfig,
    rows: pa.Table,
    missing: Sequence[MissingDetector],
    *,
    promises: Mapping[DetectorKey, Promise],
) -> Evaluation:
    """Computes metrics, summaries and comparisons of EVALUATED rows."""
    metrics = measure_detectors(rows, promises=promises)
    variants = config.variants or sorted(set(rows["variant"].to_pylist()))
    return Evaluation(
        rows=rows,
        metrics=metrics,
        summaries=summarize_variants(metrics, variants=variants),
        comparisons=compare_with_reference(rows, variants=config.variants[1:], reference=variants[0]),
        missing=missing,
        promises=promises,
    )


def list_labelled_photos(config: EvaluateConfig) -> pa.Table:
    """Returns LABELLED rows of the test photos.

    Raises:
        RequestError: a category has no test photos, or no flawless ones, or there is no category.
    """
    listing = select_split(list_labelled(config.data, selection=Selection(config.include, config.exclude)), "test")
    wanted = set(config.categories or listing["category"].to_pylist())
    absent = wanted - set(listing["category"].to_pylist())
    if absent or not wanted:
        what = ", ".join(sorted(absent)) or "any category"
        raise RequestError(f"{config.data} has no test photos of {what}: expected <category>/test/<label>/<photo>")
    keep = [name in wanted for name in listing["category"].to_pylist()]
    manifest = listing.filter(pa.array(keep))
    if config.flawless == "test":
        check_flawless_photos(config.data, manifest)
    return manifest


def find_detectors(
    config: EvaluateConfig, categories: Sequence[str]
) -> tuple[DetectorsByCategory, list[MissingDetector]]:
    """Returns the registered detectors asked for, by category, and what is missing or damaged.

    Raises:
        RequestError: none is there at all.
    """
    found: dict[str, list[NamedDetector]] = {}
    missing = []
    for category in categories:
        for wanted in list_wanted_detectors(config):
            one = find_detector(config, category, wanted)
            if isinstance(one, NamedDetector):
                found.setdefault(category, []).append(one)
            else:
                missing.append(one)
    if not found:
        raise RequestError(
            f"{config.detectors} has no detector of {', '.join(categories[:5])} to evaluate "
            f"({missing[0].alias} of {missing[0].category}: {missing[0].reason}): train one or correct --detectors"
        )
    return found, missing


@dataclass(frozen=True)
class WantedDetector:
    """An alias, and the variant and seed it stands for; None takes the detector's own."""

    alias: str
    variant: str | None = None
    seed: int | None = None


def list_wanted_detectors(config: EvaluateConfig) -> list[WantedDetector]:
    """Returns the aliases to look for in each category."""
    if not config.variants:
        return [WantedDetector(config.alias)]
    return [
        WantedDetector(f"{variant}.seed{seed}", variant, seed)
        for variant in config.variants
        for seed in range(config.seeds)
    ]


def find_detector(config: EvaluateConfig, category: str, wanted: WantedDetector) -> NamedDetector | MissingDetector:
    """Returns the detector behind an alias, or why it cannot be evaluated."""
    try:
        registered = registry.resolve(config.detectors, category, alias=wanted.alias)
    except RequestError as error:
        return MissingDetector(category, wanted.alias, str(error))
    if registered is None:
        return MissingDetector(category, wanted.alias, "not registered")
    seed = registered.config.seed if wanted.seed is None else wanted.seed
    return NamedDetector(wanted.variant or registered.config.variant, seed, registered)


def score_photos(config: EvaluateConfig, manifest: pa.Table, candidates: DetectorsByCategory) -> pa.Table:
    """Returns EVALUATED rows, by one or more passes over the photos.

    Raises:
        ray.exceptions.RayError: the cluster failed.
    """
    parts = split_into_passes(candidates)
    photos = [manifest.filter(pa.array([name in part for name in manifest["category"].to_pylist()])) for part in parts]
    scores = sum(
        len(part[name]) for part, some in zip(parts, photos, strict=True) for name in some["category"].to_pylist()
    )
    with Progress(scores, activity="evaluating", unit="score") as progress:
        tables = [
            collect_table(build_dataset(config, some, part, report=progress.report), schema=EVALUATED)
            for some, part in zip(photos, parts, strict=True)
        ]
    return pa.concat_tables(tables)


def split_into_passes(candidates: DetectorsByCategory) -> list[dict[str, list[NamedDetector]]]:
    """Splits detectors into passes, within each of which those of a category have one image size, black and white.

    A pass decodes each photo once, whatever the number of its detectors; nearly always one pass does.
    """
    found: list[dict[str, list[NamedDetector]]] = []
    for category, mine in candidates.items():
        decodings = {(one.registered.config.image_size, one.registered.config.pixel_rules) for one in mine}
        for number, decoding in enumerate(sorted(decodings, key=lambda one: (one[0], str(one[1])))):
            if number == len(found):
                found.append({})
            found[number][category] = [
                one for one in mine if (one.registered.config.image_size, one.registered.config.pixel_rules) == decoding
            ]
    return found


def build_dataset(
    config: EvaluateConfig, manifest: pa.Table, candidates: DetectorsByCategory, *, report: Report
) -> ray.data.Dataset:
    """Returns the dataset of EVALUATED rows of one pass, not run yet.

    Args:
        config: of the evaluation.
        manifest: MANIFEST rows of the photos.
        candidates: detectors of one image size per category.
        report: of a running Progress.
    """
    resources = config.scoring
    wait_for_scoring_resources(resources)
    asked_for = [one.registered for mine in candidates.values() for one in mine]
    chosen = choose_precisions(
        [detector.config.precision for detector in asked_for], asked=resources.precision, resources=resources
    )
    precisions = {detector.detector_id: precision for detector, precision in zip(asked_for, chosen, strict=True)}
    fetch_decode = FetchDecode(
        image_sizes={category: mine[0].registered.config.image_size for category, mine in candidates.items()},
        max_pixels=resources.max_pixels,
        concurrency=resources.fetch_concurrency,
        limits=make_decode_limits(resources),
        rules={category: mine[0].registered.config.pixel_rules for category, mine in candidates.items()},
    )
    blocks = [manifest.slice(start, DECODE_BATCH_PHOTOS) for start in range(0, len(manifest), DECODE_BATCH_PHOTOS)]
    actors = count_most_scoring_actors(resources)
    tasks = None if resources.use_gpu else actors
    decoding = decode_manifest(ray.data.from_arrow(blocks), fetch_decode.__call__, tasks=tasks, report=report)
    arguments = {
        "detectors": config.detectors,
        "candidates": candidates,
        "cache_bytes": resources.detector_cache_bytes,
        "precisions": precisions,
        "report": report,
    }
    batch_photos = resources.batch_photos or _BATCH_PHOTOS
    return map_in_scoring_actors(
        decoding, ScoreWithEach, arguments, batch_photos=batch_photos, resources=resources, report=report
    )
