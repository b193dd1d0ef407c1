"""A trained detector as one folder of plain data, named by its content; nothing in it can execute.

- ``detector.safetensors``: every parameter and persistent buffer, in torch's names;
- ``config.json``: format version and DetectorConfig;
- ``calibration.json``: held-out flawless scores, or null;
- ``metrics.json``: figures and lineage of the training run, as its caller gave them, and library versions;
- ``card.md``: the same for a human reader.

The first three decide scores and p-values, and the hash of their bytes is the detector's id: training again with the
same outcome gives the same id, and nobody can change a detector without changing its name.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TypeAlias, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from model.calibration import Calibration
from model.card import detector_card
from model.config import DetectorConfig
from model.detector import AttentDifferNet

JSON: TypeAlias = "str | int | float | bool | Sequence[JSON] | Mapping[str, JSON] | None"
"""What json.dumps writes."""

_Content = TypeVar("_Content")

FORMAT_VERSION = 1
ARTIFACT_FILES = ("detector.safetensors", "config.json", "calibration.json", "metrics.json", "card.md")
"""Every file of an artifact; all of them are always there."""

_WEIGHTS, _CONFIG, _CALIBRATION, _METRICS, _CARD = ARTIFACT_FILES
_LARGEST_JSON_BYTES = 64 << 20  # a few million calibration scores; anything larger is damage or malice
_LIBRARIES = ("torchvision", "FrEIA", "numpy", "safetensors")


class ArtifactError(ValueError):
    """A folder that is no intact artifact, or a detector that would make none; one line: what was needed, what came."""

    def __init__(self, message: str) -> None:
        """Cuts the message to one short line, for parts of it may come from a hostile file."""
        super().__init__(ascii(" ".join(message.split()))[1:-1][:400])


@dataclass(frozen=True)
class Artifact:
    """A loaded detector, in evaluation mode, and what is known about it."""

    detector_id: str
    detector: AttentDifferNet
    calibration: Calibration | None
    metrics: Mapping[str, JSON]


def save_artifact(
    folder: Path, detector: AttentDifferNet, *, calibration: Calibration | None, metrics: Mapping[str, JSON]
) -> str:
    """Writes ``detector`` into ``folder``, which is made if need be; files of an earlier artifact there are replaced.

    Args:
        folder: not visible to readers before this returns, for the files are written one by one.
        detector: on any device, in any memory format.
        calibration: scores of held-out flawless photos under this detector.
        metrics: figures and lineage: manifest hash, counts, seed, git commit, ...; versions of the libraries are added.

    Returns:
        The detector's id, see ``content_id``.

    Raises:
        ArtifactError: weights that are not finite or do not fit ``detector.config``, or metrics that are no JSON.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    _check_tensors(tensors, config=detector.config)
    recorded = {"versions": _versions(), **metrics}
    metrics_bytes = _json_bytes(recorded)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / _WEIGHTS)
    config = {"format_version": FORMAT_VERSION, "detector": detector.config.model_dump(mode="json")}
    (folder / _CONFIG).write_bytes(_json_bytes(config))
    (folder / _CALIBRATION).write_bytes(_json_bytes(calibration.model_dump(mode="json") if calibration else None))
    (folder / _METRICS).write_bytes(metrics_bytes)
    detector_id = content_id(folder)
    card = detector_card(detector.config, detector_id=detector_id, calibration=calibration, metrics=recorded)
    (folder / _CARD).write_text(card, encoding="utf-8")
    return detector_id


def content_id(folder: Path) -> str:
    """The detector's id: 16 hex digits of SHA-256 over names, lengths and bytes of weights, config and calibration.

    Raises:
        ArtifactError: one of these files is missing or cannot be read.
    """
    digest = hashlib.sha256()
    for name in (_WEIGHTS, _CONFIG, _CALIBRATION):
        _reading(folder / name, lambda path: _digest_file(digest, path))
    return digest.hexdigest()[:16]


def load_artifact(folder: Path, *, device: torch.device | str = "cpu", expected_id: str | None = None) -> Artifact:
    """Reads and verifies an artifact.

    On the same machine a loaded detector scores bit for bit as the saved one, if that kept torch's default memory
    format: the rounding of convolutions depends on it, and an artifact has none.

    Args:
        folder: what ``save_artifact`` wrote.
        device: where the detector goes.
        expected_id: the id it was asked for by; None takes whatever lies there.

    Raises:
        ArtifactError: a file is missing, damaged, of an unknown format, or does not fit the others or the id.
    """
    detector_id = content_id(folder)
    if expected_id is not None and detector_id != expected_id:
        raise ArtifactError(f"needed detector {expected_id}, but the content of {folder} has the id {detector_id}")
    config = _parsed_config(_read_json(folder / _CONFIG))
    calibration = _parsed_calibration(_read_json(folder / _CALIBRATION))
    metrics = _read_json(folder / _METRICS)
    if not isinstance(metrics, dict):
        raise ArtifactError(f"{_METRICS} needs a JSON object, got {type(metrics).__name__}")
    tensors = _reading(folder / _WEIGHTS, load_file)
    _check_tensors(tensors, config=config)
    with _NoRandomWeights():
        detector = AttentDifferNet(config)
    # Copied, not assigned: the file stays mapped into memory otherwise, and cutting it short would kill the process.
    detector.load_state_dict(tensors, strict=True)
    return Artifact(detector_id, detector.to(device).eval(), calibration, metrics)


class _NoRandomWeights(TorchFunctionMode):
    """Leaves weights uninitialised that are about to be loaded: drawing 172 million of them takes a second."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        return func(*args, **(kwargs or {}))


def _check_tensors(tensors: Mapping[str, Tensor], *, config: DetectorConfig) -> None:
    """Compares with a detector on the meta device, which holds no memory, however large the config says it is."""
    if max(config.flow.blocks, config.flow.hidden_layers) > len(tensors):
        raise ArtifactError(f"{_CONFIG} asks for more flow layers than {_WEIGHTS} has tensors ({len(tensors)})")
    try:
        with torch.device("meta"):
            needed = AttentDifferNet(config).state_dict()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"no detector can be built from {_CONFIG}: {error}") from error
    if absent := sorted(needed.keys() - tensors.keys()):
        raise ArtifactError(f"{_WEIGHTS} needs {len(needed)} tensors, {len(absent)} are missing: {absent[:3]}")
    if unknown := sorted(tensors.keys() - needed.keys()):
        raise ArtifactError(f"{_WEIGHTS} needs {len(needed)} tensors, got {len(unknown)} unknown ones: {unknown[:3]}")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, needed=needed[name])


def _check_tensor(name: str, tensor: Tensor, *, needed: Tensor) -> None:
    if tensor.shape != needed.shape or tensor.dtype != needed.dtype:
        wanted, got = (f"{one.dtype} {tuple(one.shape)}" for one in (needed, tensor))
        raise ArtifactError(f"{_WEIGHTS}: {name} needs {wanted}, got {got}")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise ArtifactError(f"{_WEIGHTS}: {name} needs finite numbers, got NaN or infinity")
    # The flow's permutations follow from the config and are real even on meta; a forged one could index out of bounds.
    if not needed.is_meta and not torch.equal(tensor, needed):
        raise ArtifactError(f"{_WEIGHTS}: {name} is a constant, its values are not those that {_CONFIG} implies")


def _parsed_config(content: object) -> DetectorConfig:
    found = content.get("format_version") if isinstance(content, dict) else None
    if not isinstance(content, dict) or found != FORMAT_VERSION:
        raise ArtifactError(
            f"{_CONFIG} needs format_version {FORMAT_VERSION}, got {found!r}: use a version that knows it"
        )
    try:
        return DetectorConfig.model_validate(content.get("detector"))
    except ValidationError as error:
        raise ArtifactError(f"{_CONFIG} holds no detector config: {_first_fault(error)}") from error


def _parsed_calibration(content: object) -> Calibration | None:
    try:
        return None if content is None else Calibration.model_validate(content)
    except ValidationError as error:
        raise ArtifactError(f"{_CALIBRATION} holds no calibration: {_first_fault(error)}") from error


def _first_fault(error: ValidationError) -> str:
    first = error.errors()[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def _reading(path: Path, read: Callable[[Path], _Content]) -> _Content:
    try:
        return read(path)
    except FileNotFoundError as error:
        raise ArtifactError(f"an artifact needs {path.name}, {path.parent} has none") from error
    except (OSError, SafetensorError, ValueError, RecursionError) as error:
        raise ArtifactError(f"{path.name} cannot be read, it may be cut or damaged: {error}") from error


def _read_json(path: Path) -> object:
    return _reading(path, _parsed_json)


def _parsed_json(path: Path) -> object:
    if path.stat().st_size > _LARGEST_JSON_BYTES:
        raise ValueError(f"at most {_LARGEST_JSON_BYTES} bytes are read, got {path.stat().st_size}")
    return json.loads(path.read_bytes())


def _json_bytes(content: object) -> bytes:
    try:
        return json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise ArtifactError(f"metrics must be JSON with finite numbers: {error}") from error


def _digest_file(digest: hashlib._Hash, path: Path) -> None:
    digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)


def _versions() -> dict[str, str]:
    others = {library: version(library) for library in _LIBRARIES}
    return {"python": platform.python_version(), "torch": torch.__version__, **others}  # torch names its CUDA there
