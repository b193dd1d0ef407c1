"""The state of a training between two epochs, as plain data: tensors in safetensors, the rest in JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.detector import AttentDifferNet

_TENSORS, _PROGRESS = "state.safetensors", "progress.json"
_FROZEN = "backbone.layers."  # the convolutions never change, so a state leaves them out


class CheckpointError(ValueError):
    """A folder that holds no intact training state; one line: what was needed, what came."""


PRETEXT_LOSS = "pretext.loss"
"""Name of the pretext's loss among the tensors of a state that was kept right after it."""


@dataclass(frozen=True)
class TrainingState:
    """All that a training needs to go on as if it had never stopped; random draws depend on seed and epoch alone.

    Attributes:
        epoch: the last finished one; 0 after the attention pretext.
        tensors: by name: ``detector.*``, the optimizer's ``adam.*``, and ``best.*``, the best epoch's, where training
            may stop early.
        history: metrics of the finished epochs, JSON objects; none right after the pretext.
    """

    epoch: int
    tensors: dict[str, Tensor]
    history: list[dict[str, object]] = field(default_factory=list)


def save_state(folder: Path, state: TrainingState) -> None:
    """Writes a state into ``folder``, which is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}, folder / _TENSORS)
    (folder / _PROGRESS).write_text(json.dumps({"epoch": state.epoch, "history": state.history}))


def load_state(folder: Path) -> TrainingState:
    """Reads what `save_state` wrote; the tensors lie on the CPU.

    Raises:
        CheckpointError: a file is missing or damaged.
    """
    try:
        progress = json.loads((folder / _PROGRESS).read_text())
        epoch, history = int(progress["epoch"]), list(progress["history"])
        return TrainingState(epoch, load_file(folder / _TENSORS), history)
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder} holds no intact training state ({error}): delete it to start afresh"
        ) from error


def read_pretext_loss(state: TrainingState) -> float | None:
    """Reads the pretext's loss from a state that was kept right after it; None from any other."""
    found = state.tensors.get(PRETEXT_LOSS)
    return None if found is None or state.history else float(found)


def copy_detector_tensors(detector: AttentDifferNet, *, prefix: str) -> dict[str, Tensor]:
    """Copies a detector's tensors to the CPU, all but its frozen convolutions; ``prefix`` goes before each name."""
    state = detector.state_dict()
    return {
        prefix + name: value.detach().cpu().clone() for name, value in state.items() if not name.startswith(_FROZEN)
    }


def load_detector_tensors(detector: AttentDifferNet, tensors: Mapping[str, Tensor], *, prefix: str) -> None:
    """Loads what `copy_detector_tensors` gave under ``prefix``.

    Raises:
        ValueError: the tensors are of another detector.
    """
    state = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    left = detector.load_state_dict(state, strict=False)
    missing = [name for name in left.missing_keys if not name.startswith(_FROZEN)]
    if missing or left.unexpected_keys:
        raise ValueError(
            f"the training state is of another detector: {(missing + left.unexpected_keys)[0]} does not fit"
        )
