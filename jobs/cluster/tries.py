"""Stages of a dataset that say why they end, and that give a batch up which has killed its process several times.

Ray Data tries a batch again for ever once its process has died. So the tries are counted here: in the run's tally, an
actor that survives the process. What a stage raises ends the run, and its reason is made one line where it is raised,
because Ray hands on an exception without its cause.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections.abc import Callable, Mapping
from typing import Any

import pyarrow as pa
import ray
from ray.exceptions import UserCodeException

from jobs.cluster.tally import Report
from jobs.decoding.fetch import DECODED, FOUND
from jobs.errors import JobError, one_line
from jobs.tables.schema import Status, format_reason

MAX_TRIES = 5
"""Tries of one batch, or of the start of one process: an accident or two may be a node's, five are the batch's."""

Stage = Callable[[pa.Table], pa.Table]


class StageError(UserCodeException):
    """A stage cannot go on; one line. Ray Data takes it for a user's own error and adds nothing."""


def describe_reason(error: BaseException) -> str:
    """Returns an error as one line; a JobError's says enough without its class."""
    if isinstance(error, JobError | StageError):
        return one_line(error)
    return f"{type(error).__name__}: {one_line(error)}".removesuffix(": ")


def bound_tries(stage: Stage, report: Report | None) -> Stage:
    """Returns the stage that decodes, with a bound of its tries.

    Args:
        stage: MANIFEST rows to DECODED rows.
        report: counts the tries; None counts none.
    """
    dataset = uuid.uuid4().hex

    @functools.wraps(stage)
    def run(rows: pa.Table) -> pa.Table:
        return run_batch(stage, rows, dataset=dataset, report=report, give_up=fail_rows)

    return run


def bound_actor_tries(stage: type, arguments: Mapping[str, Any], report: Report | None) -> tuple[type, dict[str, Any]]:
    """Returns a stage that loads detectors, with a bound of its tries, and the arguments of its constructor.

    Args:
        stage: maps DECODED rows; rows that have a status pass through it.
        arguments: of its constructor.
        report: counts the tries; None counts none.
    """
    # A class of the stage's name, for Ray's dashboard and the process list show it.
    named = type(stage.__name__, (BoundedStage,), {})
    return named, {"stage": stage, "arguments": dict(arguments), "report": report, "dataset": uuid.uuid4().hex}


class BoundedStage:
    """Runs a stage in an actor; see `bound_actor_tries`."""

    def __init__(self, *, stage: type, arguments: Mapping[str, Any], report: Report | None, dataset: str) -> None:
        """Starts the stage. An error waits for the first batch: Ray would start the actor again and hide the reason."""
        self._stage: Stage | None = None
        self._report, self._dataset, self._problem = report, dataset, ""
        key = f"{dataset} start of {ray.get_runtime_context().get_actor_id()}"
        try:
            if report is not None and report.begin_try(key) > MAX_TRIES:
                raise StageError(f"{stage.__name__}: its process died {MAX_TRIES} times while it started")
            self._stage = stage(**arguments)
        except Exception as error:
            self._problem = describe_reason(error)
        if report is not None:
            report.end_try(key)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Runs one batch.

        Raises:
            StageError: the stage could not start or go on.
        """
        if self._stage is None:
            raise StageError(self._problem)
        stage = self._stage

        def give_up(rows: pa.Table, reason: str) -> pa.Table:
            return stage(fail_rows(rows, reason))

        return run_batch(stage, rows, dataset=self._dataset, report=self._report, give_up=give_up)


def run_batch(
    stage: Stage,
    rows: pa.Table,
    *,
    dataset: str,
    report: Report | None,
    give_up: Callable[[pa.Table, str], pa.Table],
) -> pa.Table:
    """Runs a stage on one batch, or gives the batch up if it has killed its process ``MAX_TRIES`` times.

    Args:
        stage: what to run.
        rows: the batch.
        dataset: names the dataset, so that equal rows of two have their own tries.
        report: counts the tries; None counts none.
        give_up: makes the rows of a batch that is not tried again, of the batch and a reason.

    Raises:
        StageError: the stage raised something.
    """
    batch = f"{dataset} {hashlib.sha256(rows['image_id'].to_numpy()).hexdigest()}"
    try:
        if report is None:
            return stage(rows)
        if report.begin_try(batch) > MAX_TRIES:
            report.end_try(batch)
            return give_up(rows, f"the process that worked on its batch of {len(rows)} died {MAX_TRIES} times")
        done = stage(rows)
    except Exception as error:
        raise StageError(describe_reason(error)) from error
    report.end_try(batch)
    return done


def fail_rows(rows: pa.Table, reason: str) -> pa.Table:
    """Returns DECODED rows that are final: those of MANIFEST or DECODED rows without a status have failed."""
    known = rows["status"].to_pylist() if "status" in rows.column_names else [None] * len(rows)
    errors = rows["error"].to_pylist() if "error" in rows.column_names else [None] * len(rows)
    failed = format_reason("process_died", reason)
    columns = {
        "status": [status or str(Status.FAILED) for status in known],
        "error": [failed if status is None else error for status, error in zip(known, errors, strict=True)],
        "pixels": [None] * len(rows),
    }
    for name, values in columns.items():
        field, column = DECODED.field(name), pa.array(values, DECODED.field(name).type)
        at = rows.schema.get_field_index(name)
        rows = rows.append_column(field, column) if at < 0 else rows.set_column(at, field, column)
    for field in FOUND:
        rows = rows if field.name in rows.column_names else rows.append_column(field, pa.nulls(len(rows), field.type))
    return rows
