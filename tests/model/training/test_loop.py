"""DifferNet's training: what it changes, what it leaves alone, and that one worker and several do the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from model.config import FlowConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.network.rotation import list_scoring_angles, rotate_views
from model.training.loop import train
from model.training.metrics import DivergenceError, EpochMetrics
from model.training.photos import InMemory, split_calibration
from model.training.views import CachedViews, ComputedViews, choose_views
from model.training.workers import take_share
from tests.support.training import build_training_config, draw_photos, have_same_weights, ignore_epoch

_SETTINGS = OptimizerConfig(epochs=3, batch_size=4, learning_rate=1e-3)
_FLOW = FlowConfig(blocks=2, hidden_width=16, hidden_layers=1)


def _train(photos: Tensor, *, optimizer: OptimizerConfig = _SETTINGS, **changes: object) -> AttentDifferNet:
    detector = AttentDifferNet(build_training_config(**changes))
    train(detector, InMemory(photos), optimizer=optimizer, on_epoch=ignore_epoch)
    return detector


@pytest.mark.slow
@pytest.mark.parametrize("angles", ["uniform", "scoring"])
@pytest.mark.parametrize("scaling", ["global", "channel"])
def test_the_loss_falls_in_training(angles: str, scaling: str) -> None:
    reported: list[EpochMetrics] = []
    detector = AttentDifferNet(build_training_config(train_angles=angles, feature_scaling=scaling))

    history = train(
        detector,
        InMemory(draw_photos()),
        optimizer=_SETTINGS.model_copy(update={"epochs": 15}),
        on_epoch=lambda metrics, _: reported.append(metrics),
    )

    assert [metrics.epoch for metrics in history] == list(range(1, 16))
    assert history == reported
    assert np.mean([metrics.loss for metrics in history[-3:]]) < history[0].loss - 0.02


def test_training_changes_the_flow_and_leaves_backbone_and_attention_alone() -> None:
    untrained = AttentDifferNet(build_training_config())
    trained = _train(draw_photos())
    assert have_same_weights(untrained.backbone, trained.backbone)
    assert not have_same_weights(untrained.flow, trained.flow)
    assert not any(part.training for part in trained.modules())


def test_training_is_adam_on_the_mean_negative_log_likelihood() -> None:
    # All photos in one step and all scoring views drawn, so that every step sees the same set and a plain loop can too.
    settings, photos = OptimizerConfig(epochs=3, batch_size=6), draw_photos()
    expected = AttentDifferNet(build_training_config()).eval()
    pooled = expected.pool_features(rotate_views(photos, list_scoring_angles(4))).detach()
    expected.fit_feature_scaling(pooled)
    adam = torch.optim.Adam(expected.flow.parameters(), lr=2e-4, betas=(0.8, 0.8), eps=1e-4, weight_decay=1e-5)
    for _ in range(3):
        adam.zero_grad()
        torch.autograd.backward(expected.loss(expected.scale_features(pooled)))
        adam.step()

    trained = _train(photos, optimizer=settings, train_angles="scoring", train_views=4)

    for name, weight in expected.flow.named_parameters():
        # Steps of 2e-4; float32 sums in another order move them by 1e-7 or so.
        torch.testing.assert_close(trained.flow.get_parameter(name), weight, rtol=0, atol=5e-6, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("angles", ["uniform", "scoring"])
def test_the_same_seed_gives_the_same_weights_bit_for_bit(angles: str) -> None:
    flow = _FLOW.model_copy(update={"dropout": 0.3})
    first = _train(draw_photos(), train_angles=angles, flow=flow)
    torch.manual_seed(123)  # another state of the global generator must not matter, even with dropout
    before = torch.get_rng_state()
    second = _train(draw_photos(), train_angles=angles, flow=flow)
    assert have_same_weights(first, second)
    assert torch.equal(torch.get_rng_state(), before)


def test_dropout_is_active_in_training() -> None:
    dropped = _FLOW.model_copy(update={"dropout": 0.5})
    assert not torch.equal(
        nn.utils.parameters_to_vector(_train(draw_photos(), flow=_FLOW).flow.parameters()),
        nn.utils.parameters_to_vector(_train(draw_photos(), flow=dropped).flow.parameters()),
    )


@pytest.mark.slow
def test_neighbouring_seeds_share_no_epoch() -> None:
    views = ComputedViews(AttentDifferNet(build_training_config()), InMemory(draw_photos()))
    asked: list[Tensor] = []

    class Recorder(ComputedViews):
        def draw(self, rng: np.random.Generator) -> Tensor:
            asked.append(super().draw(rng))
            return asked[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.training.loop.choose_views", lambda detector, photos: Recorder(detector, photos))
        for seed in (0, 1):
            detector = AttentDifferNet(build_training_config(seed=seed))
            train(detector, views.photos, optimizer=_SETTINGS, on_epoch=ignore_epoch)

    drawn = {tuple(angles.flatten().tolist()) for angles in asked}
    assert len(drawn) == len(asked) == 2 * (1 + _SETTINGS.epochs)  # the scaling's draw and one per epoch


def test_precomputed_features_are_those_of_the_same_view_computed_on_the_fly() -> None:
    detector, photos = AttentDifferNet(build_training_config(train_angles="scoring")).eval(), draw_photos()
    cached = choose_views(detector, InMemory(photos))
    drawn = cached.draw(np.random.default_rng(0))
    chosen = torch.tensor([5, 0, 3])
    angles = torch.tensor(list_scoring_angles(4))[drawn[chosen]]

    on_the_fly = ComputedViews(detector, InMemory(photos)).pool(chosen, angles)

    # A convolution's rounding may depend on the batch it runs in: float32 has 1e-7, over a few thousand terms 1e-5.
    torch.testing.assert_close(cached.pool(chosen, drawn[chosen]), on_the_fly, rtol=1e-5, atol=1e-6)


def test_precomputed_features_are_those_that_scoring_computes() -> None:
    detector, photos = AttentDifferNet(build_training_config(train_angles="scoring", views=7)).eval(), draw_photos()
    cached = choose_views(detector, InMemory(photos))
    assert isinstance(cached, CachedViews)
    with torch.no_grad():
        scored = detector.pool_features(rotate_views(photos, list_scoring_angles(7)))
    torch.testing.assert_close(cached.features.flatten(0, 1), scored, rtol=1e-5, atol=1e-6)  # rounding, as above


def test_an_epoch_draws_a_scoring_view_at_most_once_per_photo_and_all_of_them_in_time() -> None:
    views = CachedViews(torch.zeros(50, 4, 1), train_views=2)
    drawn = views.draw(np.random.default_rng(0))
    assert drawn.shape == (50, 2)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert set(drawn.flatten().tolist()) == {0, 1, 2, 3}


def test_features_do_not_depend_on_the_size_of_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    views = ComputedViews(AttentDifferNet(build_training_config()).eval(), InMemory(draw_photos()))
    photos, angles = torch.arange(6), views.draw(np.random.default_rng(0))
    whole = views.pool(photos, angles)
    monkeypatch.setattr("model.training.views._VIEWS_PER_CHUNK", 5)
    torch.testing.assert_close(views.pool(photos, angles), whole, rtol=1e-5, atol=1e-6)  # rounding, as above


@given(st.integers(1, 40), st.integers(1, 9))
def test_the_shares_of_all_workers_are_the_global_batch(count: int, world_size: int) -> None:
    batch = torch.randperm(count, generator=torch.Generator().manual_seed(count))
    shares = [take_share(batch, rank=rank, world_size=world_size) for rank in range(world_size)]
    counted = [photo for photos, weight in shares if weight > 0 for photo in photos.tolist()]
    assert sorted(counted) == list(range(count))
    assert all(len(photos) >= 1 for photos, _ in shares)
    # Weight over the worker's photos: every photo counts the same in the mean over workers.
    per_photo = {round(weight / len(photos) / world_size * count, 9) for photos, weight in shares if weight > 0}
    assert per_photo == {1.0}


@pytest.mark.slow
@pytest.mark.parametrize("angles", ["uniform", "scoring"])
@pytest.mark.parametrize("world_size", [2, 5])
def test_the_mean_gradient_over_workers_is_that_of_one_worker(angles: str, world_size: int) -> None:
    # 3 photos in one step: 2 workers get 2 + 1, and of 5 workers two get none. The step leaves its gradients behind.
    one_step = OptimizerConfig(epochs=1, batch_size=3, weight_decay=0)

    def gradient(rank: int, world_size: int) -> Tensor:
        detector = AttentDifferNet(build_training_config(train_angles=angles))
        photos = InMemory(draw_photos(3))
        train(detector, photos, optimizer=one_step, on_epoch=ignore_epoch, rank=rank, world_size=world_size)
        return torch.cat([weight.grad.flatten() for weight in detector.flow.parameters() if weight.grad is not None])

    mean = torch.stack([gradient(rank, world_size) for rank in range(world_size)]).mean(0)
    alone = gradient(0, 1)
    assert alone.norm() > 0
    assert (mean - alone).norm() < 1e-5 * alone.norm()  # float32 sums in another order


def test_the_wrapped_flow_is_the_one_that_is_called() -> None:
    calls: list[bool] = []

    class Wrapper(nn.Module):
        def __init__(self, flow: nn.Module) -> None:
            super().__init__()
            self.module = flow

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            calls.append(self.module.training)
            z, log_det = self.module(x)
            return z, log_det

    detector = AttentDifferNet(build_training_config())
    train(detector, InMemory(draw_photos()), optimizer=_SETTINGS, on_epoch=ignore_epoch, wrap=Wrapper)
    assert calls == [True] * 3 * 2  # 3 epochs of 6 photos in batches of 4
    assert have_same_weights(detector, _train(draw_photos()))


def test_a_diverged_training_is_reported_with_its_epoch_and_what_to_do() -> None:
    with pytest.raises(DivergenceError, match=r"epoch 1.*lower learning_rate") as report:
        _train(draw_photos(), optimizer=_SETTINGS.model_copy(update={"learning_rate": 1e30}))
    assert report.value.epoch == 1
    assert not np.isfinite(report.value.loss)


class _FiniteLossNanGradient(nn.Module):
    def __init__(self, flow: nn.Module) -> None:
        super().__init__()
        self.module = flow

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        z, log_det = self.module(x)
        return z + (z - z.detach()).sqrt(), log_det  # adds 0, with an infinite slope


def test_weights_ruined_by_the_last_step_are_reported_although_the_loss_was_finite() -> None:
    one_step = OptimizerConfig(epochs=1, batch_size=6)
    with pytest.raises(DivergenceError, match="a weight is not finite") as report:
        train(
            AttentDifferNet(build_training_config()),
            InMemory(draw_photos()),
            optimizer=one_step,
            on_epoch=ignore_epoch,
            wrap=_FiniteLossNanGradient,
        )
    assert np.isfinite(report.value.loss)


@pytest.mark.parametrize(
    ("photos", "rank", "reason"),
    [
        (torch.zeros(0, 3, 64, 64, dtype=torch.uint8), 0, "at least one flawless photo"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), 0, "64, 64"),
        (torch.zeros(2, 3, 64, 64), 0, "uint8"),
        (torch.zeros(2, 3, 64, 64, dtype=torch.uint8), 1, "rank must lie in 0..0"),
    ],
)
def test_input_that_cannot_be_trained_on_is_refused(photos: Tensor, rank: int, reason: str) -> None:
    detector = AttentDifferNet(build_training_config())
    with pytest.raises(ValueError, match=reason):
        train(detector, InMemory(photos), optimizer=_SETTINGS, on_epoch=ignore_epoch, rank=rank)


@given(st.integers(2, 200), st.floats(0.001, 0.999), st.integers(0, 2**31))
def test_a_calibration_split_is_sorted_disjoint_complete_and_never_empty(
    count: int, fraction: float, seed: int
) -> None:
    training, calibration = split_calibration(count, fraction=fraction, seed=seed)
    assert sorted([*training, *calibration]) == list(range(count))
    assert (np.diff(training) > 0).all()
    assert (np.diff(calibration) > 0).all()
    assert min(len(training), len(calibration)) >= 1
    assert abs(len(calibration) - count * fraction) <= 1
    assert split_calibration(count, fraction=fraction, seed=seed)[1].tolist() == calibration.tolist()


def test_a_calibration_split_depends_on_its_seed() -> None:
    splits = {tuple(split_calibration(50, fraction=0.2, seed=seed)[1]) for seed in range(5)}
    assert len(splits) == 5


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (0, 0.5), (10, 0.0), (10, 1.0), (10, float("nan"))])
def test_photos_that_cannot_be_split_are_refused(count: int, fraction: float) -> None:
    with pytest.raises(ValueError, match="calibration"):
        split_calibration(count, fraction=fraction, seed=0)
