"""Detectors in object storage, ``<detectors>/<category>/<detector_id>/``; jobs.detectors.aliases has their aliases.

The command ``python -m jobs.registry list|show|compare|promote|rollback|sign|history`` is in jobs.detectors.commands.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from jobs import storage
from jobs.detectors.aliases import DETECTOR_ID, check_category, read_alias, read_aliases, set_alias
from jobs.detectors.node_cache import hold_detector
from jobs.detectors.signing import check_file, read_digests, sign_detector
from jobs.errors import MissingObjectError, RequestError, StorageError, one_line
from jobs.storage import uris
from model.artifact.files import (
    ALIASES_FILE,
    ARTIFACT_FILES,
    CALIBRATION,
    CONFIG,
    METRICS,
    ArtifactError,
    compute_weights_id,
    hash_content,
    hash_weights,
    parse_calibration_json,
    parse_config_json,
)
from model.config import DetectorConfig
from model.statistics.calibration import Calibration

__all__ = [
    "RegisteredDetector",
    "find_weights_id",
    "list_categories",
    "list_detector_ids",
    "put",
    "read_aliases",
    "read_detector",
    "read_detector_and_metrics",
    "read_metrics",
    "resolve",
    "set_alias",
]


@dataclass(frozen=True)
class RegisteredDetector:
    """What a plan needs to know of a detector without loading its weights.

    Attributes:
        category: whose photos it scores.
        detector_id: hash of weights, config and calibration.
        config: what it is.
        calibration: None gives no p-values.
        weights_id: hash of what its raw scores depend on; None where an artifact of an earlier version does not say it,
            see `find_weights_id`.
        promoted_at: when the alias that it was found by was last pointed at it; None where that is not known.
    """

    category: str
    detector_id: str
    config: DetectorConfig
    calibration: Calibration | None
    weights_id: str | None = None
    promoted_at: datetime | None = None


def put(detectors: str, category: str, *, folder: Path) -> str:
    """Uploads an artifact folder and returns its detector id; the same content again replaces its metrics and card.

    Raises:
        RequestError: a category that would lead outside the registry, or a key to sign with that is none.
        ArtifactError: a folder that is no artifact.
    """
    check_category(category)
    detector_id = hash_content(folder)
    for name in (name for name in ARTIFACT_FILES if (folder / name).exists()):
        storage.write(uris.join(detectors, category, detector_id, name), (folder / name).read_bytes())
    sign_detector(detectors, category, detector_id=detector_id, folder=folder)
    return detector_id


def list_categories(detectors: str) -> list[str]:
    """Lists the categories that have at least one alias, sorted."""
    return sorted({parts[0] for parts in list_keys(detectors) if len(parts) == 2 and parts[1] == ALIASES_FILE})


def list_detector_ids(detectors: str) -> dict[str, list[str]]:
    """Lists ids by category of the detectors that are there whole, with or without an alias; both sorted."""
    files: dict[tuple[str, str], set[str]] = {}
    for parts in list_keys(detectors):
        if len(parts) == 3 and DETECTOR_ID.fullmatch(parts[1]):
            files.setdefault((parts[0], parts[1]), set()).add(parts[2])
    found: dict[str, list[str]] = {}
    for category, detector_id in sorted(files):
        if files[category, detector_id].issuperset(ARTIFACT_FILES):
            found.setdefault(category, []).append(detector_id)
    return found


def list_keys(detectors: str) -> list[list[str]]:
    """Lists the parts of every object's key below ``detectors``: category, detector id, file."""
    below = len(detectors.rstrip("/")) + 1
    return [info.uri[below:].split("/") for info in storage.list_objects(detectors)]


def resolve(detectors: str, category: str, *, alias: str) -> RegisteredDetector | None:
    """Returns the detector behind ``alias``, or None where the category has no such alias.

    Raises:
        RequestError: the alias points at a detector that is not there or is damaged.
    """
    try:
        check_category(category)
    except RequestError:
        return None  # a hostile archive key must not name a folder outside the registry
    target = read_alias(detectors, category, alias=alias)
    if target is None:
        return None
    try:
        found = read_detector(detectors, category, detector_id=target.detector_id)
    except RequestError as error:
        raise RequestError(f"{alias} of {category} is {target.detector_id}: {error}") from error
    return replace(found, promoted_at=target.since)


def read_detector(detectors: str, category: str, *, detector_id: str) -> RegisteredDetector:
    """Reads a detector by its id, without its weights.

    Raises:
        RequestError: it is not there, or its config.json or calibration.json is damaged.
    """
    contents = read_json_files(detectors, category, detector_id, names=(CONFIG, CALIBRATION))
    return parse_detector(category, detector_id, contents)


def read_detector_and_metrics(
    detectors: str, category: str, *, detector_id: str
) -> tuple[RegisteredDetector, dict[str, Any]]:
    """Reads what `read_detector` and `read_metrics` do, with one look at its signature; raises what they raise."""
    contents = read_json_files(detectors, category, detector_id, names=(CONFIG, CALIBRATION, METRICS))
    return parse_detector(category, detector_id, contents), parse_metrics(contents)


def find_weights_id(detectors: str, detector: RegisteredDetector) -> str | None:
    """Finds what a detector's raw scores depend on; downloads one that an earlier version has saved, to hash it.

    Returns:
        None where such a detector cannot be read whole: whoever loads it will say why.
    """
    if detector.weights_id is not None:
        return detector.weights_id
    try:
        with hold_detector(detectors, detector.category, detector_id=detector.detector_id) as folder:
            contents = read_json_files(detectors, detector.category, detector.detector_id, names=(CONFIG,))
            return compute_weights_id(contents[CONFIG], weights_hash=hash_weights(folder))
    except (ArtifactError, StorageError):
        return None


def read_metrics(detectors: str, category: str, *, detector_id: str) -> dict[str, Any]:
    """Reads the metrics and lineage a detector was registered with; empty where metrics.json holds no object.

    Raises:
        RequestError: it is not there, or its metrics.json is no JSON.
    """
    return parse_metrics(read_json_files(detectors, category, detector_id, names=(METRICS,)))


def read_json_files(detectors: str, category: str, detector_id: str, *, names: Sequence[str]) -> dict[str, object]:
    """Reads JSON files of a detector by their names, and once the signature that all are checked by.

    Raises:
        RequestError: one is missing, damaged or not what was signed.
    """
    check_category(category)
    place = uris.join(detectors, category, detector_id)
    try:
        contents = {name: storage.read(uris.join(place, name)) for name in names}
    except MissingObjectError as error:
        raise RequestError(f"no detector {detector_id} of {category} is registered: {error}") from error
    digests = read_digests(detectors, category, detector_id=detector_id)
    return {name: parse_json(content, digests, uri=uris.join(place, name)) for name, content in contents.items()}


def parse_json(content: bytes, digests: Mapping[str, str] | None, *, uri: str) -> object:
    """Parses a JSON file of a detector; see `check_file`. Raises RequestError where it is damaged or not signed."""
    check_file(content, digests, uri=uri)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{uri} is damaged: {one_line(error)}") from error


def parse_detector(category: str, detector_id: str, contents: Mapping[str, object]) -> RegisteredDetector:
    """Builds a detector from the JSON of its config and calibration. Raises RequestError where one is damaged."""
    try:
        return RegisteredDetector(
            category,
            detector_id,
            parse_config_json(contents[CONFIG]),
            parse_calibration_json(contents[CALIBRATION]),
            compute_weights_id(contents[CONFIG]),
        )
    except ArtifactError as error:
        raise RequestError(f"detector {detector_id} of {category} is damaged: {error}") from error


def parse_metrics(contents: Mapping[str, object]) -> dict[str, Any]:
    """Returns the JSON object of metrics.json; empty where it holds none."""
    found = contents[METRICS]
    return found if isinstance(found, dict) else {}
