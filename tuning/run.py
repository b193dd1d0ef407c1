"""A search from photos to winner: split, trials, finalists, the final comparison, results.

Every step keeps its outcome in the results folder and finds it there again. So the same command goes on after its
driver, or the head of the cluster, has died.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ray
from torch import Tensor

from jobs.cluster.resources import Demand, wait_for_resources
from jobs.cluster.session import start_ray
from jobs.cluster.trackers import check_trackers
from jobs.detectors.backbone_weights import WeightsFiles, hash_backbone_weights, load_backbone_weights
from jobs.errors import EXIT_DONE, EXIT_FAILED, RequestError, one_line
from tuning.choice.final import TUNED, build_final_rows, make_final_promises, plan_final, run_final
from tuning.choice.finalists import put_winner_first, run_finalists
from tuning.choice.split import Split, read_mark, split_data
from tuning.choice.split_report import describe_split, estimate_standard_error
from tuning.choice.winner import promote_winner, save_winner
from tuning.config import LABEL_FREE_METRICS, SearchConfig
from tuning.report.results import SearchResults, save_results
from tuning.space.presets import Preset, build_presets
from tuning.space.space import check_space, read_space
from tuning.trials.features import FeatureCache
from tuning.trials.measure import SearchResources
from tuning.trials.photos import decode_search_photos
from tuning.trials.records import TrialRecord, claim_results, load_records
from tuning.trials.run import plan_rungs, run_trials
from tuning.trials.trial import TrialSettings

METRICS = ("auroc", *LABEL_FREE_METRICS, "gflop", "cpu_s")
FALSE_ALARM_RATE = 0.05
"""Rate whose promise the final comparison sets the false alarms on flawless test photos against."""
DEFAULT_LABEL_FREE = "held_out_gain"
"""What judges where there are no labels and nothing was asked for."""


def run(config: SearchConfig) -> int:
    """Searches, compares and writes the results; returns 1 if a detector of the comparison failed, else 0.

    Raises:
        RequestError: photos, weights, space or results folder do not fit, found before any cluster work.
        JobError: no trial was good for anything.
    """
    split = split_data(
        config.data,
        config.category,
        validation_share=config.validation_share,
        include=config.include,
        exclude=config.exclude,
        group_by=config.group_by,
        key_pattern=config.key_pattern,
        rules=config.detector.pixel_rules,
        verdicts=config.verdicts,
    )
    objective = choose_objective(config, split)
    presets = check_request(config, split)
    files, asked_as = WeightsFiles(), f"--detector.weights {config.detector.weights}"
    weights = load_backbone_weights(config.detector, files, asked_as=asked_as)
    weights_hash = hash_backbone_weights(config.detector, files, asked_as=asked_as)
    claim_results(config, photos_hash=split.photos_hash, weights_hash=weights_hash)
    lines = describe_split(split, objective)
    print("\n".join(lines), flush=True)
    start_ray()
    gpus = {"GPU": config.gpus_per_worker} if config.gpus_per_worker else {}
    flags = f"--workers {config.workers}" + (f" --gpus-per-worker {config.gpus_per_worker:g}" if gpus else "")
    wait_for_resources(Demand(flags, {"CPU": 1, **gpus}, config.workers))
    trials = prepare_trials(config, split, presets, objective=objective, weights=weights)
    records = complete_trials(config, presets, trials)
    finalists, why = put_winner_first(
        run_finalists(config, records, trials),
        margin=lambda auroc: config.caution * estimate_standard_error(split, auroc) if objective == "auroc" else 0.0,
    )
    if why:
        print(why, flush=True)
        lines.append(why)
    found = SearchResults(config, objective, records, finalists, lines)
    print(save_winner(config, finalists[0]), flush=True)
    code = compare_on_test(config, split, presets, trials, found) if config.final else EXIT_DONE
    print(describe_cache(trials.shared.cache))
    ray.kill(trials.shared.cache)  # Ray Tune keeps what trials were given: it would live as long as this process
    save_results(found)
    return code


def prepare_trials(
    config: SearchConfig,
    split: Split,
    presets: Sequence[Preset],
    *,
    objective: str,
    weights: Mapping[str, Tensor] | None,
) -> TrialSettings:
    """Starts to decode the photos and gathers what trials share; Ray must be running.

    Args:
        config: of the search.
        split: its photos.
        presets: tried first.
        objective: what trials are judged by.
        weights: the backbone's by name; None for random ones.
    """
    # It can be started again, empty, if it dies: what is lost is computed again.
    cache = ray.remote(num_cpus=0, max_restarts=-1)(FeatureCache).remote()
    sizes = {int(str(size)) for size in config.space.image_size or []}
    sizes |= {preset.configuration.detector.image_size for preset in presets}
    photos = decode_by_size(config, split, split.validation, sizes)
    return TrialSettings(
        shared=SearchResources(photos, split.photos_hash, ray.put(weights), cache),
        results=config.results,
        objective=objective,
        seeds=range(config.seed, config.seed + config.seeds_per_trial),
        rungs=plan_rungs(config),
        workers=config.workers,
        gpus_per_worker=config.gpus_per_worker,
    )


def choose_objective(config: SearchConfig, split: Split) -> str:
    """Chooses what trials are judged by.

    Raises:
        RequestError: auroc was asked for, and there is no labelled defect to validate on.
    """
    if config.objective == "auto":
        return "auroc" if split.defects else DEFAULT_LABEL_FREE
    if config.objective == "auroc" and not split.defects:
        raise RequestError(
            "objective auroc needs validation photos with defects, got none in validation/ or test/: add a handful, or "
            f"take objective auto or one of {', '.join(LABEL_FREE_METRICS)}"
        )
    return config.objective


def check_request(config: SearchConfig, split: Split) -> list[Preset]:
    """Checks trackers, space and test photos; returns the presets to try first.

    Raises:
        RequestError: a tracker is missing, the space has no such choice, or the test photos are of one class.
    """
    check_trackers(config.trackers)
    try:
        space = read_space(config)
        check_space(space)
        presets = build_presets(space)
    except ValueError as error:
        raise RequestError(one_line(error)) from error
    counts = split.test.counts
    if config.final and (not counts["good"] or len(counts) < 2):
        raise RequestError(
            f"the final comparison needs test photos of both classes, got {dict(counts)}: add some, or --no-final"
        )
    return presets


def decode_by_size(config: SearchConfig, split: Split, labelled: Any, sizes: set[int]) -> dict[int, Any]:
    """Starts a task for each image size; returns size -> reference to SearchPhotos."""
    remote = ray.remote(num_cpus=1)(decode_search_photos)
    fraction, rules = config.calibration_fraction, config.detector.pixel_rules
    return {
        size: remote.remote(split.train, labelled, size, config.max_pixels, fraction, rules, split.groups)
        for size in sorted(sizes)
    }


def complete_trials(
    config: SearchConfig, presets: Sequence[Preset], trials: TrialSettings
) -> Mapping[int, TrialRecord]:
    """Runs the trials that are left and returns all outcomes; no trial is added once the test is open."""
    records = load_records(config.results)
    left = config.trials - len(records)
    if read_mark(config.results) is not None:
        if left > 0:
            print(f"the test photos have been opened: {left} trial(s) that are left are not run")
        return records
    print(f"search of {config.trials} trials, {len(records)} of them finished before", flush=True)
    if left > 0:
        run_trials(config, presets, trials, metrics=METRICS)
    return load_records(config.results)


def compare_on_test(
    config: SearchConfig, split: Split, presets: Sequence[Preset], trials: TrialSettings, found: SearchResults
) -> int:
    """Opens the test, compares, promotes if that was asked for; returns 1 if a detector failed, else 0."""
    winner = found.finalists[0].record
    manifest = split.test.open(results=config.results, winner=winner.key)
    compared = {preset.name: preset.configuration for preset in presets if preset.name in config.presets}
    units = plan_final(
        config, {TUNED: winner.configuration, **compared}, photos_hash=f"{split.photos_hash}+{split.test.photos_hash}"
    )
    sizes = {unit.configuration.detector.image_size for unit in units}
    outcomes = run_final(config, units, trials, decode_by_size(config, split, manifest, sizes))
    found.rows = build_final_rows(config.category, manifest, outcomes)
    found.promises = make_final_promises(config.category, outcomes, false_alarm_rate=FALSE_ALARM_RATE)
    if config.promote:
        print(promote_winner(config, outcomes, found.rows, manifest), flush=True)
    return EXIT_FAILED if any("failed" in one for one in outcomes) else EXIT_DONE


def describe_cache(cache: Any) -> str:
    """Describes how often features came from the cache."""
    try:
        counts = ray.get(cache.read_counts.remote())
    except ray.exceptions.RayError:
        return "features: the cache died and was started again"
    return f"features: computed {counts['computed']} times, taken from the cache {counts['found']} times"
