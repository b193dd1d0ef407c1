"""Networks of torchvision and timm by name: their stages, weights, sizes, and what scores them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from model.config import DetectorConfig
from model.detector import AttentDifferNet, build_detector
from model.network.backbone import Backbone
from model.network.fitting import find_network_of
from model.network.libraries import read_licence
from model.network.staging import list_strides
from tests.support.detectors import build_config, draw_images
from tests.support.places import SHARED

_RESNET_FILE = SHARED / "weights" / "resnet18_torchvision_to_layer3.safetensors"


def _build(**parts: Any) -> Backbone:
    return Backbone(build_config(**{"backbone": "resnet18", **parts}))


def _images(side: int = 64) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """torchvision's own ResNet-18, its batch norms as unlike neutral ones as trained ones are."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.resnet18(weights=None)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.normal_(layer.bias)
                nn.init.normal_(layer.running_mean)
                nn.init.uniform_(layer.running_var, 0.5, 2)
    return network.eval()


def test_stages_of_a_network_are_what_torchvision_extracts(resnet: nn.Module) -> None:
    backbone = _build(feature_stage="layer3+layer1.0.relu")
    backbone.load_features(resnet.state_dict())
    expected = create_feature_extractor(resnet, ["layer3", "layer1.0.relu"])(_images())
    found = backbone.feature_maps(_images())
    assert list(found) == ["layer3", "layer1.0.relu"]
    for stage, maps in found.items():
        torch.testing.assert_close(maps, expected[stage], rtol=1e-4, atol=1e-4)  # batch norms are folded


def test_a_module_of_the_network_gives_its_weights_as_its_state_does(resnet: nn.Module) -> None:
    config = build_config(backbone="resnet18")
    one, other = build_detector(config, resnet), build_detector(config, resnet.state_dict())
    assert torch.equal(one.pool_features(draw_images()), other.pool_features(draw_images()))


def test_where_no_stage_is_named_those_at_an_eighth_and_a_sixteenth_are_pooled() -> None:
    assert list_strides("resnet18")["stride8"] == "layer2"
    default, named = _build(), _build(feature_stage="layer2+layer3")
    assert torch.equal(default(_images()), named(_images()))
    assert default.feature_dim == 128 + 256


def test_weights_behind_the_pooled_stages_are_no_part_of_a_detector() -> None:
    names = _build(feature_stage="layer2").layers.state_dict()
    assert "layer2.1.conv2.weight" in names
    assert not [name for name in names if name.startswith(("layer3", "fc")) or "bn" in name]


@pytest.mark.parametrize("pooling", ["average", "maximum", "generalized_mean", "maximum+average"])
def test_poolings_follow_each_other_as_they_are_named(pooling: str) -> None:
    backbone = _build(feature_stage="layer2", pooling=pooling)
    maps = backbone.feature_map(_images()).clamp_min(1e-6)
    by_hand = {
        "average": maps.mean((2, 3)),
        "maximum": maps.amax((2, 3)),
        "generalized_mean": maps.pow(3).mean((2, 3)).pow(1 / 3),
    }
    expected = torch.cat([by_hand[kind] for kind in pooling.split("+")], dim=1)
    torch.testing.assert_close(backbone(_images()), expected, rtol=1e-4, atol=1e-5)


def test_the_older_name_of_average_and_maximum_gives_the_same_features() -> None:
    one, other = (Backbone(build_config(pooling=name)) for name in ("average_max", "average+maximum"))
    assert torch.equal(one(_images()), other(_images()))


@pytest.mark.parametrize("pooling", ["median", "average+average", "average,maximum", ""])
def test_an_unknown_pooling_is_refused_with_the_known_ones(pooling: str) -> None:
    with pytest.raises(ValueError, match="pooling needs some of average, maximum, generalized_mean"):
        build_config(pooling=pooling)


@pytest.mark.parametrize("kind", ["se", "cbam", "eca"])
def test_attention_after_any_node_changes_what_comes_behind_it(kind: str) -> None:
    attention = {"layer2.0.relu": {"kind": kind, "gate": "sigmoid"}}
    backbone = _build(feature_stage="layer1+layer2", attention=attention).eval()
    attended, plain = backbone.feature_maps(_images()), backbone.feature_maps(_images(), attended=False)
    assert torch.equal(attended["layer1"], plain["layer1"])
    assert not torch.equal(attended["layer2"], plain["layer2"])
    assert torch.equal(plain["layer2"], _build(feature_stage="layer2").feature_map(_images()))


def test_attention_survives_a_copy_of_the_backbone() -> None:
    backbone = _build(attention={"layer1": {"kind": "se", "gate": "sigmoid"}})
    assert torch.equal(copy.deepcopy(backbone)(_images()), backbone(_images()))


def test_a_network_with_its_channels_last_gives_maps() -> None:
    backbone = _build(backbone="swin_t", attention={"features.1": {"kind": "cbam", "gate": "sigmoid"}})
    maps = backbone.feature_maps(_images())
    assert [tuple(one.shape) for one in maps.values()] == [(2, 96, 16, 16), (2, 192, 8, 8), (2, 384, 4, 4)]
    assert not torch.equal(backbone(_images()), backbone(_images(), attended=False))


def test_frozen_layers_keep_their_statistics_while_a_detector_trains() -> None:
    backbone = _build(backbone="densenet121")  # its batch norms come before the convolutions and stay
    before = copy.deepcopy(backbone.layers.state_dict())
    in_evaluation = backbone.eval()(_images())
    assert torch.equal(backbone.train()(_images()), in_evaluation)
    assert all(torch.equal(before[name], value) for name, value in backbone.layers.state_dict().items())


def test_building_one_detector_leaves_the_next_one_of_the_seed_the_same(resnet: nn.Module) -> None:
    first = _build(seed=4)
    first.load_features(resnet.state_dict())
    assert torch.equal(_build(seed=4)(_images()), _build(seed=4)(_images()))
    assert not torch.equal(_build(seed=4)(_images()), _build(seed=5)(_images()))


@pytest.mark.skipif(not _RESNET_FILE.exists(), reason="the real weights in shared/weights are absent")
def test_weights_with_neutral_batch_norms_fit() -> None:
    backbone = _build(feature_stage="layer2+layer3")
    backbone.load_features(load_file(_RESNET_FILE))
    assert backbone(_images()).std() > 0


def test_weights_whose_batch_norms_are_folded_away_fit(resnet: nn.Module) -> None:
    whole, folded = _build(), _build()
    whole.load_features(resnet.state_dict())
    folded.load_features({name: value for name, value in whole.layers.state_dict().items() if "bn" not in name})
    torch.testing.assert_close(folded(_images()), whole(_images()))


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"backbone": "resnet81"}, r"no classification network 'resnet81', did you mean resnet18"),
        ({"backbone": "timm/resnet8"}, r"timm has no network 'resnet8', did you mean resnet|need the extra timm"),
        ({"feature_stage": "layer9"}, r"resnet18 has no stage 'layer9', did you mean layer\d"),
        ({"feature_stage": "conv99x"}, r"resnet18 has no stage 'conv99x'"),
        ({"feature_stage": "layer2", "attention": {"layer3": {"kind": "se"}}}, "attention after layer3 has no effect"),
        (
            {"backbone": "inception_v3", "feature_stage": "Mixed_7c"},
            "no photo of 64 px.*it takes 75 px, an image",
        ),
        ({"backbone": "vit_b_16"}, r"takes no photo of 64 px.*it takes 224 px, an image_size of 224"),
    ],
)
@pytest.mark.slow
def test_what_no_network_has_is_refused_in_one_line(parts: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refusal:
        _build(**parts)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
def test_weights_of_another_network_are_refused_and_recognized() -> None:
    state = torchvision.models.squeezenet1_1(weights=None).state_dict()
    with pytest.raises(ValueError, match=r"backbone weights do not fit: missing: .*; unexpected: ") as refusal:
        _build().load_features(state)
    assert "\n" not in str(refusal.value)
    assert find_network_of(state) == "squeezenet1_1"


@pytest.mark.slow
def test_a_network_that_wants_other_colours_gets_them_and_keeps_them() -> None:
    detector = AttentDifferNet(build_config(backbone="efficientnet_v2_l", feature_stage="stride2"))
    assert detector.state_dict()["image_mean"].flatten().tolist() == [0.5, 0.5, 0.5]
    assert "image_mean" not in AttentDifferNet(build_config()).state_dict()


def test_the_licence_that_a_library_names_for_its_weights_is_read() -> None:
    assert "BSD-3-Clause" in read_licence("resnet18")
    assert "SWAG" in read_licence("vit_h_14")


def test_a_network_of_timm_gives_features() -> None:
    pytest.importorskip("timm")
    backbone = _build(backbone="timm/resnet18", feature_stage="layer2+layer3", pooling="average+generalized_mean")
    assert backbone(_images()).shape == (2, 2 * (128 + 256))
    assert "apache" in read_licence("timm/resnet18.a1_in1k")


def test_names_that_are_no_names_are_refused_by_the_config() -> None:
    with pytest.raises(ValueError, match="backbone"):
        DetectorConfig(backbone="../resnet18")
