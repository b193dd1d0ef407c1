"""A trained detector as one folder of plain data, named by its content; nothing in it can execute.

- ``detector.safetensors``: every parameter and persistent buffer, in torch's names;
- ``config.json``: format version and DetectorConfig;
- ``calibration.json``: held-out flawless scores, or null;
- ``metrics.json``: metrics and lineage of the training run, as its caller gave them, and library versions;
- ``card.md``: the same for a human reader.

The first three decide scores and p-values, and the hash of their bytes is the detector's id: training again with the
same outcome gives the same id, and nobody can change a detector without changing its name.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from model.artifact.card import WEIGHTS_LICENCE, render_model_card
from model.artifact.files import (
    ALIASES_FILE,
    CALIBRATION,
    CARD,
    CONFIG,
    FORMAT_VERSION,
    JSON,
    METRICS,
    WEIGHTS,
    WEIGHTS_HASH,
    ArtifactError,
    encode_json,
    hash_content,
    hash_weights,
    parse_calibration_json,
    parse_config_json,
    read_alias,
    read_artifact_file,
    read_json,
)
from model.artifact.loaded import Artifact
from model.config import DetectorConfig, Precision
from model.detector import AttentDifferNet
from model.localization.gaussians import PREFIX
from model.network.alexnet import ALEXNETS
from model.network.libraries import read_licence
from model.statistics.calibration import Calibration
from model.versions import read_versions


def save_artifact(
    folder: Path, detector: AttentDifferNet, *, calibration: Calibration | None, metrics: Mapping[str, JSON]
) -> str:
    """Writes ``detector`` into ``folder``, which is made if need be; files of an earlier artifact there are replaced.

    Args:
        folder: not visible to readers before this returns, for the files are written one by one.
        detector: on any device, in any memory format.
        calibration: scores of held-out flawless photos under this detector.
        metrics: metrics and lineage: manifest hash, counts, seed, git commit, ...; versions of the libraries are added.

    Returns:
        The detector's id, see ``hash_content``.

    Raises:
        ArtifactError: weights that are not finite or do not fit ``detector.config``, or metrics that are no JSON.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in detector.state_dict().items()}
    check_tensors(tensors, config=detector.config)
    metrics_bytes = encode_json(recorded := {**describe_origin(detector.config), **metrics})
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / WEIGHTS)
    write_config(folder, detector.config)
    (folder / METRICS).write_bytes(metrics_bytes)
    return finish_artifact(folder, detector.config, calibration=calibration, metrics=recorded)


def describe_origin(config: DetectorConfig) -> dict[str, JSON]:
    """Returns the versions of the libraries and, for a library's weights of a network that it built, their licence."""
    origin: dict[str, JSON] = {"versions": dict(read_versions())}
    if config.weights == "imagenet" and config.backbone not in ALEXNETS:
        origin[WEIGHTS_LICENCE] = read_licence(config.backbone)
    return origin


def recalibrate_artifact(
    folder: Path,
    source: Path,
    *,
    calibration: Calibration,
    metrics: Mapping[str, JSON],
    precision: Precision | None = None,
) -> str:
    """Writes a copy of an artifact with another calibration: the same bytes of weights, a new id.

    Args:
        folder: a new one, not visible to readers before this returns.
        source: an artifact whose content was verified.
        calibration: scores of flawless photos that the detector was not trained on, under this very detector.
        metrics: metrics and lineage of the copy, as in ``save_artifact``; nothing is added.
        precision: arithmetic that the calibration was made with; None leaves the config as it is, byte for byte.

    Returns:
        The copy's id; the source's where the calibration is the same.

    Raises:
        ArtifactError: a file of ``source`` is missing or damaged, or metrics that are no JSON.
    """
    config = parse_config_json(read_json(source / CONFIG))
    metrics_bytes = encode_json(metrics)
    folder.mkdir(parents=True)
    for name in (WEIGHTS, CONFIG):
        shutil.copyfile(source / name, folder / name)
    if precision not in (None, config.precision):
        config = config.model_copy(update={"precision": precision})
        write_config(folder, config)
    (folder / METRICS).write_bytes(metrics_bytes)
    return finish_artifact(folder, config, calibration=calibration, metrics=metrics)


def write_config(folder: Path, config: DetectorConfig) -> None:
    """Writes config.json with its format version and the hash of the weights, which lie in the folder already."""
    content = {
        "format_version": FORMAT_VERSION,
        "detector": config.model_dump(mode="json"),
        WEIGHTS_HASH: hash_weights(folder),
    }
    (folder / CONFIG).write_bytes(encode_json(content))


def finish_artifact(
    folder: Path, config: DetectorConfig, *, calibration: Calibration | None, metrics: Mapping[str, JSON]
) -> str:
    """Adds calibration and card to weights and config; returns the id, which the card names."""
    (folder / CALIBRATION).write_bytes(encode_json(calibration.model_dump(mode="json") if calibration else None))
    detector_id = hash_content(folder)
    card = render_model_card(config, detector_id=detector_id, calibration=calibration, metrics=metrics)
    (folder / CARD).write_text(card, encoding="utf-8")
    return detector_id


def load_artifact(
    folder: Path | str,
    *,
    alias: str | None = None,
    device: torch.device | str = "cpu",
    expected_id: str | None = None,
    precision: Precision | None = None,
    from_cache: bool = False,
) -> Artifact:
    """Reads and verifies an artifact.

    On the same machine a loaded detector scores bit for bit as the saved one, if that kept torch's default memory
    format: the rounding of convolutions depends on it, and an artifact has none.

    Args:
        folder: what ``save_artifact`` wrote; or with ``alias`` the folder of a category in a registry.
        alias: which of the category's detectors, such as ``champion``.
        device: where the detector goes.
        expected_id: the id it was asked for by; None takes whatever lies there.
        precision: arithmetic to score with, if it is to be another than the config's.
        from_cache: the folder has the detector's id as its name, its content was verified when it was put there, and
            nobody will change it: it is not verified again, and on a CPU the weights stay in the file, whose pages all
            processes of a machine share.

    Raises:
        ArtifactError: a file is missing, damaged, of an unknown format, or does not fit the others or the id.
    """
    folder = Path(folder).expanduser()
    if alias is not None:
        expected_id = read_alias(folder, alias)
        folder = folder / expected_id
    elif (folder / ALIASES_FILE).exists():
        raise ArtifactError(f'{folder} has the detectors of a category: say which, such as alias="champion"')
    detector_id = folder.name if from_cache else hash_content(folder)
    if expected_id is not None and detector_id != expected_id:
        raise ArtifactError(f"needed detector {expected_id}, but the content of {folder} has the id {detector_id}")
    config = parse_config_json(read_json(folder / CONFIG))
    calibration = parse_calibration_json(read_json(folder / CALIBRATION))
    metrics = read_json(folder / METRICS)
    if not isinstance(metrics, dict):
        raise ArtifactError(f"{METRICS} needs a JSON object, got {type(metrics).__name__}")
    config = config if precision is None else config.model_copy(update={"precision": precision})
    tensors = read_artifact_file(folder / WEIGHTS, load_file)
    check_tensors(tensors, config=config, are_finite=from_cache)
    with _NoRandomWeights():
        detector = build_empty(config, tensors)
    # A copy otherwise: a file that is mapped into memory and cut short by someone would kill the process.
    detector.load_state_dict(tensors, strict=True, assign=from_cache)
    return Artifact(detector_id, detector.to(device).eval(), calibration, metrics)


def build_empty(config: DetectorConfig, tensors: Mapping[str, Tensor]) -> AttentDifferNet:
    """Builds the detector that tensors belong to; artifacts of before have none of positions, and stay without."""
    detector = AttentDifferNet(config)
    if stages := sum(name.startswith(f"{PREFIX}mean") for name in tensors):
        detector.add_positions(stages=stages)
    return detector


class _NoRandomWeights(TorchFunctionMode):
    """Leaves weights uninitialised that are about to be loaded: drawing 172 million of them takes a second."""

    def __torch_function__(
        self,
        func: Callable[..., object],
        types: Sequence[type],
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        given = kwargs or {}
        if func in (Tensor.uniform_, Tensor.normal_):
            return args[0]
        if func in (nn.init.kaiming_uniform_, nn.init.uniform_):  # what these call does not come by here
            return given["tensor"]
        return func(*args, **given)


def check_tensors(tensors: Mapping[str, Tensor], *, config: DetectorConfig, are_finite: bool = False) -> None:
    """Raises ArtifactError unless names, shapes, types and values of the tensors fit the config."""
    if max(config.flow.blocks, config.flow.hidden_layers) > len(tensors):
        raise ArtifactError(f"{CONFIG} asks for more flow layers than {WEIGHTS} has tensors ({len(tensors)})")
    try:
        with torch.device("meta"):  # it holds no memory, however large the config says the detector is
            needed = build_empty(config, tensors).state_dict()
    except (ValueError, RuntimeError) as error:
        raise ArtifactError(f"no detector can be built from {CONFIG}: {error}") from error
    if absent := sorted(needed.keys() - tensors.keys()):
        raise ArtifactError(f"{WEIGHTS} needs {len(needed)} tensors, {len(absent)} are missing: {absent[:3]}")
    if unknown := sorted(tensors.keys() - needed.keys()):
        raise ArtifactError(f"{WEIGHTS} needs {len(needed)} tensors, got {len(unknown)} unknown ones: {unknown[:3]}")
    for name, tensor in tensors.items():
        _check_tensor(name, tensor, needed=needed[name], is_finite=are_finite)


def _check_tensor(name: str, tensor: Tensor, *, needed: Tensor, is_finite: bool) -> None:
    if tensor.shape != needed.shape or tensor.dtype != needed.dtype:
        wanted, got = (f"{one.dtype} {tuple(one.shape)}" for one in (needed, tensor))
        raise ArtifactError(f"{WEIGHTS}: {name} needs {wanted}, got {got}")
    if tensor.is_floating_point() and not (is_finite or bool(tensor.isfinite().all())):
        raise ArtifactError(f"{WEIGHTS}: {name} needs finite numbers, got NaN or infinity")
    # The flow's permutations follow from the config and are real even on meta; a forged one could index out of bounds.
    if not needed.is_meta and not torch.equal(tensor, needed):
        raise ArtifactError(f"{WEIGHTS}: {name} is a constant, its values are not those that {CONFIG} implies")
