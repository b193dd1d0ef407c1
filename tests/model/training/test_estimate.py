"""The estimate of a training's time: what it counts, and that timing changes nothing."""

from __future__ import annotations

import copy

import torch

from model.config import OptimizerConfig
from model.detector import AttentDifferNet
from model.training.estimate import WorkSeconds, estimate_seconds, time_work
from tests.support.training import build_training_config, have_same_weights

WORK = WorkSeconds(view=1.0, step=100.0)
OPTIMIZER = OptimizerConfig(epochs=3, batch_size=4)


def _estimate(*, photos: int = 8, world_size: int = 1, learns_pretext: bool = False, **changes: object) -> float:
    detector = AttentDifferNet(build_training_config(attention={}, **changes))
    return estimate_seconds(
        WORK,
        detector,
        OPTIMIZER,
        photos=photos,
        scored=0,
        epochs=3,
        world_size=world_size,
        learns_pretext=learns_pretext,
    )


def test_timing_changes_no_weight_and_no_random_state() -> None:
    detector = AttentDifferNet(build_training_config()).train()
    before, state = copy.deepcopy(detector), torch.get_rng_state()
    work = time_work(detector, OPTIMIZER)
    assert work.view > 0
    assert work.step > 0
    assert have_same_weights(before, detector)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(weight.grad is None for weight in detector.parameters())
    assert detector.training


def test_new_rotations_cost_their_features_in_every_epoch() -> None:
    # 3 epochs x 8 photos x 2 views of 1 s, and 3 x 2 steps of 100 s
    assert _estimate(train_angles="uniform") == 3 * 8 * 2 + 600


def test_fixed_rotations_cost_their_features_once() -> None:
    assert _estimate(train_angles="scoring") == 8 * 4 + 600


def test_workers_share_the_features_and_all_take_every_step() -> None:
    assert _estimate(train_angles="scoring", world_size=4) == 8 + 600


def test_a_pretext_that_has_still_to_be_learnt_counts() -> None:
    pretext = {"steps": 10, "pairs": 5}
    assert _estimate(train_angles="scoring", pretext=pretext, learns_pretext=True) > 32 + 600 + 10 * 5 * 2
