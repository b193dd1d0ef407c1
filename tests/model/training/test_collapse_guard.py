"""The collapse guard, and that joint training collapses without its safeguards and does not with them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from model.config import OptimizerConfig
from model.detector import AttentDifferNet
from model.training.collapse_guard import CollapseError, FeatureHealth, compare_features, compute_effective_rank
from model.training.loop import train
from model.training.metrics import EpochMetrics
from model.training.photos import InMemory
from tests.support.training import build_training_config, draw_photos, ignore_epoch

_JOINT = OptimizerConfig(epochs=24, batch_size=12, learning_rate=1e-2)


def _draw_features(rows: int = 200, columns: int = 12, *, seed: int = 0) -> Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)).double()


def _train_jointly(kind: str, *, scaling: str, guard: bool) -> list[EpochMetrics]:
    config = build_training_config(
        attention={"pool1": {"kind": kind}, "conv5": {"kind": kind}},
        attention_training="joint",
        feature_scaling=scaling,
        collapse_guard=guard,
        train_angles="scoring",
        train_views=1,
    )
    return train(AttentDifferNet(config), InMemory(draw_photos(12)), optimizer=_JOINT, on_epoch=ignore_epoch)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_joint_training_without_safeguards_collapses_and_its_loss_does_not_show_it(kind: str) -> None:
    history = _train_jointly(kind, scaling="none", guard=False)
    last = history[-1].health
    assert last.std_ratio < 0.2
    assert last.rank_ratio < 0.2
    assert history[-1].loss < min(row.loss for row in history[:10])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["se", "cbam"])
def test_joint_training_with_safeguards_stays_healthy(kind: str) -> None:
    history = _train_jointly(kind, scaling="channel", guard=True)
    assert len(history) == 24
    assert all(row.health.list_problems() == [] for row in history)
    assert history[-1].health.gate_mean != 1  # attention did move


@pytest.mark.slow
def test_the_guard_stops_a_collapse_and_says_what_collapsed_and_the_ways_out() -> None:
    with pytest.raises(CollapseError, match=r"effective rank is 0\.\d+ of the plain one.*Ways out: ") as stopped:
        _train_jointly("se", scaling="none", guard=True)
    assert 0 < stopped.value.epoch < 24
    assert stopped.value.health.list_problems()
    assert "\n" not in str(stopped.value)


@given(st.integers(1, 10), st.floats(0.01, 100), st.integers(0, 50))
def test_effective_rank_counts_independent_directions_and_ignores_scale(rank: int, scale: float, seed: int) -> None:
    # Repeated columns add no direction: r orthogonal columns, each twice, have the effective rank r exactly.
    orthogonal = torch.linalg.qr(_draw_features(40, rank, seed=seed) - _draw_features(40, rank, seed=seed).mean(0)).Q
    assert compute_effective_rank(scale * torch.cat([orthogonal, orthogonal], dim=1)) == pytest.approx(rank, abs=0.5)


def test_effective_rank_is_that_of_the_eigenvalues() -> None:
    features = _draw_features() @ _draw_features(12, 12, seed=1)
    eigenvalues = torch.linalg.eigvalsh(torch.corrcoef(features.T))
    expected = float(eigenvalues.sum().square() / eigenvalues.square().sum())
    assert compute_effective_rank(features) == pytest.approx(expected, rel=1e-9)
    assert compute_effective_rank(features[:8]) <= 7  # fewer rows than columns: at most rows - 1 directions


def test_equal_features_are_healthy() -> None:
    health = compare_features(plain=_draw_features(), attended=_draw_features(), gate_mean=1.0, saturation=0.0)
    assert health == FeatureHealth(1.0, 1.0, 0.0, 1.0, 0.0)
    assert health.list_problems() == []


@pytest.mark.parametrize(
    ("attended", "saturation", "problem"),
    [
        (_draw_features() * 0.1, 0.0, "feature std is 0.1 of the plain one"),
        (_draw_features() * 3, 0.0, "feature std is 3 of the plain one"),
        (_draw_features()[:, :1] + 0.5 * _draw_features(seed=1), 0.0, "effective rank"),
        (_draw_features() * torch.tensor([1.0] * 9 + [0.0] * 3), 0.0, "25% of the channels are dead"),
        (_draw_features(), 0.9, "90% of the flow's log-scales are at their clamp"),
    ],
)
def test_each_way_to_collapse_is_named(attended: Tensor, saturation: float, problem: str) -> None:
    health = compare_features(plain=_draw_features(), attended=attended, gate_mean=None, saturation=saturation)
    assert any(problem in said for said in health.list_warnings())


def _health(*, std_ratio: float, rank_ratio: float) -> FeatureHealth:
    return FeatureHealth(std_ratio, rank_ratio, dead_channels=0.0, gate_mean=1.0, saturation=0.0)


@pytest.mark.parametrize(("std_ratio", "rank_ratio"), [(0.9, 0.684), (0.85, 0.51), (0.85, 0.44), (0.9, 0.79)])
def test_a_lower_rank_alone_is_warned_of_and_does_not_stop(std_ratio: float, rank_ratio: float) -> None:
    health = _health(std_ratio=std_ratio, rank_ratio=rank_ratio)
    assert health.list_problems() == []
    assert [warning.split(" of the plain")[0] for warning in health.list_warnings()] == [
        f"effective rank is {rank_ratio:.3g}"
    ]


@pytest.mark.parametrize(
    ("std_ratio", "rank_ratio", "has_collapsed"),
    [(0.1, 0.2, True), (3.8, 0.13, True), (0.9, 0.2, False), (0.1, 0.9, False), (1.0, 1.0, False)],
)
def test_only_spread_and_rank_together_are_a_collapse(std_ratio: float, rank_ratio: float, has_collapsed: bool) -> None:
    health = _health(std_ratio=std_ratio, rank_ratio=rank_ratio)
    assert bool(health.list_problems()) is has_collapsed
    assert bool(health.list_warnings()) is (rank_ratio < 0.8 or not 0.5 < std_ratio < 1.5)


def test_what_stops_a_training_names_the_pretext_when_it_was_the_pretext() -> None:
    health = _health(std_ratio=0.1, rank_ratio=0.2)
    by_pretext = str(CollapseError(1, health, by_pretext=True))
    assert by_pretext.startswith("the pretext of attention collapsed the features: feature std is 0.1")
    assert "pretext.identity_weight" in by_pretext
    assert str(CollapseError(0, health)) == by_pretext
    assert str(CollapseError(3, health)).startswith("attention collapsed after epoch 3: ")
    assert "identity_weight" not in str(CollapseError(3, health))


def test_a_collapsed_pretext_stops_the_training_at_once_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model.training.loop.prepare_attention", lambda *_arguments, **_options: 0.0)
    health = _health(std_ratio=0.01, rank_ratio=0.1)
    monkeypatch.setattr("model.training.epoch_monitor.compare_features", lambda **_features: health)
    config = build_training_config(attention={"conv5": {"kind": "se"}}, attention_training="pretext")
    with pytest.raises(CollapseError, match="the pretext of attention collapsed"):
        train(AttentDifferNet(config), InMemory(draw_photos(12)), optimizer=_JOINT, on_epoch=ignore_epoch)


def test_channels_that_were_dead_before_do_not_count_against_attention() -> None:
    dead = torch.tensor([1.0] * 6 + [0.0] * 6)
    health = compare_features(
        plain=_draw_features() * dead, attended=_draw_features() * dead, gate_mean=None, saturation=0.0
    )
    assert health.dead_channels == 0


def test_photos_that_are_all_the_same_give_nothing_to_compare_with() -> None:
    with pytest.raises(ValueError, match="plain features that vary"):
        compare_features(plain=torch.ones(5, 3), attended=torch.ones(5, 3), gate_mean=None, saturation=0.0)
