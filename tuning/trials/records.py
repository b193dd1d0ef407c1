"""Trial records in object storage: the one truth of a search, whatever dies.

``<results>/trials/00007.json`` is the outcome of trial 7, written once; ``<results>/started/00007.json`` says what it
tries, so that a trial that was under way when everything died is tried again as it was. A trial that has taken Ray Tune
down with it twice is given up, and recorded as failed.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from jobs import storage
from jobs.config import rename_old_fields
from jobs.errors import JobError, MissingObjectError, RequestError
from jobs.storage import uris
from model.config import DetectorConfig, OptimizerConfig
from model.versions import read_program_version
from tuning.config import SearchConfig
from tuning.space.config import Value
from tuning.space.space import Configuration

Status = Literal["done", "stopped", "failed"]
MAX_LOSSES = 2
_TRIALS, _STARTED, _SEARCH = "trials", "started", "search.json"


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _take_old_names(cls, given: object) -> object:
        return rename_old_fields(given) if isinstance(given, dict) else given


class TrialRecord(_Record):
    """The outcome of one trial.

    Attributes:
        number: from 0, in the order in which the sampler gave them.
        key: names configuration and photos: two trials of one key come to the same.
        name: the preset's, or the placement of attention.
        preset: its name, or None for what the sampler chose.
        parameters: what the sampler chose, by name.
        distributions: what it chose from, Optuna's JSON by name.
        detector: DetectorConfig.
        optimizer: OptimizerConfig.
        status: ``done``, ``stopped`` after a few epochs, or ``failed``.
        reason: why it failed, one line.
        epochs: that it was trained for.
        metrics: name -> metric, see `tuning.trials.judge`; ``gflop`` is the cost of scoring.
        seconds: wall time.
        copy_of: trial of the same key whose metrics these are, or None.
    """

    number: int
    key: str
    name: str
    preset: str | None
    parameters: dict[str, Value]
    distributions: dict[str, str]
    detector: dict[str, Any]
    optimizer: dict[str, Any]
    status: Status
    reason: str | None
    epochs: int
    metrics: dict[str, float | None]
    seconds: float
    copy_of: int | None

    @property
    def configuration(self) -> Configuration:
        """What was trained."""
        return Configuration(
            DetectorConfig.model_validate(self.detector), OptimizerConfig.model_validate(self.optimizer)
        )


def write_record(results: str, record: TrialRecord) -> None:
    """Writes the outcome of a trial."""
    storage.write(uris.join(results, _TRIALS, f"{record.number:05}.json"), record.model_dump_json(indent=1).encode())


class TrialStart(_Record):
    """What a trial tries, once it has begun; the fields are those of its record.

    Attributes:
        lost: how often Ray Tune has ended while it was under way.
    """

    number: int
    key: str
    preset: str | None
    parameters: dict[str, Value]
    detector: dict[str, Any]
    optimizer: dict[str, Any]
    lost: int = 0


def write_start(results: str, started: TrialStart) -> None:
    """Writes what a trial that begins tries."""
    uri = uris.join(results, _STARTED, f"{started.number:05}.json")
    storage.write(uri, started.model_dump_json().encode())


def count_losses(results: str, reason: str) -> None:
    """Counts a loss for every trial that was under way; one that was lost `MAX_LOSSES` times is recorded as failed."""
    finished = load_records(results)
    for number, started in load_starts(results).items():
        if number in finished:
            continue
        lost = started.model_copy(update={"lost": started.lost + 1})
        write_start(results, lost)
        if lost.lost >= MAX_LOSSES:
            write_record(results, give_up(lost, reason))


def give_up(started: TrialStart, reason: str) -> TrialRecord:
    """Makes the record of a trial that is not tried again."""
    return TrialRecord(
        **started.model_dump(exclude={"lost"}),
        name=started.detector["variant"],
        distributions={},
        status="failed",
        reason=f"Ray Tune ended {started.lost} times while it was under way, at last by {reason}",
        epochs=0,
        metrics={},
        seconds=0.0,
        copy_of=None,
    )


def load_records(results: str) -> dict[int, TrialRecord]:
    """Loads the outcomes that there are, by number.

    Raises:
        JobError: one is damaged.
    """
    found = {}
    for uri, data in read_json_objects(uris.join(results, _TRIALS)):
        try:
            record = TrialRecord.model_validate_json(data)
        except ValidationError as error:
            raise JobError(
                f"{uri} is damaged, delete it to try that trial again: {error.errors()[0]['msg']}"
            ) from error
        found[record.number] = record
    return dict(sorted(found.items()))


def load_starts(results: str) -> dict[int, TrialStart]:
    """Loads what the trials that have begun try, by number; a damaged file counts as not begun."""
    found = {}
    for _, data in read_json_objects(uris.join(results, _STARTED)):
        try:
            started = TrialStart.model_validate_json(data)
        except ValidationError:
            continue
        found[started.number] = started
    return found


def read_json_objects(folder: str) -> list[tuple[str, bytes]]:
    """Reads the JSON objects below a folder, as URI and content."""
    found = [info.uri for info in storage.list_objects(folder) if info.uri.endswith(".json")]
    return [(uri, storage.read(uri)) for uri in found]


def claim_results(config: SearchConfig, *, photos_hash: str, weights_hash: str = "") -> None:
    """Writes what the search is about beside its results; a second run must be about the same.

    Raises:
        RequestError: the folder holds another search.
    """
    uri = uris.join(config.results, _SEARCH)
    mine = json.loads(
        json.dumps(
            {**config.identity, "photos": photos_hash, "weights": weights_hash, "program": read_program_version()}
        )
    )
    try:
        before = rename_old_fields(json.loads(storage.read(uri)))
    except MissingObjectError:
        storage.write(uri, json.dumps(mine, indent=1).encode())
        return
    if before != mine:
        changed = sorted(name for name in {*before, *mine} if before.get(name) != mine.get(name))
        raise RequestError(
            f"{config.results} holds a search with another {', '.join(changed)}: its trials cannot be compared "
            "with new ones; take a new --results, or the same configuration to go on"
        )
