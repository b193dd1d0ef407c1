"""What scores in bf16 agrees with the detector it was made of, up to the rounding of bf16."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.config import ATTENTION_KINDS, BACKBONE_STAGES
from model.detector import AttentDifferNet
from model.inference.backbone import choose_settings, fold_normalization
from model.inference.detector import CompiledDetector, EagerScorer, build_scorer, choose_views_per_pass
from model.inference.flow import HalfFlow
from model.inference.views import gather_views
from model.network.flow import Flow
from model.network.rotation import Padding, list_scoring_angles, rotate_views
from tests.support.detectors import FAST_CPU, GPU, build_config, draw_images, needs_fast_bf16

SIDE = 128


def _detector(**parts: object) -> AttentDifferNet:
    detector = AttentDifferNet(build_config(image_size=SIDE, scales=2, precision="bf16", **parts)).eval()
    generator = torch.Generator().manual_seed(1)
    for weight in detector.backbone.attention.parameters():  # gates that are not the identity
        weight.data.copy_(0.05 * torch.randn(weight.shape, generator=generator))
    return detector


def _photos(count: int = 3) -> Tensor:
    """Smooth photos, as noise would average out in the pooled features."""
    coarse = torch.randint(0, 256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(2)).float()
    smooth = nn.functional.interpolate(coarse, size=SIDE, mode="bilinear")
    return smooth.round().to(torch.uint8)


def _in_float32(detector: AttentDifferNet) -> AttentDifferNet:
    exact = AttentDifferNet(detector.config.model_copy(update={"precision": "fp32"})).eval()
    exact.load_state_dict(detector.state_dict())
    return exact


def _pool_features(detector: AttentDifferNet, photos: Tensor, *, views: int) -> Tensor:
    backbone = CompiledDetector(detector).backbone
    with torch.inference_mode():
        return backbone.pool(photos, list_scoring_angles(views))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, *ATTENTION_KINDS])
@pytest.mark.parametrize("backbone", ["alexnet", "alexnet_caffe"])
@needs_fast_bf16
def test_compiled_features_are_float32s_up_to_bf16(backbone: str, kind: str | None) -> None:
    stages = BACKBONE_STAGES[backbone]
    attention = {stage: {"kind": kind} for stage in (stages[0], stages[-1])} if kind else {}
    detector = _detector(backbone=backbone, attention=attention)
    with torch.inference_mode():
        expected = _in_float32(detector).pool_features(rotate_views(_photos(), list_scoring_angles(5)))
    got = _pool_features(detector, _photos(), views=5)
    # bf16 keeps 8 bits: 0.4 % a rounding, and some ten layers of sums in which it partly averages out
    assert float((got - expected).norm() / expected.norm()) < 0.02


@pytest.mark.slow
@needs_fast_bf16
@pytest.mark.parametrize(
    ("parts", "padding"),
    [
        ({"pooling": "average_max"}, "black"),
        ({"feature_stage": "conv4"}, "black"),
        ({"rotation_padding": "reflect"}, "reflect"),
    ],
)
def test_options_of_the_backbone_reach_compiled_features(parts: dict[str, object], padding: Padding) -> None:
    detector = _detector(**parts)
    with torch.inference_mode():
        expected = _in_float32(detector).pool_features(rotate_views(_photos(), list_scoring_angles(5), padding=padding))
        other = _in_float32(_detector()).pool_features(rotate_views(_photos(), list_scoring_angles(5)))
    got = _pool_features(detector, _photos(), views=5)
    assert float((got - expected).norm() / expected.norm()) < 0.02
    assert other.shape != expected.shape or float((got - other).norm() / other.norm()) > 0.02


@settings(max_examples=30, deadline=None)
@given(
    size=st.sampled_from([64, 96, 128]),
    angle=st.one_of(st.floats(0, 360, allow_nan=False), st.sampled_from([0.0, 90.0, 180.0, 270.0])),
    padding=st.sampled_from(["black", "reflect"]),
)
def test_gathered_views_are_the_rotated_views(size: int, angle: float, padding: Padding) -> None:
    images = draw_images(2, side=size)
    views = gather_views(images, [angle, 30.0], padding=padding)
    expected = rotate_views(images, [angle, 30.0], padding=padding)
    assert torch.equal(views[..., :3].permute(0, 3, 1, 2), expected)
    assert not views[..., 3].any()


def test_a_bf16_flow_keeps_its_stream_in_float32() -> None:
    detector = _detector(flow={"blocks": 3, "hidden_width": 32, "hidden_layers": 2, "start": "identity"})
    features = torch.randn(5, detector.feature_dim)
    with torch.inference_mode():
        # subnets that give zeros leave a permutation, exact to the bit where the stream is float32
        assert torch.equal(HalfFlow(detector.flow).latents(features), detector.flow.latents(features))


def test_bf16_latents_are_the_flows_up_to_bf16_subnets() -> None:
    exact = _in_float32(_detector(flow={"blocks": 4, "hidden_width": 64, "hidden_layers": 3, "clamp": 2.0}))
    features = torch.randn(50, exact.feature_dim)
    with torch.inference_mode():
        got, expected = HalfFlow(exact.flow).latents(features), exact.flow.latents(features)
    assert float((got - expected).norm() / expected.norm()) < 5e-3


@pytest.mark.slow
def test_a_bf16_detectors_scores_are_float32s_up_to_its_rounding() -> None:
    detector = _detector(feature_scaling="channel")
    with torch.inference_mode():
        views = rotate_views(_photos(30), list_scoring_angles(4))
        detector.fit_feature_scaling(_in_float32(detector).pool_features(views))
    photos = _photos(12)
    scores = build_scorer(detector).score(photos)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(scores, _in_float32(detector).score(photos), rtol=0.05, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("views", [1, 4, 70])
@pytest.mark.parametrize("device", [FAST_CPU, GPU])
def test_a_score_does_not_depend_on_the_photos_beside_it(device: str, views: int) -> None:
    scorer = build_scorer(_detector(views=views, flow={"blocks": 2, "hidden_width": 16}).to(device))
    photos = _photos(5).to(device)
    together = scorer.score(photos)
    alone = torch.cat([scorer.score(photo.unsqueeze(0)) for photo in photos])
    torch.testing.assert_close(together.cpu(), alone.cpu(), rtol=1e-5, atol=0)


@needs_fast_bf16
@pytest.mark.parametrize("views", [1, 5, 20])
def test_compiled_features_do_not_depend_on_the_photos_beside_them(views: int) -> None:
    backbone = CompiledDetector(_detector()).backbone
    photos = _photos(7)
    together = backbone.pool(photos, list_scoring_angles(views))
    alone = [backbone.pool(photo.unsqueeze(0), list_scoring_angles(views)) for photo in photos]
    assert torch.equal(together, torch.cat(alone))


@needs_fast_bf16
def test_features_of_one_pass_survive_the_next() -> None:
    backbone = CompiledDetector(_detector()).backbone
    first = backbone.pool(_photos(1), [0.0])
    kept = first.clone()
    backbone.pool(255 - _photos(1), [0.0])
    assert torch.equal(first, kept)


@pytest.mark.slow
def test_openvino_reports_nothing_over_the_network() -> None:
    program = (
        "import model.inference.backbone, sys; from openvino.tools.ovc import telemetry; print(telemetry.__module__)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


@pytest.mark.parametrize("padding", [0, 2])
def test_a_folded_convolution_sees_normalized_pixels_and_zeros_around_them(padding: int) -> None:
    convolution = nn.Conv2d(3, 8, 5, stride=2, padding=padding)
    mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    grey = (255 * mean.flatten()).round()
    pixels = _photos(2).float()
    whole = torch.cat([pixels - grey.view(3, 1, 1), torch.ones(2, 1, SIDE, SIDE)], dim=1)
    with torch.no_grad():
        got = fold_normalization(convolution, grey=grey, mean=mean, std=std)(whole)
        expected = convolution((pixels / 255 - mean) / std)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(whole.bfloat16().float(), whole)


def test_another_first_layer_than_a_convolution_is_refused() -> None:
    with pytest.raises(ValueError, match="needed a first layer that is a convolution without groups, got Linear"):
        fold_normalization(nn.Linear(3, 3), grey=torch.zeros(3), mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))


def test_threads_of_a_compiled_backbone_are_torchs_and_tied_to_no_core() -> None:
    chosen = choose_settings(3)
    assert (chosen["INFERENCE_NUM_THREADS"], chosen["ENABLE_CPU_PINNING"]) == (3, False)


@pytest.mark.parametrize(("free_bytes", "views"), [(2**36, 256), (2**30, 16), (2**20, 1)])
def test_a_gpus_pass_takes_a_quarter_of_its_free_memory(
    monkeypatch: pytest.MonkeyPatch, free_bytes: int, views: int
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (free_bytes, 2 * free_bytes))
    # a quarter of 1 GiB holds 27 views of 448 px with 12 float32 a pixel
    assert choose_views_per_pass(torch.device("cuda"), image_size=448) == views


def test_dropout_plays_no_part_in_scores() -> None:
    detector = _detector(flow={"blocks": 2, "hidden_width": 16, "dropout": 0.9}).train()
    assert torch.equal(build_scorer(detector).score(_photos()), build_scorer(detector).score(_photos()))
    assert detector.training


def test_a_detector_itself_scores_in_float32_alone() -> None:
    with pytest.raises(ValueError, match=r"fp32, this detector is bf16: take model\.inference\.detector\.build_scorer"):
        _detector().score(_photos())


def test_a_float32_detector_scores_by_itself() -> None:
    detector = _in_float32(_detector())
    scorer = build_scorer(detector)
    assert isinstance(scorer, EagerScorer)
    assert scorer.detector is detector


def test_scores_are_refused_to_photos_of_another_size() -> None:
    with pytest.raises(ValueError, match="needed uint8 images of shape"):
        build_scorer(_detector()).score(_photos()[..., :64, :64])


def test_nothing_has_no_scores() -> None:
    assert build_scorer(_detector()).score(_photos()[:0]).shape == (0,)


@needs_fast_bf16
@pytest.mark.slow
def test_detectors_may_share_a_compiled_backbone() -> None:
    first = _detector()
    second = _detector(seed=first.config.seed)
    own = CompiledDetector(second)
    shared = CompiledDetector(second, backbone=CompiledDetector(first).backbone)
    assert torch.equal(own.score(_photos()), shared.score(_photos()))


@needs_fast_bf16
def test_the_size_of_a_scorer_is_its_flows_in_two_bytes() -> None:
    detector = _detector()
    weights = sum(part.numel() for part in detector.flow.parameters() if part.is_floating_point())
    assert CompiledDetector(detector).size_bytes == 2 * weights + 2 * 4 * detector.feature_dim


def test_flow_blocks_come_in_the_order_in_which_they_act() -> None:
    flow = Flow(6, build_config().flow, seed=0)
    features = torch.randn(4, 6)
    with torch.inference_mode():
        expected, got = flow.latents(features), features
        for permutation, coupling in flow.blocks():
            got = coupling(permutation([got], jac=False)[0], jac=False)[0][0]
    assert torch.equal(got, expected)
