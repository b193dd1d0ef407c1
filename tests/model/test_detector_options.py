"""What a detector can be beyond the paper: whitening, maxima, an earlier stage, mirrored padding, bf16."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sklearn.covariance import LedoitWolf
from torch import Tensor

from model.config import FlowConfig
from model.detector import AttentDifferNet
from model.inference.detector import build_scorer
from model.network.flow import Flow
from model.network.rotation import list_scoring_angles, rotate, rotate_views
from tests.support.detectors import build_config, draw_features, draw_images

_IDENTITY_FLOW = FlowConfig(blocks=2, hidden_width=16, hidden_layers=1, start="identity")


def test_whitened_features_have_mahalanobis_lengths() -> None:
    detector = AttentDifferNet(build_config(feature_scaling="whiten"))
    detector.fit_feature_scaling(draw_features())
    asked = draw_features(80)[50:]
    expected = LedoitWolf().fit(draw_features().double().numpy()).mahalanobis(asked.double().numpy())
    # float32 against float64: sums of 256 products
    np.testing.assert_allclose(detector.scale_features(asked).square().sum(1).numpy(), expected, rtol=1e-4)


def test_an_untrained_flow_that_starts_as_the_identity_scores_the_mahalanobis_distance() -> None:
    detector = AttentDifferNet(build_config(feature_scaling="whiten", flow=_IDENTITY_FLOW))
    views = rotate_views(draw_images(12), list_scoring_angles(4))
    with torch.no_grad():
        pooled = detector.pool_features(views)
    detector.fit_feature_scaling(pooled)
    gaussian = LedoitWolf().fit(pooled.double().numpy())
    expected = gaussian.mahalanobis(pooled.double().numpy()).reshape(12, 4).mean(1) / 256
    np.testing.assert_allclose(detector.score(draw_images(12)).numpy(), expected, rtol=1e-3)  # float32, padded batches


def test_a_whitening_detector_comes_back_whole_from_its_state() -> None:
    first = AttentDifferNet(build_config(feature_scaling="whiten"))
    first.fit_feature_scaling(draw_features())
    second = AttentDifferNet(build_config(feature_scaling="whiten"))
    second.load_state_dict(first.state_dict(), strict=True)
    assert torch.equal(first.scale_features(draw_features()), second.scale_features(draw_features()))


def test_average_and_maximum_pooling_stand_one_after_the_other_for_each_scale() -> None:
    both, average = (
        AttentDifferNet(build_config(image_size=128, scales=2, pooling=pooling)).eval()
        for pooling in ("average_max", "average")
    )
    images = draw_images(side=128)
    with torch.no_grad():
        pooled, means = both.pool_features(images), average.pool_features(images)
        pixels = (images / 255 - both.image_mean) / both.image_std
        maxima = both.backbone.feature_map(pixels).amax((2, 3))
    assert pooled.shape == (3, 2 * 2 * 256)
    torch.testing.assert_close(pooled[:, :256], means[:, :256])
    torch.testing.assert_close(pooled[:, 256:512], maxima, rtol=1e-4, atol=1e-5)  # another memory format
    torch.testing.assert_close(pooled[:, 512:768], means[:, 256:])


def test_features_of_an_earlier_stage_are_that_stages_map_and_cost_no_later_layer() -> None:
    detector = AttentDifferNet(build_config(feature_stage="conv3"))
    ran: list[int] = []
    for number, layer in enumerate(detector.backbone.layers):
        layer.register_forward_hook(lambda _module, _args, _out, number=number: ran.append(number))
    with torch.no_grad():
        pooled = detector.pool_features(draw_images())
        pixels = (draw_images() / 255 - detector.image_mean) / detector.image_std
        maps = detector.backbone.layers[:8](pixels)
    assert max(ran[:8]) == 7  # conv3 and its ReLU are torchvision's layers 6 and 7
    assert detector.feature_dim == 384
    torch.testing.assert_close(pooled, maps.mean((2, 3)), rtol=1e-4, atol=1e-5)  # another memory format


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"feature_stage": "fire9"}, "alexnet has no stage 'fire9'"),
        ({"feature_stage": "pool2", "attention": {"conv5": {"kind": "se"}}}, "attention after conv5 has no effect"),
        ({"attention_training": "joint", "feature_scaling": "whiten"}, "needs feature_scaling channel"),
    ],
)
def test_options_that_do_not_go_together_are_refused(changes: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build_config(**changes)


@pytest.mark.parametrize("angle", [0.0, 30.0, 90.0, 217.5])
def test_reflected_rotation_shows_the_mirrored_photo_where_black_would_be(angle: float) -> None:
    image = draw_images(1)
    reflected = rotate(image, torch.tensor([angle]), padding="reflect")
    black = rotate(image, torch.tensor([angle]))
    # The same rotation of a canvas of 3 x 3 photos, mirrored at each edge, cut out of its middle.
    photo = Image.fromarray(image[0].permute(1, 2, 0).numpy())
    rows = []
    for row in range(3):
        tiles = [photo if column == 1 else ImageOps.mirror(photo) for column in range(3)]
        rows.append(np.concatenate([np.asarray(tile if row == 1 else ImageOps.flip(tile)) for tile in tiles], axis=1))
    canvas = torch.from_numpy(np.concatenate(rows)).permute(2, 0, 1)[None].contiguous()
    expected = rotate(canvas, torch.tensor([angle]))[:, :, 64:128, 64:128]
    # Fixed-point rounding of another canvas size moves a few nearest neighbours by one pixel.
    assert float((reflected != expected).any(1).float().mean()) < 0.03
    inside = black.bool().any(1)
    assert torch.equal(reflected.permute(0, 2, 3, 1)[inside], black.permute(0, 2, 3, 1)[inside])


def test_bf16_features_latents_and_scores_are_float32s_up_to_its_rounding() -> None:
    full, half = (AttentDifferNet(build_config(precision=precision)).eval() for precision in ("fp32", "bf16"))
    with torch.no_grad():
        exact, rounded = full.pool_features(draw_images(8)), half.pool_features(draw_images(8))
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    # bf16 has 8 bits: 2**-9 a rounding, over five layers about 1 %.
    assert float((exact - rounded).norm() / exact.norm()) < 0.01
    scores = build_scorer(half).score(draw_images(8)).numpy()
    np.testing.assert_allclose(scores, full.score(draw_images(8)).numpy(), rtol=0.03)


def test_a_bf16_flow_keeps_its_stream_in_float32() -> None:
    features = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    z, log_det = Flow(32, _IDENTITY_FLOW, seed=0, precision="bf16")(features)
    assert torch.equal(z.sort(1).values, features.sort(1).values)  # permuted, not rounded to bf16's 8 bits
    assert (z.dtype, log_det.dtype) == (torch.float32, torch.float32)


def test_a_bf16_flow_multiplies_in_bf16() -> None:
    config = FlowConfig(blocks=4, hidden_width=64, hidden_layers=2)
    features = torch.randn(50, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact, rounded = (
            Flow(32, config, seed=0, precision=precision).latents(features) for precision in ("fp32", "bf16")
        )
    assert 0 < float((exact - rounded).norm() / exact.norm()) < 0.01  # four blocks of products rounded to 2**-9


def test_saturation_is_the_share_of_log_scales_at_their_clamp() -> None:
    flow = Flow(8, FlowConfig(blocks=1, hidden_width=4, hidden_layers=1), seed=0)
    features = torch.randn(20, 8, generator=torch.Generator().manual_seed(0))
    assert flow.saturation(features) == 0
    last = [part for part in flow.modules() if isinstance(part, torch.nn.Linear) and part.out_features == 8]
    for layer in last:
        with torch.no_grad():
            layer.weight.zero_()
            layer.bias[:2] = 1e4  # two of each subnet's four log-scales
            layer.bias[4:] = 1e4  # shifts have no clamp
    assert flow.saturation(features) == 0.5


def test_identical_gradients_whether_a_step_is_cut_into_parts_or_not() -> None:
    from model.config import OptimizerConfig
    from model.training.loop import train
    from model.training.photos import InMemory
    from tests.support.training import build_training_config as trained_config
    from tests.support.training import draw_photos, ignore_epoch

    def gradient(accumulate: int) -> Tensor:
        detector = AttentDifferNet(trained_config(train_angles="scoring"))
        settings = OptimizerConfig(epochs=1, batch_size=5, accumulate=accumulate, weight_decay=0)
        train(detector, InMemory(draw_photos(5)), optimizer=settings, on_epoch=ignore_epoch)
        return torch.cat([weight.grad.flatten() for weight in detector.flow.parameters() if weight.grad is not None])

    whole = gradient(1)
    assert whole.norm() > 0
    for parts in (2, 3, 99):
        assert (gradient(parts) - whole).norm() < 1e-5 * whole.norm()  # float32 sums in another order
