"""The registry's commands: list, show, compare, promote, rollback, sign, history.

``python -m jobs.registry promote --detectors URI --category NAME --name ID --alias champion --reason TEXT``
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.cli import run_subcommand
from jobs.config import JobConfig
from jobs.detectors import registry
from jobs.detectors.aliases import DETECTOR_ID, find_previous, read_aliases, read_history, set_alias, sign_aliases
from jobs.detectors.config import (
    CompareConfig,
    HistoryConfig,
    ListConfig,
    PromoteConfig,
    RollbackConfig,
    ShowConfig,
    SignConfig,
)
from jobs.detectors.node_cache import fetch_artifact
from jobs.detectors.report import describe_detector, find_differences, summarize_detectors
from jobs.detectors.signing import sign_detector
from jobs.errors import RequestError
from jobs.storage import uris
from jobs.tables.parquet import write_parquet
from jobs.tables.schema import DETECTORS
from jobs.tables.text import format_table, make_printable
from model.artifact.card import render_model_card
from model.artifact.files import ARTIFACT_FILES, ArtifactError

_PROG = "python -m jobs.registry"
_LISTED = ("category", "detector_id", "variant", "seed", "photos", "smallest_rate", "created")
"""Columns for people, as many as a terminal has room for; JSON and Parquet have all."""


def run_registry_command(argv: Sequence[str]) -> int:
    """Runs the command that ``argv`` begins with and returns the exit code; ``--help`` lists the commands.

    Raises:
        RequestError: no such command, or wrong flags for it.
    """
    return run_subcommand(argv, _COMMANDS, prog=_PROG)


def list_detectors(config: ListConfig) -> None:
    """Prints a row for each detector. Raises RequestError for a registry or a category without one."""
    found = registry.list_detector_ids(config.detectors)
    if not found:
        raise RequestError(f"no detector in {config.detectors}: none was trained there yet, or correct --detectors")
    if absent := sorted(set(config.categories) - found.keys()):
        there = make_printable(", ".join(list(found)[:10])) or "none"
        raise RequestError(f"{config.detectors} has no detector of {', '.join(absent)}; it has {there}")
    wanted = config.categories or list(found)
    rows = [row for name in wanted for row in summarize_detectors(config.detectors, name, detector_ids=found[name])]
    if config.output is not None:
        write_parquet(pa.Table.from_pylist(rows, schema=DETECTORS), config.output)
        print(f"{len(rows)} detectors in {config.output}")
        return
    if config.format == "json":
        print(json.dumps(rows, indent=1))
        return
    lines = [[*shorten_row(row), ", ".join(row["aliases"]) or row.get("damage")] for row in rows]
    print(format_table([*_LISTED, "aliases"], lines))


def shorten_row(row: Mapping[str, Any]) -> list[object]:
    """Returns the values of _LISTED: ``photos`` are those of the calibration, ``created`` is to the minute, in UTC."""
    created = str(row.get("created_at") or "")[:16].replace("T", " ")
    rate = row.get("smallest_rate")
    return [
        *(row.get(name) for name in ("category", "detector_id", "variant", "seed", "calibration_photos")),
        None if rate is None else f"{rate:.2%}",
        created,
    ]


def show_detector(config: ShowConfig) -> None:
    """Prints all that is known of one detector: its model card, or JSON."""
    detector_id = find_detector_id(config.detectors, config.category, name=config.name)
    detector, metrics = registry.read_detector_and_metrics(config.detectors, config.category, detector_id=detector_id)
    found = describe_detector(config.detectors, detector, metrics)
    if config.format == "json":
        print(json.dumps(found, indent=1))
        return
    card = render_model_card(
        detector.config,
        detector_id=detector_id,
        calibration=detector.calibration,
        metrics=found["metrics"],
        with_figures=config.format == "card",
    )
    print(f"{config.category}, aliases: {make_printable(', '.join(found['aliases'])) or 'none'}")
    print("\n".join(make_printable(line) for line in card.splitlines()))


def compare_detectors(config: CompareConfig) -> None:
    """Prints the fields that are not the same in all detectors named."""
    ids = [find_detector_id(config.detectors, config.category, name=name) for name in config.names]
    read = [registry.read_detector_and_metrics(config.detectors, config.category, detector_id=one) for one in ids]
    found = [describe_detector(config.detectors, detector, metrics) for detector, metrics in read]
    rows = find_differences(found)
    if config.format == "json":
        print(json.dumps(rows, indent=1))
        return
    print(format_table(["field", *config.names], [[name, *values] for name, values in rows.items()]))


def promote_detector(config: PromoteConfig) -> None:
    """Points an alias at a detector that can score. Raises RequestError for one that cannot."""
    detector_id = find_detector_id(config.detectors, config.category, name=config.name)
    check_promotable(config.detectors, config.category, detector_id=detector_id)
    before = set_alias(
        config.detectors,
        config.category,
        alias=config.alias,
        detector_id=detector_id,
        reason=config.reason,
        expected=config.if_current,
    )
    print(f"{config.alias} of {config.category}: {before or 'none'} -> {detector_id}")


def roll_back_alias(config: RollbackConfig) -> None:
    """Points an alias at the detector that it was last promoted from."""
    current, before = find_previous(config.detectors, config.category, alias=config.alias)
    check_promotable(config.detectors, config.category, detector_id=before)
    set_alias(
        config.detectors,
        config.category,
        alias=config.alias,
        detector_id=before,
        reason=config.reason,
        expected=current,
        action="rollback",
    )
    print(f"{config.alias} of {config.category}: {current} -> {before}")


def sign_category(config: SignConfig) -> None:
    """Signs the aliases of a category and the detectors that they name.

    Raises:
        RequestError: there is no key, or a detector is damaged.
    """
    signed = sign_aliases(config.detectors, config.category)
    for detector_id in sorted(set(signed.values())):
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "artifact"
            try:
                fetch_artifact(config.detectors, config.category, detector_id=detector_id, folder=folder)
            except ArtifactError as error:
                raise RequestError(f"detector {detector_id} of {config.category}: {error}") from error
            sign_detector(config.detectors, config.category, detector_id=detector_id, folder=folder)
    print("\n".join(f"signed: {alias} of {config.category} is {target}" for alias, target in sorted(signed.items())))


def show_history(config: HistoryConfig) -> None:
    """Prints the changes of a category's aliases, oldest first. Raises RequestError where no alias was ever set."""
    changes = read_history(config.detectors, config.category)
    if not changes and not read_aliases(config.detectors, config.category):
        raise RequestError(
            f"{config.category} has no alias in {config.detectors}, which has "
            f"{make_printable(', '.join(registry.list_categories(config.detectors)[:10])) or 'no category'}: correct "
            "--category or --detectors"
        )
    wanted = [change for change in changes if config.alias in (None, change.alias)]
    lines = [change.model_dump(mode="json", by_alias=True) for change in wanted]
    if config.format == "json":
        print(json.dumps(lines, indent=1))
        return
    columns = ("at", "by", "action", "alias", "from", "to", "reason")
    print(format_table(columns, [[line[column] for column in columns] for line in lines]))


def check_promotable(detectors: str, category: str, *, detector_id: str) -> None:
    """Refuses to give a role to a detector that could not score.

    Raises:
        RequestError: it is not there, not whole, or has no calibration.
    """
    detector = registry.read_detector(detectors, category, detector_id=detector_id)
    listed = storage.list_objects(uris.join(detectors, category, detector_id))
    if absent := set(ARTIFACT_FILES) - {info.uri.rsplit("/", 1)[1] for info in listed}:
        raise RequestError(f"detector {detector_id} of {category} lacks {', '.join(sorted(absent))}: register it again")
    if detector.calibration is None:
        raise RequestError(
            f"detector {detector_id} of {category} has no calibration, so it cannot give p-values: calibrate it with "
            "jobs.recalibrate"
        )


def find_detector_id(detectors: str, category: str, *, name: str) -> str:
    """Returns the detector id that an alias or an id names. Raises RequestError for an unknown alias."""
    if DETECTOR_ID.fullmatch(name):
        return name
    aliases = registry.read_aliases(detectors, category)
    if name not in aliases:
        there = make_printable(", ".join(sorted(aliases)[:10])) or "none"
        raise RequestError(f"{category} has no alias {name!r} in {detectors}; it has {there}")
    return aliases[name]


_Command = tuple[type[JobConfig], Callable[[Any], None]]
_COMMANDS: Mapping[str, _Command] = {
    "list": (ListConfig, list_detectors),
    "show": (ShowConfig, show_detector),
    "compare": (CompareConfig, compare_detectors),
    "promote": (PromoteConfig, promote_detector),
    "rollback": (RollbackConfig, roll_back_alias),
    "sign": (SignConfig, sign_category),
    "history": (HistoryConfig, show_history),
}
