"""The rank-id pretext: what it teaches attention, and what it must leave alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from model.config import OptimizerConfig
from model.detector import AttentDifferNet
from model.network.gates import Gate, GateInput, collect_gate_statistics, measure_gate_deviation, record_gates
from model.network.scaling import fit_scaling
from model.training.attention_pretext import (
    fit_gate_inputs,
    pretrain_attention,
    split_halves,
    train_attention,
)
from model.training.loop import train
from model.training.metrics import DivergenceError
from model.training.photos import InMemory
from model.training.synthetic_defects import draw_defects
from tests.support.training import build_training_config, draw_photos, have_same_weights, ignore_epoch

_PHOTOS = InMemory(draw_photos(24))
_PRETEXT = {"steps": 12, "pairs": 6, "learning_rate": 1e-2, "identity_weight": 0.3}
_ONE_EPOCH = OptimizerConfig(epochs=1, batch_size=20)


def _build_detector(kind: str = "se", **changes: object) -> AttentDifferNet:
    attention = {"pool1": {"kind": kind}, "conv5": {"kind": kind}}
    # Unguarded: the features of random convolutions vary so little that any gate that moves makes most of the variance.
    changes = {"pretext": _PRETEXT, "train_angles": "scoring", "collapse_guard": False} | changes
    return AttentDifferNet(build_training_config(attention=attention, attention_training="pretext", **changes)).eval()


def _create_rng() -> np.random.Generator:
    return np.random.default_rng(0)


def _compute_log_ratio(detector: AttentDifferNet) -> float:
    """How much farther defective photos lie from flawless ones than flawless ones do, as the mean log ratio."""
    flawless, rng = draw_photos(16, seed=7), np.random.default_rng(7)
    defective = torch.stack(
        [draw_defects(photo, donor=flawless[0], rng=rng, defects=3, area=(0.002, 0.06)) for photo in flawless]
    )
    with torch.no_grad():
        gaussian = fit_scaling("whiten", detector.pool_features(_PHOTOS.images, attended=False))
        deviations = [
            gaussian.apply(detector.pool_features(images)).square().mean(1).log() for images in (flawless, defective)
        ]
    return float((deviations[1] - deviations[0]).mean())


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_synthetic_defects_on_photos_never_seen_stand_out_more_after_the_pretext(kind: str) -> None:
    trained = _build_detector(kind)
    train_attention(trained, [_PHOTOS], rng=_create_rng())
    assert _compute_log_ratio(trained) > _compute_log_ratio(_build_detector(kind)) + 0.05


@pytest.mark.slow
def test_the_pretext_trains_attention_alone_and_the_flow_training_leaves_it() -> None:
    untrained, trained = _build_detector(), _build_detector()
    seen: list[dict[str, Tensor]] = []

    def remember(_metrics: object, snapshot: object) -> None:
        seen.append({name: value.clone() for name, value in trained.backbone.attention.state_dict().items()})

    history = train(trained, _PHOTOS, optimizer=_ONE_EPOCH, on_epoch=remember)

    assert [row.epoch for row in history] == [0, 1]
    assert have_same_weights(untrained.backbone.layers, trained.backbone.layers)
    assert not have_same_weights(untrained.backbone.attention, trained.backbone.attention)
    assert all(torch.equal(before, after) for before, after in zip(seen[0].values(), seen[1].values(), strict=True))
    assert history[0].health.gate_mean != 1


@pytest.mark.slow
def test_attention_learnt_from_several_categories_is_taken_and_fitted_to_the_detectors_own_photos() -> None:
    others = InMemory(draw_photos(24, seed=9))
    learnt = pretrain_attention(_build_detector(), [_PHOTOS, others])
    alone = pretrain_attention(_build_detector(), [_PHOTOS])
    assert not torch.equal(learnt["conv5.fc1.weight"], alone["conv5.fc1.weight"])

    trained = _build_detector()
    history = train(trained, _PHOTOS, optimizer=_ONE_EPOCH, on_epoch=ignore_epoch, attention=learnt)

    assert [row.epoch for row in history] == [1]  # there was no pretext to report
    state = trained.backbone.attention.state_dict()
    assert all(torch.equal(state[name], learnt[name]) for name in state if ".fc" in name)
    # The statistics that came along are the last category's, in the order of the pretext.
    assert not torch.equal(state["conv5.average.mean"], learnt["conv5.average.mean"])


@pytest.mark.slow
def test_each_category_of_a_pretext_keeps_gate_statistics_of_its_own() -> None:
    detector = _build_detector()
    bright, dark = InMemory(_PHOTOS.images // 2 + 128), InMemory(_PHOTOS.images // 4)
    used: list[float] = []
    detector.backbone.attention["pool1"].average.register_forward_pre_hook(
        lambda module, _args: used.append(float(module.mean.mean()))
    )
    train_attention(detector, [bright, dark], rng=_create_rng())
    in_training = used[-4 * 2 :]  # the last four steps, two passes each at one scale
    assert in_training[0] == in_training[1] == in_training[4]
    assert in_training[2] == in_training[3] == in_training[6] != in_training[0]


@pytest.mark.slow
def test_the_pretext_is_seeded() -> None:
    detectors = [_build_detector(seed=seed) for seed in (0, 0, 1)]
    for detector in detectors:
        train(detector, _PHOTOS, optimizer=_ONE_EPOCH, on_epoch=ignore_epoch)
    assert have_same_weights(detectors[0].backbone.attention, detectors[1].backbone.attention)
    assert not have_same_weights(detectors[0].backbone.attention, detectors[2].backbone.attention)


@pytest.mark.slow
def test_a_strong_identity_term_keeps_the_gates_at_one() -> None:
    free, held = _build_detector(), _build_detector(pretext=_PRETEXT | {"identity_weight": 1000.0})
    deviations = []
    for detector in (free, held):
        train_attention(detector, [_PHOTOS], rng=_create_rng())
        with record_gates(detector.backbone.attention) as gates, torch.no_grad():
            detector.pool_features(_PHOTOS.images)
        deviations.append(float(measure_gate_deviation(gates)))
    assert deviations[1] < deviations[0] / 10


def test_gate_inputs_are_standardised_over_the_photos_and_change_no_gate_that_is_the_identity() -> None:
    detector, plain = _build_detector("cbam", scales=1), _build_detector("cbam", scales=1)
    rng = np.random.default_rng(0)
    fit_gate_inputs(detector, _PHOTOS, rng=rng)
    values: list[Tensor] = []
    last = detector.backbone.attention["conv5"].average
    last.register_forward_hook(lambda _module, _args, out: values.append(out))
    with torch.no_grad():
        pooled = detector.pool_features(_PHOTOS.images)
    # All 24 photos were seen, at random quarter turns: the statistics are nearly those of the unrotated photos.
    alive = values[0].std(0, correction=0) > 0.05
    assert float(values[0].mean(0)[alive].abs().mean()) < 0.3
    assert 0.7 < float(values[0].std(0, correction=0)[alive].mean()) < 1.3
    torch.testing.assert_close(pooled, plain.pool_features(_PHOTOS.images).detach())


def test_fitted_gate_inputs_have_mean_0_and_std_1_over_all_that_passed() -> None:
    inputs = GateInput(3)
    batches = torch.randn(4, 5, 3, 2, 2, generator=torch.Generator().manual_seed(0)) * 7 + 40
    with collect_gate_statistics(nn.ModuleList([inputs])):
        for batch in batches:
            inputs(batch)
    standardised = inputs(batches.flatten(0, 1))
    torch.testing.assert_close(standardised.mean((0, 2, 3)), torch.zeros(3), rtol=0, atol=1e-5)
    torch.testing.assert_close(standardised.std((0, 2, 3), correction=0), torch.ones(3), rtol=1e-5, atol=0)


def test_a_dead_gate_input_stays_finite() -> None:
    inputs = GateInput(2)
    with collect_gate_statistics(nn.ModuleList([inputs])):
        inputs(torch.stack([torch.zeros(6), torch.arange(6.0)], dim=1).view(6, 2, 1, 1))
    assert float(inputs(torch.full((1, 2, 1, 1), 0.01)).abs().max()) < 2


def test_every_gate_counts_the_same_in_the_deviation() -> None:
    assert float(measure_gate_deviation([torch.zeros(2, 100), torch.zeros(2, 1), torch.ones(2, 1)])) == 2.0
    assert torch.equal(Gate(2.0)(torch.zeros(3)), torch.ones(3))


def test_too_few_photos_for_a_pretext_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 4 flawless photos, got 3"):
        train(_build_detector(), InMemory(draw_photos(3)), optimizer=_ONE_EPOCH, on_epoch=ignore_epoch)


def test_a_pretext_that_diverges_is_reported_as_epoch_0() -> None:
    detector = _build_detector(pretext=_PRETEXT | {"learning_rate": 1e30})
    with pytest.raises(DivergenceError, match=r"epoch 0.*pretext\.learning_rate"):
        train(detector, _PHOTOS, optimizer=_ONE_EPOCH, on_epoch=ignore_epoch)


def test_attention_with_the_published_gate_cannot_learn_a_pretext() -> None:
    with pytest.raises(ValueError, match="starts from gates that are the identity"):
        build_training_config(attention={"pool1": {"kind": "se", "gate": "sigmoid"}}, attention_training="pretext")


@pytest.mark.parametrize("groups", [np.repeat(np.arange(8), 3), np.array([0] * 15 + list(range(1, 10)))])
def test_no_group_of_photos_is_in_both_halves_of_the_pretext(groups: npt.NDArray[np.int64]) -> None:
    for_gaussian, for_pairs = split_halves(InMemory(_PHOTOS.images, groups), rng=_create_rng())
    assert sorted([*for_gaussian.tolist(), *for_pairs.tolist()]) == list(range(24))
    assert not set(groups[for_gaussian]) & set(groups[for_pairs])
    assert 8 <= len(for_pairs) <= 16


def test_photos_by_themselves_and_photos_of_one_group_have_equal_halves() -> None:
    alone = split_halves(_PHOTOS, rng=_create_rng())
    for groups in (np.arange(24), np.zeros(24, np.int64)):
        found = split_halves(InMemory(_PHOTOS.images, groups), rng=_create_rng())
        assert [half.tolist() for half in found] == [half.tolist() for half in alone]
