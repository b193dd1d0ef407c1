"""Ray Data datasets that several commands share: photos decoded by tasks, scored by actors."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.fs
import ray

from jobs.cluster.resources import Demand, wait_for_resources
from jobs.cluster.tally import Report, start_tally
from jobs.cluster.tries import bound_actor_tries, bound_tries
from jobs.config import ScoringResources
from jobs.decoding.fetch import DECODE_BATCH_PHOTOS

DECODE_CPUS = 0.5
"""A decode task waits for storage about half its time; and because this differs from a scoring actor's CPU, Ray Data
keeps the two stages apart instead of fusing them, so that photos are fetched while others are scored."""


def count_scoring_actors(resources: ScoringResources) -> int:
    """Counts scoring actors: as asked, else as GPUs take, or one per core while CPU slots are left for decoding.

    A run with ``max_actors`` begins with as many.
    """
    if resources.actors is not None:
        return resources.actors
    found = count_room(resources)
    return found if resources.max_actors is None else min(found, resources.max_actors)


def count_most_scoring_actors(resources: ScoringResources) -> int:
    """Counts the scoring actors that a run may come to, on a cluster that scales."""
    return resources.max_actors or count_scoring_actors(resources)


def count_room(resources: ScoringResources) -> int:
    """Counts the scoring actors that the cluster has room for now, at least 1."""
    available: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]  # ray ships no types
    if resources.use_gpu:
        return max(1, int(available.get("GPU", 0) / resources.gpu_share + 1e-9))
    slots = int(available.get("CPU", 1))
    is_one_machine = len(ray.nodes()) == 1  # type: ignore[no-untyped-call]  # ray ships no types
    cores = min(slots, os.cpu_count() or 1) if is_one_machine else slots
    return max(1, min(cores, slots - max(1, slots // 4)))


def wait_for_scoring_resources(resources: ScoringResources) -> None:
    """Returns once the cluster has room for the scoring actors asked for, or for one, and a decode task beside them.

    Raises:
        RequestError: it has not, and cannot grow.
    """
    flags = [f"--scoring.actors {resources.actors}"] if resources.actors is not None else []
    flags += ["--scoring.use-gpu"] if resources.use_gpu else []
    bundle = {"CPU": 1.0, "GPU": resources.gpu_share} if resources.use_gpu else {"CPU": 1.0}
    demand = Demand(" ".join(flags) or "scoring", bundle, resources.actors or 1, {"CPU": DECODE_CPUS})
    wait_for_resources(demand)


def decode_manifest(
    manifest: ray.data.Dataset,
    fetch_decode: Callable[[pa.Table], pa.Table],
    *,
    tasks: int | None,
    report: Report | None = None,
) -> ray.data.Dataset:
    """Returns DECODED rows for a dataset of MANIFEST rows: the one way from bytes to pixels.

    Args:
        manifest: MANIFEST rows.
        fetch_decode: the stage, a function or a method.
        tasks: most tasks at a time; None leaves it to the cluster's free CPUs.
        report: counts the tries of each batch, see `jobs.cluster.tries`; None starts a tally for that alone.
    """
    return manifest.map_batches(
        bound_tries(fetch_decode, report or Report(start_tally())),
        batch_size=DECODE_BATCH_PHOTOS,
        batch_format="pyarrow",
        num_cpus=DECODE_CPUS,
        compute=ray.data.TaskPoolStrategy(size=tasks),
    )


def map_in_scoring_actors(
    decoding: ray.data.Dataset,
    stage: type,
    arguments: Mapping[str, Any],
    *,
    batch_photos: int,
    resources: ScoringResources,
    report: Report | None = None,
) -> ray.data.Dataset:
    """Runs a stage that loads detectors in actors, with a core each and their share of a GPU; see `make_actor_pool`.

    Args:
        decoding: DECODED rows.
        stage: maps a batch of them; its constructor also takes ``device``.
        arguments: the constructor's others.
        batch_photos: rows of a batch.
        resources: share of the cluster.
        report: of a running Progress, which counts the tries of each batch; see `jobs.cluster.tries`.
    """
    device = "cuda" if resources.use_gpu else "cpu"
    bounded, bounded_arguments = bound_actor_tries(stage, {**arguments, "device": device}, report)
    return decoding.map_batches(
        bounded,
        fn_constructor_kwargs=bounded_arguments,
        batch_size=batch_photos,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=resources.gpu_share or None,
        compute=make_actor_pool(resources),
    )


def make_actor_pool(resources: ScoringResources) -> ray.data.ActorPoolStrategy:
    """Makes the pool of scoring actors: a fixed number, or a range that Ray Data and an autoscaler move in.

    Fixed unless asked: else Ray Data ends an actor that waits for storage, and starts another when photos come.
    """
    actors = count_scoring_actors(resources)
    if resources.max_actors is None:
        return ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=2)
    return ray.data.ActorPoolStrategy(min_size=actors, max_size=resources.max_actors, max_tasks_in_flight_per_actor=2)


def collect_table(dataset: ray.data.Dataset, *, schema: pa.Schema) -> pa.Table:
    """Runs a dataset and collects its rows in this process."""
    tables = [ray.get(reference) for reference in dataset.to_arrow_refs()]
    return pa.concat_tables([table.cast(schema) for table in tables if len(table)] or [schema.empty_table()])
