"""A training that stops and goes on ends as if it had never stopped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from model.config import OptimizerConfig
from model.detector import AttentDifferNet
from model.training.checkpoint import CheckpointError, TrainingState, load_state, save_state
from model.training.loop import Snapshot, train
from model.training.metrics import EpochMetrics
from model.training.photos import InMemory
from tests.support.training import build_training_config, draw_photos, have_same_weights, ignore_epoch

_PHOTOS = InMemory(draw_photos(8))
_SETTINGS = OptimizerConfig(epochs=6, batch_size=4, learning_rate=1e-3)


class _Interrupted(Exception):  # noqa: N818
    pass


def _interrupt_at(epoch: int, detector: AttentDifferNet, optimizer: OptimizerConfig) -> TrainingState:
    states: list[TrainingState] = []

    def stop(metrics: EpochMetrics, snapshot: Snapshot) -> None:
        if metrics.epoch == epoch:
            states.append(snapshot())
        elif states:  # the epoch after the snapshot is under way, or just done, when the process dies
            raise _Interrupted("killed")

    with pytest.raises(_Interrupted, match="killed"):
        train(detector, _PHOTOS, optimizer=optimizer, on_epoch=stop, validation=InMemory(draw_photos(4, seed=5)))
    return states[0]


@pytest.mark.slow
@pytest.mark.parametrize("training", ["frozen", "pretext", "joint"])
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_resumed_training_ends_bit_for_bit_as_an_uninterrupted_one(training: str, epoch: int, tmp_path: Path) -> None:
    flow = build_training_config().flow.model_copy(update={"dropout": 0.2})
    pretext = {"steps": 2, "pairs": 3}
    config = build_training_config(attention_training=training, pretext=pretext, flow=flow, train_angles="scoring")
    whole, resumed = AttentDifferNet(config), AttentDifferNet(config)
    validation = InMemory(draw_photos(4, seed=5))
    expected = train(whole, _PHOTOS, optimizer=_SETTINGS, on_epoch=ignore_epoch, validation=validation)

    save_state(tmp_path, _interrupt_at(epoch, AttentDifferNet(config), _SETTINGS))
    state = load_state(tmp_path)
    assert state.epoch == epoch
    reported: list[int] = []
    history = train(
        resumed,
        _PHOTOS,
        optimizer=_SETTINGS,
        on_epoch=lambda metrics, _: reported.append(metrics.epoch),
        validation=validation,
        resume=state,
    )

    assert reported == list(range(epoch + 1, 7))
    assert have_same_weights(whole, resumed)
    assert [(row.epoch, row.loss, row.validation_loss) for row in history] == [
        (row.epoch, row.loss, row.validation_loss) for row in expected
    ]


@pytest.mark.slow
@pytest.mark.parametrize("angles", ["scoring", "uniform"])
def test_a_training_killed_right_after_its_pretext_goes_on_from_there(angles: str, tmp_path: Path) -> None:
    """Before features are computed, which takes minutes too: scaling is fitted after that, and so again."""
    settings = _SETTINGS.model_copy(update={"epochs": 2})
    config = build_training_config(attention_training="pretext", pretext={"steps": 2, "pairs": 3}, train_angles=angles)
    whole, resumed = AttentDifferNet(config), AttentDifferNet(config)
    expected = train(whole, _PHOTOS, optimizer=settings, on_epoch=ignore_epoch)

    def stop(state: TrainingState) -> None:
        save_state(tmp_path, state)
        raise _Interrupted("killed")

    with pytest.raises(_Interrupted, match="killed"):
        train(AttentDifferNet(config), _PHOTOS, optimizer=settings, on_epoch=ignore_epoch, on_pretext=stop)
    remarks: list[str] = []
    history = train(
        resumed,
        _PHOTOS,
        optimizer=settings,
        on_epoch=ignore_epoch,
        resume=load_state(tmp_path),
        tell=remarks.append,
    )

    assert remarks == []  # nothing was learnt again
    assert have_same_weights(whole, resumed)
    assert [(row.epoch, row.loss) for row in history] == [(row.epoch, row.loss) for row in expected]


def test_the_steps_of_the_pretext_are_told() -> None:
    config = build_training_config(attention_training="pretext", pretext={"steps": 2, "pairs": 3})
    remarks: list[str] = []
    settings = _SETTINGS.model_copy(update={"epochs": 1})
    train(AttentDifferNet(config), _PHOTOS, optimizer=settings, on_epoch=ignore_epoch, tell=remarks.append)
    assert remarks == ["learning attention: step 1/2", "learning attention: step 2/2"]


def test_training_stops_when_held_out_photos_stop_getting_likelier_and_keeps_the_best_epoch() -> None:
    # 4 photos, a fast flow: it learns them by heart within a few epochs, and held-out photos get unlikelier.
    settings = OptimizerConfig(epochs=200, batch_size=4, learning_rate=1e-2, patience=3)
    detector, photos, held_out = (
        AttentDifferNet(build_training_config()),
        InMemory(draw_photos(4)),
        InMemory(draw_photos(4, seed=5)),
    )
    snapshots: dict[int, TrainingState] = {}

    def remember(metrics: EpochMetrics, snapshot: Snapshot) -> None:
        snapshots[metrics.epoch] = snapshot()

    history = train(detector, photos, optimizer=settings, on_epoch=remember, validation=held_out)

    losses = [row.validation_loss for row in history]
    best = losses.index(min(losses)) + 1
    assert len(history) == best + 3 < 200
    kept = snapshots[best].tensors
    assert all(
        torch.equal(kept[f"detector.{name}"], value) for name, value in detector.flow.state_dict(prefix="flow.").items()
    )


@pytest.mark.slow
def test_patience_survives_an_interruption() -> None:
    settings = OptimizerConfig(epochs=60, batch_size=4, learning_rate=1e-2, patience=3)
    held_out = InMemory(draw_photos(4, seed=5))
    whole, resumed = AttentDifferNet(build_training_config()), AttentDifferNet(build_training_config())
    expected = train(whole, _PHOTOS, optimizer=settings, on_epoch=ignore_epoch, validation=held_out)
    state = _interrupt_at(len(expected) - 1, AttentDifferNet(build_training_config()), settings)
    history = train(resumed, _PHOTOS, optimizer=settings, on_epoch=ignore_epoch, validation=held_out, resume=state)
    assert len(history) == len(expected) < 60
    assert have_same_weights(whole, resumed)


def test_a_state_of_another_detector_is_refused() -> None:
    state = _interrupt_at(1, AttentDifferNet(build_training_config()), _SETTINGS)
    other = AttentDifferNet(build_training_config(flow=build_training_config().flow.model_copy(update={"blocks": 3})))
    with pytest.raises(ValueError, match="of another detector"):
        train(other, _PHOTOS, optimizer=_SETTINGS, on_epoch=ignore_epoch, resume=state)


@pytest.mark.parametrize("damage", ["cut", "gone", "not JSON"])
def test_a_damaged_state_is_refused_with_what_to_do(damage: str, tmp_path: Path) -> None:
    save_state(tmp_path, TrainingState(1, {"a": torch.ones(3)}))
    if damage == "cut":
        (tmp_path / "state.safetensors").write_bytes((tmp_path / "state.safetensors").read_bytes()[:-4])
    elif damage == "gone":
        (tmp_path / "progress.json").unlink()
    else:
        (tmp_path / "progress.json").write_text("epoch 1")
    with pytest.raises(CheckpointError, match="delete it to start afresh"):
        load_state(tmp_path)
