"""The backbone's weights as a request names them: what is wrong with them is one line that says what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import save_file

from jobs.detectors.backbone_weights import load_backbone_weights
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
