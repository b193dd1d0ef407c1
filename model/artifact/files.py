"""The files of an artifact: their names, the id that their content gives, and how damage in them is named.

Needs no torch, so that the registry's commands answer at once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, TypeVar

from pydantic import ValidationError
from safetensors import SafetensorError

from model.config import DetectorConfig
from model.statistics.calibration import Calibration

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"
"""What json.dumps writes."""

_Content = TypeVar("_Content")

FORMAT_VERSION = 2
"""Of what is written. Version 1 is read as well, but for bf16, whose scores came from other arithmetic then."""
ARTIFACT_FILES = ("detector.safetensors", "config.json", "calibration.json", "metrics.json", "card.md")
"""Every file of an artifact; all of them are always there."""

WEIGHTS, CONFIG, CALIBRATION, METRICS, CARD = ARTIFACT_FILES
WEIGHTS_HASH = "weights_hash"
"""Field of config.json, see ``hash_weights``: a registry says which weights a detector has without reading them."""
ALIASES_FILE = "aliases.json"
"""In a registry, beside the artifacts of a category: alias -> detector id."""
_MAX_JSON_BYTES = 64 << 20  # a few million calibration scores; anything larger is damage or malice


class ArtifactError(ValueError):
    """A folder that is no intact artifact, or a detector that would make none; one line: what was needed, what came."""

    def __init__(self, message: str) -> None:
        """Cuts the message to one short line, for parts of it may come from a hostile file."""
        super().__init__(ascii(" ".join(message.split()))[1:-1][:400])


def hash_content(folder: Path) -> str:
    """Computes the detector's id: 16 hex digits of SHA-256 over weights, config and calibration.

    Each file counts with its name, its length and its bytes.

    Raises:
        ArtifactError: one of these files is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for name in (WEIGHTS, CONFIG, CALIBRATION):
        read_artifact_file(folder / name, lambda path: _digest_file(digest, path))
    return digest.hexdigest()[:16]


def hash_weights(folder: Path) -> str:
    """Computes the SHA-256 of the weights' bytes, 64 hex digits. Raises ArtifactError where they cannot be read."""
    digest = hashlib.sha256()
    read_artifact_file(folder / WEIGHTS, lambda path: _digest_file(digest, path))
    return digest.hexdigest()


def compute_weights_id(config: object, *, weights_hash: str | None = None) -> str | None:
    """Computes what raw scores depend on: 16 hex digits over weights, preprocessing and precision.

    Detectors that differ in their calibration alone have the same, so their raw scores of a photo are the same.

    Args:
        config: content of config.json. It counts as it was written: a field that a later version adds changes nothing.
        weights_hash: see ``hash_weights``; None takes what config.json says.

    Returns:
        None where neither says it, as for artifacts of before this was recorded.
    """
    content = config if isinstance(config, dict) else {}
    known = weights_hash or content.get(WEIGHTS_HASH)
    if not isinstance(known, str):
        return None
    return hashlib.sha256(encode_json([known, content.get("detector")])).hexdigest()[:16]


def parse_config_json(content: object) -> DetectorConfig:
    """Parses the content of config.json into a DetectorConfig.

    Raises:
        ArtifactError: another format version, or a field that is wrong.
    """
    found = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(content, dict) or found not in (1, FORMAT_VERSION):
        raise ArtifactError(
            f"{CONFIG} needs format_version {FORMAT_VERSION}, got {found!r}: use a version that knows it"
        )
    try:
        config = DetectorConfig.model_validate(content.get("detector"))
    except ValidationError as error:
        raise ArtifactError(f"{CONFIG} holds no detector config: {describe_first_fault(error)}") from error
    if found == 1 and config.precision == "bf16":
        raise ArtifactError(
            f"{CONFIG} has format_version 1 and precision bf16, whose scores came from other arithmetic: train it again"
        )
    return config


def parse_calibration_json(content: object) -> Calibration | None:
    """Parses the content of calibration.json; None where the detector has no calibration.

    Raises:
        ArtifactError: scores that are none, see ``Calibration``.
    """
    try:
        return None if content is None else Calibration.model_validate(content)
    except ValidationError as error:
        raise ArtifactError(f"{CALIBRATION} holds no calibration: {describe_first_fault(error)}") from error


def describe_first_fault(error: ValidationError) -> str:
    """Describes the first field that is wrong, as ``field: reason``."""
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg'].removeprefix('Value error, ')}"


def read_artifact_file(path: Path, read: Callable[[Path], _Content]) -> _Content:
    """Returns what ``read`` makes of an artifact's file.

    Raises:
        ArtifactError: the file is missing, cut or damaged.
    """
    try:
        return read(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"an artifact needs {path.name}, {path.parent} has none") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path.name} cannot be read, it may be cut or damaged: {error}") from error


def read_json(path: Path) -> object:
    """Reads a JSON file of at most 64 MiB; raises as ``read_artifact_file`` does."""
    return read_artifact_file(path, _parse_json)


def read_alias(folder: Path, alias: str) -> str:
    """Returns the id of the detector behind an alias of a category, given the category's folder in a registry.

    Raises:
        ArtifactError: no such alias, or none at all.
    """
    found = read_json(folder / ALIASES_FILE)
    content = found if isinstance(found, dict) else {}
    aliases = {name: detector_id for name, detector_id in content.items() if isinstance(detector_id, str)}
    if alias not in aliases:
        raise ArtifactError(f"{folder} has no alias {alias!r}; it has {', '.join(sorted(aliases)) or 'none'}")
    return aliases[alias]


def _parse_json(path: Path) -> object:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise ValueError(f"at most {_MAX_JSON_BYTES} bytes are read, got {path.stat().st_size}")
    return json.loads(path.read_bytes())


def encode_json(content: object) -> bytes:
    """Encodes ``content`` as a JSON file whose bytes depend on nothing else.

    Raises:
        ArtifactError: something JSON has no word for, or a number that is not finite.
    """
    try:
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"metrics must be JSON with finite numbers: {error}") from error


def _digest_file(digest: hashlib._Hash, path: Path) -> None:
    digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
