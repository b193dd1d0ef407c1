"""One unit on Ray Train: workers, checkpoints in object storage, retries, and the same again after a crash.

**Resuming.** Ray Train keeps the list of a run's checkpoints in the run's folder. A run of the same name and folder
begins with the latest of them (Train V2 has no ``restore``). The folder's name is made of what decides the outcome
(`jobs.training.units.TrainingUnit.key`). So the same command finds it after its driver or the head has died, and
another configuration or other photos never do. The folder is deleted once the detector is registered.

**Two drivers with the same unit at a time** are harmless. Each takes the checkpoints it knows of, and both train the
same thing. On one worker a detector is its content, so the second registers what is there already. The second may find
the folder deleted; it then looks whether the detector is there (`find_registered_meanwhile`).

**Retries.** A worker that dies is started again up to ``MAX_FAILURES`` times. What would fail again in the same way
(a training that diverges, features that collapse, photos that cannot be used) is a worker's answer and no failure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import ray
import ray.train
from ray.train.torch import TorchTrainer

from jobs import storage
from jobs.cluster.session import explain_error
from jobs.cluster.tally import Report
from jobs.detectors import registry
from jobs.detectors.lineage import build_lineage, hash_training_photos, list_training_pixels
from jobs.errors import JobError
from jobs.training.config import TrainConfig
from jobs.training.groups import describe_group_shortage, describe_groups
from jobs.training.photos import DecodedPhotos
from jobs.training.tracking import track_unit
from jobs.training.units import Splits, TrainingTask, TrainingUnit, find_trained, split_photos
from jobs.training.unlikely_photos import save_unlikely_photos
from model.statistics.groups import count_groups

MAX_FAILURES = 3
"""Worker deaths that one run of a unit survives; preempted nodes do not count."""
KEPT_CHECKPOINTS = 2


def train_unit(
    unit: TrainingUnit, decoded: DecodedPhotos, *, weights: Any, workers_per_node: int, report: Report
) -> tuple[str, Mapping[str, Any]]:
    """Trains, calibrates and registers one unit's detector, from its last checkpoint if there is one.

    Args:
        unit: what to train.
        decoded: the unit's photos.
        weights: reference to the backbone's weights by name, or to None.
        workers_per_node: training workers, of all units, that share a node.
        report: of a running Progress.

    Returns:
        The detector's id and its metrics.

    Raises:
        JobError: it cannot be trained, or the workers failed too often; one line.
    """
    task = make_task(unit, decoded, weights=weights, workers_per_node=workers_per_node, report=report)
    with track_unit(unit, report) as tracked:
        answer = fit_unit(unit, task)
        tracked.update(answer)
    if "refused" in answer:
        storage.delete_tree(unit.work_folder)  # from there the same would happen again
        raise JobError(f"{unit}: {answer['refused']}")
    registry.set_alias(
        unit.config.detectors,
        unit.config.category,
        alias=unit.alias,
        detector_id=answer["detector_id"],
        reason="trained",
    )
    storage.delete_tree(unit.work_folder)
    for line in save_unlikely_photos(unit, decoded, answer):
        print(line, flush=True)
    return answer["detector_id"], task.metrics | answer["metrics"]


def make_task(
    unit: TrainingUnit, decoded: DecodedPhotos, *, weights: Any, workers_per_node: int, report: Report
) -> TrainingTask:
    """Splits a unit's photos, group by group, and prints how; returns what its workers get.

    Raises:
        JobError: the photos are of one group, or fewer than two photos are left to train.
    """
    photos = decoded.photos
    try:
        splits = split_photos(len(photos), config=unit.config, groups=photos.groups)
    except ValueError as error:
        raise JobError(
            f"{unit}: {error}; name what belongs together with --group-by, or --group-by photo: each by itself"
        ) from error
    print_groups(unit.config, splits, groups=photos.groups)
    if len(splits.training) < 2:
        raise JobError(f"{unit}: {len(photos)} readable photos leave {len(splits.training)} to train: add photos")
    return TrainingTask(
        config=unit.config.model_dump(mode="json"),
        name=str(unit),
        training=photos.subset(splits.training),
        validation=photos.subset(splits.validation),
        calibration=photos.subset(splits.calibration),
        weights=weights,
        workers_per_node=workers_per_node,
        metrics=describe_origin(unit, decoded, splits),
        report=report,
        every_photo=photos,
    )


def print_groups(config: TrainConfig, splits: Splits, *, groups: npt.NDArray[np.int64] | None) -> None:
    """Prints how many groups, (N,), the N photos of a unit come to, and where too few of them calibrate."""
    if groups is None:
        return
    parts = {"train": splits.training, "validate": splits.validation, "calibrate": splits.calibration}
    print(describe_groups(config, groups, parts), flush=True)
    if said := describe_group_shortage(config, groups, calibrating=len(splits.calibration)):
        print(f"warning: {said}", flush=True)


def fit_unit(unit: TrainingUnit, task: TrainingTask) -> dict[str, Any]:
    """Runs Ray Train; returns the first worker's answer, see `jobs.training.worker.run_worker`.

    Raises:
        JobError: the workers failed too often; one line.
    """
    config = unit.config
    folder, _, name = unit.work_folder.rpartition("/")
    filesystem, path = storage.resolve_filesystem(folder)
    trainer = TorchTrainer(
        _make_work(task),
        scaling_config=ray.train.ScalingConfig(num_workers=config.workers, use_gpu=config.use_gpu),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=path,
            storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=KEPT_CHECKPOINTS),
        ),
    )
    try:
        result: Any = trainer.fit()  # typed as Train V1's Result, which has no return_value
    except (ray.exceptions.RayError, ray.train.TrainingFailedError) as error:
        if (found := find_registered_meanwhile(unit)) is not None:
            return found
        raise JobError(
            f"{unit}: training stopped: {explain_error(error)}; the same command continues from the last checkpoint, "
            f"and afresh once {unit.work_folder} is deleted"
        ) from error
    answer: dict[str, Any] = result.return_value
    return answer


def find_registered_meanwhile(unit: TrainingUnit) -> dict[str, Any] | None:
    """Returns the answer that another driver's training of the same unit came to, or None."""
    found = None if unit.config.retrain else find_trained(unit)
    return None if found is None else {"detector_id": found[0], "metrics": found[1]}


def _make_work(task: TrainingTask) -> Any:
    """Returns the function that each worker runs.

    A function within a function travels by value. Ray Train's controller holds it too and runs none of it.
    """

    def work() -> dict[str, Any]:
        # Imported on the worker only: the network takes 2.8 s of CPU to import beyond what the controller has anyway.
        from jobs.training.worker import run_worker

        return run_worker(task)

    return work


def count_groups_of_parts(splits: Splits, *, groups: npt.NDArray[np.int64] | None) -> dict[str, int]:
    """Counts the groups, (N,), of each part of a split of N photos: of the calibration's there is one photo each."""
    parts = {"train": splits.training, "validation": splits.validation, "calibration": splits.calibration}
    return {name: len(chosen) if groups is None else count_groups(groups[chosen]) for name, chosen in parts.items()}


def describe_origin(unit: TrainingUnit, decoded: DecodedPhotos, splits: Splits) -> dict[str, Any]:
    """Returns what metrics.json says of a detector's origin; made in the driver, where the repository is."""
    config = unit.config.model_dump(mode="json")
    seen = np.concatenate([splits.training, splits.validation])
    return {
        "category": unit.config.category,
        "training_key": unit.key,
        "lineage": build_lineage(config, manifest_hash=unit.manifest_hash),
        "photos": {
            "train": len(splits.training),
            "validation": len(splits.validation),
            "calibration": len(splits.calibration),
        },
        "groups": count_groups_of_parts(splits, groups=decoded.photos.groups),
        "promise": {"false_alarm_rate": unit.config.false_alarm_rate, "confidence": unit.config.confidence},
        "training_photos": hash_training_photos(decoded.readable.take(seen)),
        "training_pixels": list_training_pixels(decoded.fingerprints.take(seen)["pixel_hash"].to_pylist()),
        "workers": unit.config.workers,
    }
