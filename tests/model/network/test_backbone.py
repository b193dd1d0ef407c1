"""Backbones against torchvision and the real weights, attention at every stage, hostile weight files."""

from __future__ import annotations

import io
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
import torchvision
from torch import Tensor

from model.config import ATTENTION_KINDS, BACKBONE_STAGES, AttentionConfig, DetectorConfig
from model.network.backbone import Backbone
from model.network.weights import (
    WeightsUnavailableError,
    fetch_imagenet_weights,
    parse_weights,
    resolve_backbone_weights,
)
from tests.support.places import SHARED

_WEIGHTS = SHARED / "weights"
_needs_weights = pytest.mark.skipif(not _WEIGHTS.exists(), reason="the real weights in shared/weights are absent")
_FILES = {
    "alexnet_caffe": "bvlc_alexnet_features.safetensors",
}


def _config(
    backbone: str = "alexnet", *, image_size: int = 64, scales: int = 1, seed: int = 0, **parts: object
) -> DetectorConfig:
    return DetectorConfig(backbone=backbone, image_size=image_size, scales=scales, seed=seed, weights="random", **parts)


def _images(side: int = 64, count: int = 2) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def _alexnet_state() -> dict[str, Tensor]:
    return {f"features.{key}": value for key, value in Backbone(_config(seed=3)).layers.state_dict().items()}


def test_alexnet_equals_torchvisions_features_module() -> None:
    with torch.device("meta"):
        features = torchvision.models.alexnet().features
    ours = Backbone(_config())
    features.load_state_dict(ours.layers.state_dict(), strict=True, assign=True)
    assert torch.equal(ours.feature_map(_images()), features(_images()))


@_needs_weights
@pytest.mark.parametrize("backbone", _FILES)
def test_real_weights_load_strictly(backbone: str) -> None:
    state = parse_weights((_WEIGHTS / _FILES[backbone]).read_bytes(), name=_FILES[backbone])
    ours = Backbone(_config(backbone))
    ours.load_features(state)
    assert torch.equal(ours.layers[0].weight, state.get("0.weight", state.get("features.0.weight")))


def test_the_caffe_alexnet_gives_13_by_13_maps_at_448() -> None:
    backbone = Backbone(_config("alexnet_caffe", image_size=448)).to("meta")
    assert backbone.feature_map(torch.empty(1, 3, 448, 448, device="meta")).shape == (1, 256, 13, 13)


def test_the_caffe_alexnet_equals_its_layers_written_out() -> None:
    ours = Backbone(_config("alexnet_caffe"))
    w = ours.layers.state_dict()

    def pooled(x: Tensor) -> Tensor:
        return F.max_pool2d(x, 3, 2, ceil_mode=True)

    def normalised(x: Tensor) -> Tensor:
        """Caffe's across-channel LRN: x / (1 + alpha / 5 * sum of squares over 5 channels) ** beta."""
        squares = F.pad(x.square(), (0, 0, 0, 0, 2, 2))
        window = sum(squares[:, shift : shift + x.shape[1]] for shift in range(5))
        return x / (1 + 1e-4 / 5 * window) ** 0.75

    x = pooled(normalised(F.conv2d(_images(), w["0.weight"], w["0.bias"], stride=4).relu()))
    x = pooled(normalised(F.conv2d(x, w["4.weight"], w["4.bias"], padding=2, groups=2).relu()))
    x = F.conv2d(x, w["8.weight"], w["8.bias"], padding=1).relu()
    x = F.conv2d(x, w["10.weight"], w["10.bias"], padding=1, groups=2).relu()
    x = pooled(F.conv2d(x, w["12.weight"], w["12.bias"], padding=1, groups=2).relu())
    # The LRN sums in another order, and five layers add up: 3e-6 of values around 1 on a CPU with AVX2 alone, whose
    # kernels sum eight numbers at a time, less where sixteen are.
    torch.testing.assert_close(ours.feature_map(_images()), x, rtol=1e-5, atol=1e-5)


def test_features_of_three_scales_equal_a_plain_loop() -> None:
    backbone = Backbone(_config(image_size=256, scales=3))
    images = _images(256)
    expected = []
    for step in (1, 2, 4):
        maps = backbone.layers(images[:, :, ::step, ::step])
        expected.append(torch.stack([torch.stack([channel.mean() for channel in image]) for image in maps]))
    # means in another order
    torch.testing.assert_close(backbone(images), torch.cat(expected, dim=1), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("backbone", "scales", "dim"), [("alexnet", 3, 768), ("alexnet_caffe", 1, 256)])
def test_feature_dim_is_scales_times_channels(backbone: str, scales: int, dim: int) -> None:
    ours = Backbone(_config(backbone, image_size=256, scales=scales))
    assert (ours.feature_dim, ours(_images(256, count=1)).shape) == (dim, (1, dim))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
@pytest.mark.parametrize(("backbone", "stage"), [(b, s) for b, stages in BACKBONE_STAGES.items() for s in stages])
def test_every_attention_kind_acts_after_every_stage(backbone: str, stage: str, kind: str) -> None:
    attention = {stage: AttentionConfig(kind=kind, gate="sigmoid")}
    attended, plain = Backbone(_config(backbone, attention=attention)), Backbone(_config(backbone))
    assert attended(_images()).shape == plain(_images()).shape
    assert not torch.equal(attended(_images()), plain(_images()))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONE_STAGES)
@pytest.mark.parametrize("kind", ATTENTION_KINDS)
def test_identity_gates_after_all_stages_change_no_bit(backbone: str, kind: str) -> None:
    attention = {stage: AttentionConfig(kind=kind) for stage in BACKBONE_STAGES[backbone]}
    attended = Backbone(_config(backbone, attention=attention))
    assert torch.equal(attended(_images()), Backbone(_config(backbone))(_images()))


def test_attention_after_conv5_stands_between_its_relu_and_the_last_pool() -> None:
    backbone = Backbone(_config(attention={"conv5": AttentionConfig(kind="se", gate="sigmoid")}))
    expected = backbone.layers[12](backbone.attention["conv5"](backbone.layers[:12](_images())))
    assert torch.equal(backbone.feature_map(_images()), expected)


def test_only_attention_is_trainable() -> None:
    backbone = Backbone(_config(attention={"pool1": AttentionConfig(kind="se")}))
    trainable = {name.split(".")[0] for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trainable == {"attention"}


@pytest.mark.parametrize(("other_seed", "same"), [(1, True), (2, False)])
def test_the_seed_decides_the_weights(other_seed: int, same: bool) -> None:
    first, second = Backbone(_config(seed=1)), Backbone(_config(seed=other_seed))
    assert torch.equal(first(_images()), second(_images())) == same


def test_building_leaves_the_global_generators_untouched() -> None:
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].tolist()
    Backbone(_config(attention={"pool1": AttentionConfig(kind="cbam")}))
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.random.get_state()[1].tolist() == numpy_state


@pytest.mark.parametrize(("backbone", "image_size"), [("alexnet", 62), ("alexnet_caffe", 38)])
def test_an_image_that_pools_away_is_refused_by_the_config(backbone: str, image_size: int) -> None:
    with pytest.raises(ValueError, match=f"{backbone} needs at least {image_size + 1} px"):
        _config(backbone, image_size=image_size * 4, scales=3)


@pytest.mark.parametrize(("backbone", "smallest"), [("alexnet", 63), ("alexnet_caffe", 39)])
def test_the_smallest_accepted_image_gives_features(backbone: str, smallest: int) -> None:
    ours = Backbone(_config(backbone, image_size=smallest * 2, scales=2))
    assert ours(_images(smallest * 2)).shape == (2, 512)


@pytest.mark.parametrize("prefix", ["", "features."])
def test_torchvisions_keys_load_with_and_without_prefix_and_classifier(prefix: str) -> None:
    state = {prefix + key.removeprefix("features."): value for key, value in _alexnet_state().items()}
    ours = Backbone(_config(seed=0))
    ours.load_features(state | {"classifier.1.weight": torch.zeros(1)})
    assert torch.equal(ours(_images()), Backbone(_config(seed=3))(_images()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features.3.bias": None}, "missing: 3.bias"),
        ({"features.99.weight\nx": torch.zeros(1)}, r"unexpected: 99.weight\\nx"),
        ({"features.3.bias": torch.zeros(7)}, r"of another shape: 3.bias needs \(192,\) got \(7,\)"),
        ({"features.3.bias": torch.full((192,), torch.nan)}, "not finite floating-point numbers: 3.bias"),
        ({"features.3.bias": torch.zeros(192, dtype=torch.int64)}, "not finite floating-point numbers: 3.bias"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name_in_one_line(
    changes: dict[str, Tensor | None], message: str
) -> None:
    state = {key: value for key, value in (_alexnet_state() | changes).items() if value is not None}
    with pytest.raises(ValueError, match=message) as refusal:
        Backbone(_config()).load_features(state)
    assert "\n" not in str(refusal.value)


def test_a_refused_load_changes_no_weight() -> None:
    backbone = Backbone(_config())
    before = backbone(_images())
    with pytest.raises(ValueError, match="missing"):
        backbone.load_features({"features.0.weight": torch.ones(64, 3, 11, 11)})
    assert torch.equal(backbone(_images()), before)


def _saved(state: object, **options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer, **options)
    return buffer.getvalue()


_STATE = {"0.weight": torch.arange(6.0).view(2, 3)}


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (safetensors.torch.save(_STATE), "w.safetensors"),
        (safetensors.torch.save(_STATE), "no-extension"),
        (_saved(_STATE), "w.pth"),
        (_saved(_STATE, _use_new_zipfile_serialization=False), "w.pt"),
    ],
    ids=["safetensors", "by-content", "zip", "legacy"],
)
def test_weight_files_are_read_by_content_and_extension(data: bytes, name: str) -> None:
    assert torch.equal(parse_weights(data, name=name)["0.weight"], _STATE["0.weight"])


class _Malicious:
    """Unpickling it would create the file: the classic attack through ``__reduce__``."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare"])
def test_code_in_a_weight_file_is_refused_and_never_run(form: str, tmp_path: Path) -> None:
    target = tmp_path / "executed"
    payload = {"0.weight": _Malicious(target)}
    data = pickle.dumps(payload) if form == "bare" else _saved(payload, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(ValueError, match="holds no readable weights"):
        parse_weights(data, name="w.pth")
    assert not target.exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "w.pth"),
        (b"", "w.safetensors"),
        (b"<html>not found</html>", "w.pth"),
        (b"\xff" * 8 + b"{", "w.safetensors"),
        (safetensors.torch.save(_STATE)[:-1], "w.safetensors"),
        (_saved(_STATE)[:200], "w.pth"),
        (b"PK\x03\x04" + bytes(100), "w.pth"),
        (_saved([torch.zeros(1)]), "list.pth"),
        (_saved({"state_dict": _STATE}), "nested.pth"),
        (_saved({0: torch.zeros(1)}), "numbered.pth"),
        (_saved({"0.weight": torch.zeros(2, 2).to_sparse()}), "sparse.pth"),
    ],
)
def test_hostile_weight_bytes_are_a_one_line_value_error(data: bytes, name: str) -> None:
    with pytest.raises(ValueError, match=name) as refusal:
        parse_weights(data, name=name)
    assert "\n" not in str(refusal.value)


def test_the_caffe_alexnet_has_no_download() -> None:
    with pytest.raises(
        WeightsUnavailableError, match=r"no ImageNet weights of alexnet_caffe: set detector\.weights to the path"
    ):
        fetch_imagenet_weights("alexnet_caffe")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    return tmp_path / "checkpoints"


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Accepts connections (the kernel's backlog does) and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/alexnet-owt-7be5be79.pth"


@pytest.mark.timeout(10)
def test_a_network_that_hangs_is_given_up_in_time(
    hub: Path, silent_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("model.network.weights.list_imagenet_urls", lambda: {"alexnet": silent_server})
    with pytest.raises(
        WeightsUnavailableError,
        match=r"timed out.*copy that file, .*-7be5be79\.pth, or set",
    ):
        fetch_imagenet_weights("alexnet", timeout_s=0.2)
    assert list(hub.iterdir()) == []


def test_a_download_of_other_content_is_refused_and_not_kept(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "alexnet-owt-7be5be79.pth"
    served.write_bytes(_saved(_STATE))
    monkeypatch.setattr("model.network.weights.list_imagenet_urls", lambda: {"alexnet": served.as_uri()})
    with pytest.raises(WeightsUnavailableError, match="expected 7be5be79"):
        fetch_imagenet_weights("alexnet")
    assert list(hub.iterdir()) == []


def test_imagenet_weights_come_from_torch_hubs_cache_without_a_network(hub: Path) -> None:
    hub.mkdir()
    (hub / "alexnet-owt-7be5be79.pth").write_bytes(_saved(_STATE))
    assert torch.equal(fetch_imagenet_weights("alexnet")["0.weight"], _STATE["0.weight"])


def test_random_weights_need_no_file() -> None:
    assert resolve_backbone_weights(_config(), read=lambda uri: pytest.fail("read")) is None


def test_weights_of_a_uri_are_read_from_it() -> None:
    stored = {"s3://bucket/w.safetensors": safetensors.torch.save(_STATE)}
    config = DetectorConfig(weights="s3://bucket/w.safetensors")
    state = resolve_backbone_weights(config, read=stored.__getitem__)
    assert state is not None
    assert torch.equal(state["0.weight"], _STATE["0.weight"])


def test_a_download_that_takes_too_long_in_all_is_given_up(
    hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = tmp_path / "alexnet-owt-7be5be79.pth"
    served.write_bytes(_saved(_STATE))
    monkeypatch.setattr("model.network.weights.list_imagenet_urls", lambda: {"alexnet": served.as_uri()})
    with pytest.raises(WeightsUnavailableError, match="not done after 0 s"):
        fetch_imagenet_weights("alexnet", total_s=0)
    assert list(hub.iterdir()) == []
