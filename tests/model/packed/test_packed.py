"""What scores in bf16 agrees with the detector it was packed of, up to the rounding of bf16."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model.config import ATTENTION_KINDS, BACKBONE_STAGES, DetectorConfig
from model.detector import AttentDifferNet
from model.network.backbone import Backbone
from model.network.flow import Flow
from model.network.rotation import Padding, compute_source_index, list_scoring_angles, rotate_views
from model.packed import view_layout
from model.packed.backbone import PackedBackbone, choose_views_at_once
from model.packed.detector import PackedDetector, build_scorer
from model.packed.flow import PackedFlow
from model.packed.layers import PackedConvolution, PackedMaxPool, pack_layers
from model.packed.view_layout import PIXEL_CHANNELS, ZERO_POINT, ViewLayout
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


def _packed_features(detector: AttentDifferNet, photos: Tensor, *, views: int, device: str = "cpu") -> Tensor:
    backbone = PackedDetector(detector.to(device)).backbone
    with torch.inference_mode():
        return backbone.pool(photos.to(device), list_scoring_angles(views)).cpu()


def _first_convolution(backbone: PackedBackbone, photo: Tensor) -> Tensor:
    """What the first layer gives of an unrotated photo at full scale."""
    with torch.inference_mode():
        views = torch.empty(1, backbone.layout.blocks[0].pixels, dtype=torch.int32)
        rotation = backbone.layout.rotation(0.0, photo.device)
        backbone.layout.views([(backbone.layout.pixels(photo)[0], rotation)], scale=0, into=views)
        return backbone._layers[0](backbone.layout.input(views, 0)).float()


@pytest.mark.slow
@pytest.mark.parametrize("kind", [None, *ATTENTION_KINDS])
@pytest.mark.parametrize("backbone", ["alexnet", "alexnet_caffe"])
@pytest.mark.parametrize("device", [FAST_CPU, GPU])
def test_packed_features_are_float32s_up_to_bf16(device: str, backbone: str, kind: str | None) -> None:
    stages = BACKBONE_STAGES[backbone]
    attention = {stage: {"kind": kind} for stage in (stages[0], stages[-1])} if kind else {}
    detector = _detector(backbone=backbone, attention=attention)
    with torch.inference_mode():
        expected = _in_float32(detector).pool_features(rotate_views(_photos(), list_scoring_angles(5)))
    got = _packed_features(detector, _photos(), views=5, device=device)
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
def test_options_of_the_backbone_reach_packed_features(parts: dict[str, object], padding: Padding) -> None:
    detector = _detector(**parts)
    with torch.inference_mode():
        expected = _in_float32(detector).pool_features(rotate_views(_photos(), list_scoring_angles(5), padding=padding))
        other = _in_float32(_detector()).pool_features(rotate_views(_photos(), list_scoring_angles(5)))
    got = _packed_features(detector, _photos(), views=5)
    assert float((got - expected).norm() / expected.norm()) < 0.02
    assert other.shape != expected.shape or float((got - other).norm() / other.norm()) > 0.02


@settings(max_examples=30, deadline=None)
@given(
    size=st.sampled_from([64, 96, 128]),
    angle=st.floats(0, 360, allow_nan=False),
    kernel=st.integers(1, 11),
    stride=st.integers(1, 4),
    zeros=st.integers(0, 3),
    padding=st.sampled_from(["black", "reflect"]),
)
def test_blocks_hold_what_a_convolution_of_the_rotated_view_reads(
    size: int, angle: float, kernel: int, stride: int, zeros: int, padding: Padding
) -> None:
    convolution = nn.Conv2d(3, 2, kernel, stride=stride, padding=zeros)
    layout = ViewLayout(convolution, image_size=size, scales=2, padding=padding, mean=(7, 8, 9))
    images = draw_images(1, side=size)
    turned = rotate_views(images, [angle], padding=padding)
    for scale, blocks in enumerate(layout.blocks):
        views = torch.empty(1, blocks.pixels, dtype=torch.int32)
        layout.views([(layout.pixels(images)[0], layout.rotation(angle, images.device))], scale=scale, into=views)
        shown = turned[..., :: 2**scale, :: 2**scale].float() - ZERO_POINT
        padded = nn.functional.pad(shown, [zeros, zeros + kernel + stride] * 2, value=float("nan"))
        side = blocks.grid * blocks.block
        expected = padded[..., :side, :side]
        grid = layout.input(views, scale).float().view(1, blocks.block, blocks.block, PIXEL_CHANNELS, blocks.grid, -1)
        got = grid.permute(0, 3, 4, 1, 5, 2).reshape(1, PIXEL_CHANNELS, side, side)
        inside = expected.isfinite()
        assert torch.equal(got[:, :3][inside], expected[inside])
        assert torch.equal(got[:, 3], (~inside[:, 0]).float())
        mean = torch.tensor([7.0, 8.0, 9.0]).view(1, 3, 1, 1) - ZERO_POINT
        assert torch.equal(got[:, :3][~inside], mean.expand_as(expected)[~inside])


@needs_fast_bf16
def test_zero_padding_stands_for_the_mean_colour_to_float32() -> None:
    # A photo of the mean colour is 0 once normalised: all that the first convolution gives is its bias, edges included.
    config = DetectorConfig(weights="random", image_size=SIDE, scales=1, flow={"hidden_width": 8})
    backbone = Backbone(config)
    mean, std = torch.tensor([124.0, 116.0, 104.0]) / 255, torch.tensor([0.2, 0.2, 0.2])
    packed_backbone = PackedBackbone(backbone, config, mean=mean, std=std)
    photo = torch.tensor([124, 116, 104], dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE)
    first = _first_convolution(packed_backbone, photo)
    convolution = backbone.layers[0]
    expected = convolution.bias.detach().relu().view(1, -1, 1, 1).expand_as(first)
    torch.testing.assert_close(first, expected, rtol=0, atol=1e-3)  # sums of 363 products of up to 2, in float32


@needs_fast_bf16
def test_normalisation_folds_in_whatever_the_means_fraction_is() -> None:
    config = DetectorConfig(weights="random", image_size=SIDE, scales=1, flow={"hidden_width": 8})
    detector = AttentDifferNet(config).eval()
    packed_backbone = PackedBackbone(
        detector.backbone, config, mean=detector.image_mean.flatten(), std=detector.image_std.flatten()
    )
    photo = _photos(1)
    first = _first_convolution(packed_backbone, photo)
    with torch.inference_mode():
        normalised = (photo.float() / 255 - detector.image_mean) / detector.image_std
        expected = detector.backbone.layers[:2](normalised)
    edge = torch.zeros_like(expected, dtype=torch.bool)
    edge[..., 0, :], edge[..., :, 0] = True, True
    for part in (edge, ~edge):
        assert float((first - expected)[part].norm() / expected[part].norm()) < 0.01  # bf16 weights


@settings(max_examples=40, deadline=None)
@given(height=st.integers(3, 20), width=st.integers(3, 20), ceil=st.booleans(), seed=st.integers(0, 99))
def test_integer_max_pooling_is_torchs(height: int, width: int, *, ceil: bool, seed: int) -> None:
    pool = nn.MaxPool2d(3, stride=2, ceil_mode=ceil)
    maps = torch.randn(2, 8, height, width, generator=torch.Generator().manual_seed(seed)).relu().bfloat16()
    maps = maps.contiguous(memory_format=torch.channels_last)
    assert torch.equal(PackedMaxPool(pool)(maps), pool(maps))


@needs_fast_bf16
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("groups", [1, 2])
def test_a_packed_convolution_is_torchs_in_bf16(groups: int, *, relu: bool) -> None:
    convolution = nn.Conv2d(32, 64, 3, padding=1, groups=groups)
    maps = torch.randn(2, 32, 9, 9).bfloat16().contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        got = PackedConvolution(convolution, relu=relu)(maps).float()
        expected = convolution(maps.float())
    torch.testing.assert_close(got, expected.relu() if relu else expected, rtol=0.02, atol=0.02)  # 8 bits


def test_a_layer_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ValueError, match="can be packed"):
        list(pack_layers([nn.Sigmoid()]))


def test_a_packed_flow_keeps_its_stream_in_float32() -> None:
    detector = _detector(flow={"blocks": 3, "hidden_width": 32, "hidden_layers": 2, "start": "identity"})
    features = torch.randn(5, detector.feature_dim)
    with torch.inference_mode():
        # subnets that give zeros leave a permutation, exact to the bit where the stream is float32
        assert torch.equal(PackedFlow(detector.flow).latents(features), detector.flow.latents(features))


def test_packed_latents_are_the_flows_up_to_bf16_subnets() -> None:
    exact = _in_float32(_detector(flow={"blocks": 4, "hidden_width": 64, "hidden_layers": 3, "clamp": 2.0}))
    features = torch.randn(50, exact.feature_dim)
    with torch.inference_mode():
        got, expected = PackedFlow(exact.flow).latents(features), exact.flow.latents(features)
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
def test_a_packed_score_does_not_depend_on_the_photos_beside_it(device: str, views: int) -> None:
    packed_detector = build_scorer(_detector(views=views, flow={"blocks": 2, "hidden_width": 16}).to(device))
    photos = _photos(5).to(device)
    together = packed_detector.score(photos)
    alone = torch.cat([packed_detector.score(photo.unsqueeze(0)) for photo in photos])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)  # the flow's products sum in another order


@pytest.mark.slow
@needs_fast_bf16
@pytest.mark.parametrize("at_once", [[1, 1], [8, 8], [3, 64]])
@pytest.mark.parametrize("views", [1, 5, 20])
def test_packed_features_do_not_depend_on_the_views_of_a_pass(at_once: list[int], views: int) -> None:
    backbone = PackedDetector(_detector()).backbone
    with torch.inference_mode():
        expected = backbone.pool(_photos(7), list_scoring_angles(views))
        backbone._views_at_once = at_once
        got = backbone.pool(_photos(7), list_scoring_angles(views))
    torch.testing.assert_close(got, expected, rtol=0.01, atol=1e-3)  # a convolution of another shape rounds otherwise


@needs_fast_bf16
def test_a_rotation_is_computed_once_for_all_scales_even_where_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[float] = []

    def counted(size: int, angle: float, padding: Padding) -> Tensor:
        computed.append(angle)
        return compute_source_index(size, angle, padding)

    monkeypatch.setattr(view_layout, "compute_source_index", counted)
    monkeypatch.setattr(view_layout, "_KEPT_MAPS_BYTES", 1)
    _packed_features(_detector(), _photos(1), views=20)
    assert computed == list(list_scoring_angles(20))


def test_a_gpus_passes_are_filled_up_with_fewer_views_than_one_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (2**36, 2**37))
    at_once = choose_views_at_once(torch.device("cuda"), map_bytes=6_000_000, scales=3)
    assert at_once == [256, 256, 256]  # 256 latent vectors are a batch on a GPU: each scale is one pass of them


def test_a_small_gpus_passes_fit_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _device: (2**30, 2**32))
    # a quarter of 1 GiB holds 11 views of four maps of 6 MB
    assert choose_views_at_once(torch.device("cuda"), map_bytes=6_000_000, scales=2) == [8, 8]


def test_dropout_plays_no_part_in_packed_scores() -> None:
    detector = _detector(flow={"blocks": 2, "hidden_width": 16, "dropout": 0.9}).train()
    assert torch.equal(build_scorer(detector).score(_photos()), build_scorer(detector).score(_photos()))
    assert detector.training


def test_a_detector_itself_scores_in_float32_alone() -> None:
    with pytest.raises(ValueError, match=r"fp32, this detector is bf16: take model\.packed\.detector\.build_scorer"):
        _detector().score(_photos())


def test_a_float32_detector_is_its_own_scorer() -> None:
    detector = _in_float32(_detector())
    assert build_scorer(detector) is detector


def test_packed_scores_are_refused_to_photos_of_another_size() -> None:
    with pytest.raises(ValueError, match="needed uint8 images of shape"):
        build_scorer(_detector()).score(_photos()[..., :64, :64])


def test_nothing_has_no_packed_scores() -> None:
    assert build_scorer(_detector()).score(_photos()[:0]).shape == (0,)


@needs_fast_bf16
def test_detectors_may_share_a_packed_backbone() -> None:
    first = _detector()
    second = _detector(seed=first.config.seed)
    own = PackedDetector(second)
    shared = PackedDetector(second, backbone=PackedDetector(first).backbone)
    assert torch.equal(own.score(_photos()), shared.score(_photos()))


def test_the_size_of_a_packed_detector_is_its_flows_in_two_bytes() -> None:
    detector = _detector()
    weights = sum(part.numel() for part in detector.flow.parameters() if part.is_floating_point())
    assert PackedDetector(detector).size_bytes == 2 * weights + 2 * 4 * detector.feature_dim


def test_flow_blocks_come_in_the_order_in_which_they_act() -> None:
    flow = Flow(6, build_config().flow, seed=0)
    features = torch.randn(4, 6)
    with torch.inference_mode():
        expected, got = flow.latents(features), features
        for permutation, coupling in flow.blocks():
            got = coupling(permutation([got], jac=False)[0], jac=False)[0][0]
    assert torch.equal(got, expected)
