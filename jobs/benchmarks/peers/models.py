"""anomalib's models on a backbone of choice, with its defaults for all else and with raw scores.

PatchCore, PaDiM and CFLOW-AD are given maps by the names of their stages, FastFlow as a list. anomalib builds them by
the name of a network of timm, so on a backbone of ours its extractor is replaced by one that runs ours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from anomalib.models import Cflow, Fastflow, Padim, Patchcore
from anomalib.models.components import AnomalibModule, KCenterGreedy
from anomalib.models.image.fastflow.torch_model import create_fast_flow_block
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from jobs.benchmarks.peers.config import AnomalibSettings
from model.config import DetectorConfig
from model.network.backbone import Backbone

MAPS = {"alexnet": ("1", "4", "9"), "alexnet_caffe": ("2", "6", "11"), "resnet18": ("layer1", "layer2", "layer3")}
"""Layers at strides 4, 8 and 16, as wide ResNet's layer1 to layer3; AlexNet's last is conv4, which ours pools."""
WIDE_RESNET = "wide_resnet50_2"
_MODELS: dict[str, type[AnomalibModule]] = {
    "patchcore": Patchcore,
    "padim": Padim,
    "fastflow": Fastflow,
    "cflow": Cflow,
}


@dataclass(frozen=True)
class PeerBackbone:
    """What a peer sees photos with.

    Attributes:
        name: a key of MAPS, or WIDE_RESNET for timm's.
        weights: random, or what they are called.
        ours: the backbone of our detectors, with its weights; None for timm's. A ResNet-18 gives the maps of its MAPS.
    """

    name: str
    weights: str
    ours: Backbone | None = None


def share_backbone(detector: DetectorConfig, weights: Mapping[str, Tensor] | None) -> PeerBackbone:
    """Builds the backbone of our detectors, without attention, for the peers.

    Args:
        detector: settings of ours, with a backbone of MAPS.
        weights: of that backbone; None leaves it with the random ones of its seed.
    """
    stages = {"feature_stage": "+".join(MAPS["resnet18"])} if detector.backbone == "resnet18" else {}
    backbone = Backbone(
        DetectorConfig.model_validate({**detector.model_dump(), "attention": {}, "scales": 1, **stages})
    )
    if weights is not None:
        backbone.load_features(weights)
    return PeerBackbone(detector.backbone, detector.weights.rsplit("/", 1)[-1], backbone.eval())


def build_model(kind: str, settings: AnomalibSettings, backbone: PeerBackbone) -> AnomalibModule:
    """Builds a model of anomalib.

    Its post-processor is left out, for it would move scores into [0, 1] and clamp them there once it knew a range.

    Args:
        kind: patchcore, padim, fastflow or cflow.
        settings: how it is built.
        backbone: PaDiM and CFLOW-AD know ResNet-18 alone.
    """
    ours, side = backbone.ours, (settings.image_size, settings.image_size)
    given: dict[str, Any] = {
        "backbone": WIDE_RESNET if ours is None else "resnet18",
        "pre_trained": ours is None and backbone.weights != "random",
        "pre_processor": AnomalibModule.configure_pre_processor(image_size=side),
        "post_processor": False,
        "visualizer": False,
        "evaluator": False,
    }
    if kind in ("patchcore", "cflow"):  # CFLOW-AD's default has layer4 too, which ours does not run
        given["layers"] = MAPS["resnet18"][1:]
    if kind == "patchcore":
        given["coreset_sampling_ratio"] = settings.coreset_ratio
    if kind == "patchcore" and ours is not None and backbone.name != "resnet18":
        given |= {"backbone": ours.layers, "layers": MAPS[backbone.name][1:]}
    model = _MODELS[kind](**given)
    if ours is not None and backbone.name == "resnet18":
        extractor = StageMaps(ours, as_list=kind == "fastflow")
        setattr(model.model, "encoder" if kind == "cflow" else "feature_extractor", extractor)
    elif ours is not None and kind == "fastflow":
        put_flows_onto_layers(model.model, ours.layers, MAPS[backbone.name], side=side)
    return model


class StageMaps(nn.Module):
    """The maps of our backbone's stages, as anomalib's models expect them from their extractors."""

    def __init__(self, backbone: Backbone, *, as_list: bool) -> None:
        """Takes the backbone as it is; ``as_list`` gives the maps without names, first to last."""
        super().__init__()
        self._backbone, self._as_list = backbone, as_list

    def forward(self, images: Tensor) -> dict[str, Tensor] | list[Tensor]:
        """Maps normalised images (N, 3, H, W) to the maps (N, C, h, w) of each stage."""
        with torch.no_grad():
            maps = self._backbone.feature_maps(images)
        return list(maps.values()) if self._as_list else maps


def put_flows_onto_layers(model: Any, layers: nn.Module, names: Sequence[str], *, side: tuple[int, int]) -> None:
    """Puts FastFlow's own blocks onto the maps of an AlexNet, which anomalib's FastFlow does not know."""
    maps = _LayerMaps(layers, names).eval()
    with torch.no_grad():
        shapes = [list(one.shape[1:]) for one in maps(torch.zeros(1, 3, *side))]
    blocks = [create_fast_flow_block(shape, False, hidden_ratio=1.0, flow_steps=8) for shape in shapes]
    model.feature_extractor = maps
    model.norms = nn.ModuleList(nn.LayerNorm(shape) for shape in shapes)
    model.fast_flow_blocks = nn.ModuleList(blocks)


class _LayerMaps(nn.Module):
    """Some maps of a sequence of layers, as the list that FastFlow expects."""

    def __init__(self, layers: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self._extractor = create_feature_extractor(layers, return_nodes={name: name for name in names})

    def forward(self, images: Tensor) -> list[Tensor]:
        return list(self._extractor(images).values())


class ProductsCoreset(KCenterGreedy):  # type: ignore[misc]  # anomalib has no types where it is not installed
    """anomalib's greedy choice of patches with distances from products: several times as fast, the same patches."""

    min_distances: Tensor | None

    def __init__(self, embedding: Tensor, sampling_ratio: float) -> None:
        """Takes patches (N, C) and the share of them to choose."""
        super().__init__(embedding, sampling_ratio)
        self._squares: Tensor | None = None

    def update_distances(self, cluster_center: Tensor) -> None:
        """Holds the squared distances (N, 1) to the nearest chosen patch against those to one more."""
        if self._squares is None:
            self._squares = self.features.square().sum(1, keepdim=True)
        products = self.features @ self.features[cluster_center].reshape(-1, 1)
        distances = self._squares - 2 * products + self._squares[cluster_center]
        self.min_distances = distances if self.min_distances is None else torch.minimum(self.min_distances, distances)


def keep_greedily(model: Any, ratio: float) -> None:
    """Takes the place of PatchcoreModel.subsample_embedding, with `ProductsCoreset` for its sampler."""
    patches = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = ProductsCoreset(patches, ratio).sample_coreset()


def keep_at_random(model: Any, ratio: float) -> None:
    """Takes the place of PatchcoreModel.subsample_embedding: as many patches, but drawn evenly."""
    patches = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = patches[torch.randperm(len(patches))[: int(len(patches) * ratio)]]


def fill_memory(model: Any, ratio: float) -> None:
    """Does the same with noise, as many patches as all photos leave: the search looks at every one."""
    patches = torch.vstack(model.embedding_store)
    model.embedding_store.clear()
    model.memory_bank = torch.randn(int(len(patches) * ratio), patches.shape[1])
