"""The detector: features, scaling and scores against plain loops, and the presets' facts."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

import model.detector
from model.config import AttentionConfig, FlowConfig
from model.detector import AttentDifferNet
from model.network.rotation import Padding, list_scoring_angles, rotate_views
from model.presets import PAPER_PRESETS, get_preset
from tests.support.detectors import SIDE_PX, build_config, draw_features, draw_images


def _recorded(detector: AttentDifferNet, part: str) -> list[Tensor]:
    """Inputs that ``detector.<part>`` gets from now on."""
    inputs: list[Tensor] = []
    layer = detector.get_submodule(part)
    layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    return inputs


def _record_backbone(detector: AttentDifferNet) -> list[Tensor]:
    """Inputs that the backbone gets from now on."""
    inputs: list[Tensor] = []
    pool = detector.backbone.pool_with_maps

    def note(images: Tensor, *, attended: bool = True) -> tuple[Tensor, list[Tensor]]:
        inputs.append(images)
        return pool(images, attended=attended)

    detector.backbone.pool_with_maps = note  # type: ignore[method-assign]
    return inputs


def test_a_score_is_the_mean_squared_latent_of_a_plain_loop() -> None:
    detector = AttentDifferNet(build_config(feature_scaling="channel")).eval()
    detector.fit_feature_scaling(detector.pool_features(draw_images(8)).detach())
    expected = []
    for image in draw_images():
        views = rotate_views(image.unsqueeze(0), list_scoring_angles(4))
        latents = [detector.flow(detector.features(view.unsqueeze(0)))[0].detach().double() for view in views]
        expected.append(sum(float((z**2).sum()) for z in latents) / (4 * 256))
    # float32 rounding of other batch sizes, amplified where a nearly dead channel is divided by its std
    torch.testing.assert_close(
        detector.score(draw_images()), torch.tensor(expected, dtype=torch.float64), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("conv_batch", [1, 5, 16])
def test_a_batch_scores_as_its_images_do_one_by_one(conv_batch: int) -> None:
    score = partial(AttentDifferNet(build_config()).score_as_trained, conv_batch=conv_batch)
    single = torch.cat([score(image.unsqueeze(0)) for image in draw_images()])
    # the flow's matrix products differ with the number of rows: float32
    torch.testing.assert_close(score(draw_images()), single, rtol=1e-5, atol=0)


def test_features_of_a_padded_tail_are_those_of_a_full_batch() -> None:
    detector = AttentDifferNet(build_config())
    full = _recorded(detector, "flow.inn")
    views, alone = draw_images(16), draw_images(16)[:3]
    detector.config = detector.config.model_copy(update={"views": 1})
    detector.score_as_trained(views, conv_batch=16)
    detector.score_as_trained(alone, conv_batch=16)
    # equal shapes take equal algorithms
    assert torch.equal(full[0][:3], full[1])


@pytest.mark.parametrize(("views", "conv_batch"), [(4, 5), (1, 2), (3, 8), (7, 3)])
def test_the_backbone_only_ever_sees_batches_of_one_shape(views: int, conv_batch: int) -> None:
    detector = AttentDifferNet(build_config(views=views))
    inputs = _record_backbone(detector)
    detector.score_as_trained(draw_images(), conv_batch=conv_batch)
    assert [len(x) for x in inputs] == [conv_batch] * -(-3 * views // conv_batch)


def test_few_views_exist_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rotated: list[int] = []

    def spy(images: Tensor, angles: tuple[float, ...], *, padding: Padding) -> Tensor:
        rotated.append(len(images) * len(angles))
        return rotate_views(images, angles, padding=padding)

    monkeypatch.setattr(model.detector, "rotate_views", spy)
    AttentDifferNet(build_config()).score_as_trained(draw_images(9), conv_batch=8)
    assert max(rotated) == 8


def test_the_flow_runs_in_large_passes_of_even_size() -> None:
    detector = AttentDifferNet(build_config())
    passes = _recorded(detector, "flow.inn")
    detector.score_as_trained(draw_images(5), flow_batch=19)
    assert [len(rows) for rows in passes] == [10, 10]


def test_scores_are_float64_without_gradient() -> None:
    scores = AttentDifferNet(build_config()).score(draw_images())
    assert (scores.dtype, scores.requires_grad, scores.shape) == (torch.float64, False, (3,))


def test_no_images_have_no_scores() -> None:
    assert AttentDifferNet(build_config()).score(draw_images(0)).shape == (0,)


def test_scoring_ignores_dropout_and_restores_each_modules_mode() -> None:
    detector = AttentDifferNet(build_config(flow=FlowConfig(blocks=1, hidden_width=16, dropout=0.5)))
    detector.backbone.eval()
    detector.flow.train()
    assert torch.equal(detector.score(draw_images()), detector.score(draw_images()))
    assert (detector.backbone.training, detector.flow.training, detector.training) == (False, True, True)


@pytest.mark.parametrize("batches", [{"conv_batch": 0}, {"flow_batch": 0}])
def test_a_batch_of_nothing_is_refused(batches: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be >= 1"):
        AttentDifferNet(build_config()).score_as_trained(draw_images(), **batches)


@pytest.mark.parametrize(
    ("images", "came"),
    [
        (torch.zeros(1, 3, SIDE_PX, SIDE_PX), r"torch.float32 \(1, 3, 64, 64\)"),
        (torch.zeros(1, 3, SIDE_PX, 32, dtype=torch.uint8), r"torch.uint8 \(1, 3, 64, 32\)"),
        (torch.zeros(1, 1, SIDE_PX, SIDE_PX, dtype=torch.uint8), r"torch.uint8 \(1, 1, 64, 64\)"),
        (torch.zeros(3, SIDE_PX, SIDE_PX, dtype=torch.uint8), r"torch.uint8 \(3, 64, 64\)"),
    ],
)
@pytest.mark.parametrize("method", ["score", "pool_features"])
def test_images_of_another_type_or_shape_are_refused(images: Tensor, came: str, method: str) -> None:
    with pytest.raises(ValueError, match=rf"needed uint8 images of shape \(N, 3, 64, 64\), got {came}"):
        getattr(AttentDifferNet(build_config()), method)(images)


def test_the_backbone_gets_imagenet_normalised_channels_last_images() -> None:
    detector = AttentDifferNet(build_config())
    inputs = _record_backbone(detector)
    detector.pool_features(draw_images())
    normalise = torchvision.transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(inputs[0], normalise(draw_images() / 255), rtol=1e-6, atol=1e-6)  # float32 rounding
    assert inputs[0].is_contiguous(memory_format=torch.channels_last)


def test_gradients_reach_attention_but_not_the_frozen_convolutions() -> None:
    detector = AttentDifferNet(build_config(attention={"pool1": AttentionConfig(kind="se")}))
    detector.loss(detector.features(draw_images())).backward()
    reached = {name for name, parameter in detector.backbone.named_parameters() if parameter.grad is not None}
    assert reached == {f"attention.pool1.{layer}.{part}" for layer in ("fc1", "fc2") for part in ("weight", "bias")}


def test_the_loss_is_the_negative_log_likelihood_per_dimension() -> None:
    detector = AttentDifferNet(build_config())
    features = detector.features(draw_images())
    z, log_det = detector.flow(features)
    expected = torch.stack([0.5 * (row @ row) - d for row, d in zip(z, log_det, strict=True)]).sum() / 3 / 256
    torch.testing.assert_close(detector.loss(features), expected, rtol=1e-5, atol=0)  # float32 sums


@pytest.mark.parametrize("scaling", ["none", "global", "channel"])
def test_scaling_is_the_identity_until_fitted(scaling: str) -> None:
    detector = AttentDifferNet(build_config(feature_scaling=scaling))
    pooled = detector.pool_features(draw_images())
    assert torch.equal(detector.scale_features(pooled), pooled)


def test_no_scaling_leaves_features_as_pooled_when_fitted() -> None:
    detector = AttentDifferNet(build_config(feature_scaling="none"))
    detector.fit_feature_scaling(draw_features())
    assert torch.equal(detector.scale_features(draw_features()), draw_features())


def test_global_scaling_divides_by_the_mean_channel_std_and_keeps_the_mean() -> None:
    detector = AttentDifferNet(build_config(feature_scaling="global"))
    detector.fit_feature_scaling(draw_features())
    expected = draw_features().numpy() / draw_features().numpy().astype(np.float64).std(0).mean()
    np.testing.assert_allclose(detector.scale_features(draw_features()).numpy(), expected, rtol=1e-5)  # float32


def test_channel_scaling_standardises_each_channel() -> None:
    detector = AttentDifferNet(build_config(feature_scaling="channel"))
    detector.fit_feature_scaling(draw_features())
    scaled = detector.scale_features(draw_features()).double()
    # float32, where a mean is up to 14 standard deviations
    torch.testing.assert_close(scaled.mean(0), torch.zeros(256).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(scaled.std(0, correction=0), torch.ones(256).double(), rtol=1e-5, atol=0)


def test_a_dead_channel_is_scaled_to_zero_and_stays_bounded_when_it_wakes() -> None:
    detector = AttentDifferNet(build_config(feature_scaling="channel"))
    pooled = draw_features()
    pooled[:, 5] = 0
    detector.fit_feature_scaling(pooled)
    awake = pooled.clone()
    awake[:, 5] = pooled.std(0).mean()
    assert torch.equal(detector.scale_features(pooled)[:, 5], torch.zeros(50))
    assert float(detector.scale_features(awake)[:, 5].max()) == pytest.approx(100, rel=0.02)  # std with N or N - 1


@pytest.mark.parametrize(
    ("pooled", "message"),
    [
        (torch.ones(1, 256), "got \\(1, 256\\)"),
        (torch.ones(5, 255), "got \\(5, 255\\)"),
        (torch.ones(5, 256), "std of 0"),
        (torch.full((5, 256), torch.inf), "std of nan"),
    ],
)
@pytest.mark.parametrize("scaling", ["global", "channel"])
def test_features_that_cannot_be_scaled_are_refused(pooled: Tensor, message: str, scaling: str) -> None:
    with pytest.raises(ValueError, match=message):
        AttentDifferNet(build_config(feature_scaling=scaling)).fit_feature_scaling(pooled)


def test_a_detector_comes_back_whole_from_its_state() -> None:
    config = build_config(feature_scaling="channel", attention={"conv5": AttentionConfig(kind="cbam", gate="sigmoid")})
    first, second = AttentDifferNet(config), AttentDifferNet(config.model_copy(update={"seed": 9}))
    first.fit_feature_scaling(draw_features())
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first.score(draw_images()), second.score(draw_images()))


@pytest.mark.parametrize(("other_seed", "same"), [(1, True), (2, False)])
def test_the_seed_decides_the_scores(other_seed: int, same: bool) -> None:
    first, second = AttentDifferNet(build_config(seed=1)), AttentDifferNet(build_config(seed=other_seed))
    assert torch.equal(first.score(draw_images()), second.score(draw_images())) == same


def test_building_leaves_the_global_generators_untouched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    AttentDifferNet(build_config(attention={"pool1": AttentionConfig(kind="cbam")}))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state


@pytest.mark.parametrize("name", ["attentdiffernet_se", "attentdiffernet_cbam"])
def test_an_untrained_preset_scores_as_plain_differnet_to_the_bit(name: str) -> None:
    attended = AttentDifferNet(build_config(attention=get_preset(name).attention))
    assert torch.equal(attended.score(draw_images()), AttentDifferNet(build_config()).score(draw_images()))


@pytest.mark.parametrize("name", PAPER_PRESETS)
def test_a_full_size_preset_has_differnets_dimensions(name: str) -> None:
    with torch.device("meta"):
        detector = AttentDifferNet(get_preset(name))
    flow_parameters = sum(p.numel() for p in detector.flow.parameters() if p.requires_grad)
    # 8 blocks x 2 subnets x (384 x 2048 + 2 x 2048 x 2048 + 2048 x 768 weights, 3 x 2048 + 768 biases)
    assert (detector.feature_dim, flow_parameters) == (768, 172_077_056)


@pytest.mark.parametrize(
    ("name", "channels"),
    [("differnet", []), ("attentdiffernet_se", [64, 192, 256]), ("attentdiffernet_cbam", [64, 192, 256])],
)
def test_a_preset_attends_to_pool1_pool2_and_conv5(name: str, channels: list[int]) -> None:
    with torch.device("meta"):
        backbone = AttentDifferNet(get_preset(name)).backbone
    gates = [block.fc1 for block in backbone.attention.values()]
    assert [gate.in_channels for gate in gates if isinstance(gate, nn.Conv2d)] == channels
