"""Detectors in object storage: ``<detectors>/<category>/<detector_id>/``, with an ``aliases.json`` beside them."""

from __future__ import annotations

import json
import os
import re
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from jobs import storage, uris
from jobs.errors import ConflictError, JobError, MissingObjectError, RequestError
from model.artifact_files import ARTIFACT_FILES, ArtifactError, content_id
from model.calibration import Calibration
from model.config import DetectorConfig

_ALIASES = "aliases.json"
_DETECTOR_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class RegisteredDetector:
    """What a plan needs to know of a detector without loading its weights."""

    category: str
    detector_id: str
    config: DetectorConfig
    calibration: Calibration | None


def put(detectors: str, category: str, *, folder: Path) -> str:
    """Uploads an artifact folder and returns its detector id. Putting the same content again changes nothing."""
    detector_id = content_id(folder)
    for name in (name for name in ARTIFACT_FILES if (folder / name).exists()):
        storage.write(uris.join(detectors, category, detector_id, name), (folder / name).read_bytes())
    return detector_id


def aliases(detectors: str, category: str) -> dict[str, str]:
    """Alias -> detector id of one category; empty where none was set."""
    return _aliases_with_etag(detectors, category)[0]


def _aliases_with_etag(detectors: str, category: str) -> tuple[dict[str, str], str | None]:
    uri = uris.join(detectors, category, _ALIASES)
    try:
        data, etag = storage.read_with_etag(uri)
    except MissingObjectError:
        return {}, None
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict) or not all(_DETECTOR_ID.fullmatch(str(value)) for value in found.values()):
        raise RequestError(f"{uri} is damaged: expected a JSON object of alias to detector id; restore or delete it")
    return found, etag


def set_alias(detectors: str, category: str, *, alias: str, detector_id: str) -> str | None:
    """Points ``alias`` at ``detector_id`` by a conditional put; returns the detector that it pointed at before.

    Raises:
        ConflictError: another process changed the aliases between our read and our write.
    """
    current, etag = _aliases_with_etag(detectors, category)
    data = json.dumps({**current, alias: detector_id}, indent=2, sort_keys=True).encode()
    uri = uris.join(detectors, category, _ALIASES)
    try:
        storage.write(uri, data, if_absent=etag is None, if_etag=etag)
    except ConflictError as error:
        raise ConflictError(f"another promotion of {category} won; look at {uri}, then promote again") from error
    return current.get(alias)


def categories(detectors: str) -> list[str]:
    """Categories that have at least one alias, sorted."""
    below = len(detectors.rstrip("/")) + 1
    keys = (info.uri[below:].split("/") for info in storage.list_objects(detectors))
    return sorted({parts[0] for parts in keys if len(parts) == 2 and parts[1] == _ALIASES})


def resolve(detectors: str, category: str, *, alias: str) -> RegisteredDetector | None:
    """The detector behind ``alias``, or None where the category has no such alias.

    Raises:
        RequestError: the alias points at a detector that is not there or is damaged.
    """
    if any(part in ("", ".", "..") for part in category.split("/")):
        return None  # a hostile archive key must not name a folder outside the registry
    detector_id = aliases(detectors, category).get(alias)
    if detector_id is None:
        return None
    folder = uris.join(detectors, category, detector_id)
    try:
        config = DetectorConfig.model_validate(json.loads(storage.read(uris.join(folder, "config.json")))["detector"])
    except (MissingObjectError, ValueError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise RequestError(
            f"{alias} of {category} is {detector_id}, whose config.json cannot be read: {reason}"
        ) from error
    return RegisteredDetector(category, detector_id, config, _calibration(folder))


def _calibration(folder: str) -> Calibration | None:
    uri = uris.join(folder, "calibration.json")
    try:
        found = json.loads(storage.read(uri))
        return None if found is None else Calibration.model_validate(found)
    except ValueError as error:
        raise RequestError(f"{uri} is damaged: {' '.join(str(error).split())}") from error


def fetch(detectors: str, category: str, *, detector_id: str) -> Path:
    """Downloads a detector once per node, verifies its content id and returns the local folder.

    The folder appears by an atomic rename, so that concurrent actors never see half of it.
    """
    cache = _private_cache() / category
    folder = cache / detector_id
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        download(detectors, category, detector_id=detector_id, folder=Path(scratch) / "download")
        try:
            (Path(scratch) / "download").rename(folder)
        except OSError:
            if not folder.exists():
                raise
    return folder


def _private_cache() -> Path:
    """A folder that only this user can have filled: what lies in it is loaded without hashing it again."""
    base = Path(tempfile.gettempdir()) / f"attentdiffernet-{os.getuid()}"
    base.mkdir(mode=0o700, exist_ok=True)
    status = base.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise JobError(f"{base} must be a folder that only this user can write to: remove it, or set TMPDIR")
    return base


def download(detectors: str, category: str, *, detector_id: str, folder: Path) -> None:
    """Downloads a detector into ``folder`` and verifies its content id.

    Raises:
        MissingObjectError: no such detector.
        ArtifactError: the content is not what the id says.
    """
    folder.mkdir(parents=True)
    prefix = uris.join(detectors, category, detector_id)
    for name in ARTIFACT_FILES:
        try:
            (folder / name).write_bytes(storage.read(uris.join(prefix, name)))
        except MissingObjectError:
            if name == "detector.safetensors":
                raise
    if content_id(folder) != detector_id:
        raise ArtifactError(
            f"{prefix} does not hold the content its id names: it was changed or damaged; register it again"
        )
