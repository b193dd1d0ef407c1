"""The backbone's weights as a request names them: what is wrong with them is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import load, save_file

from jobs.detectors.backbone_weights import WeightsFiles, hash_backbone_weights, load_backbone_weights
from jobs.errors import RequestError
from model.config import DetectorConfig
from model.network.backbone import Backbone


def test_weights_of_another_backbone_are_recognized(tmp_path: Path) -> None:
    caffe = Backbone(DetectorConfig(backbone="alexnet_caffe", weights="random"))
    save_file(
        {name: tensor.contiguous() for name, tensor in caffe.layers.state_dict().items()}, tmp_path / "w.safetensors"
    )
    asked = DetectorConfig(backbone="alexnet", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(
        RequestError, match=r"this file looks like alexnet_caffe: add --detector\.backbone alexnet_caffe"
    ):
        load_backbone_weights(asked, asked_as="--detector.weights w.safetensors")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"backbone": "alexnt"}, r"--detector\.backbone alexnt: torchvision has no .*did you mean alexnet"),
        ({"backbone": "resnet18", "feature_stage": "layer9"}, "resnet18 has no stage 'layer9'"),
        ({"backbone": "vit_b_16", "image_size": 448}, "vit_b_16 takes no photo of 448 px.*it takes 224 px"),
    ],
)
def test_a_backbone_that_cannot_be_built_is_a_wrong_request(parts: dict[str, object], message: str) -> None:
    asked = DetectorConfig.model_validate({"weights": "random", "scales": 1, **parts})
    with pytest.raises(RequestError, match=message):
        load_backbone_weights(asked, asked_as="--detector.weights random")


@pytest.mark.slow
def test_weights_of_another_network_of_torchvision_are_recognized(tmp_path: Path) -> None:
    save_file(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "w.safetensors")
    asked = DetectorConfig(backbone="resnet18", weights=str(tmp_path / "w.safetensors"))
    with pytest.raises(RequestError, match=r"do not fit: missing: .*looks like squeezenet1_1: add"):
        load_backbone_weights(asked, asked_as="--detector.weights w.safetensors")


@pytest.mark.parametrize("name", ["", "x" * 300, "gone.pth"])
def test_a_place_without_a_weights_file_is_a_wrong_request(name: str, tmp_path: Path) -> None:
    asked = DetectorConfig(weights=f"{tmp_path}/{name}")
    for read in (hash_backbone_weights, load_backbone_weights):
        with pytest.raises(RequestError, match=r"--detector.weights it: .*(is no file|does not exist)"):
            read(asked, WeightsFiles(), asked_as="--detector.weights it")


def test_a_weights_file_that_is_replaced_during_a_run_trains_as_it_was_named(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    first, second = (_save_random_weights(file, seed=seed) for seed in range(2))
    file.write_bytes(first)
    asked, files = DetectorConfig(weights=str(file)), WeightsFiles()
    name = hash_backbone_weights(asked, files, asked_as="--detector.weights w.safetensors")
    file.write_bytes(second)
    loaded = load_backbone_weights(asked, files, asked_as="--detector.weights w.safetensors")
    assert loaded is not None
    assert all(torch.equal(loaded[key], tensor) for key, tensor in load(first).items())
    assert name != hash_backbone_weights(asked, WeightsFiles(), asked_as="--detector.weights w.safetensors")


def _save_random_weights(file: Path, *, seed: int) -> bytes:
    backbone = Backbone(DetectorConfig(weights="random", seed=seed))
    save_file({key: tensor.contiguous() for key, tensor in backbone.layers.state_dict().items()}, file)
    return file.read_bytes()
