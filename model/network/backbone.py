"""Convolutional backbones with named stages, attention after any stage, and multi-scale pooled features.

DifferNet (arXiv 2008.12577, section 3.1) pools a frozen AlexNet's last maps at several image scales; AttentDifferNet
(arXiv 2401.08686, figure 2) puts attention between its stages, shared over the scales.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from model.config import BACKBONE_STAGES, DetectorConfig
from model.network.alexnet import ALEXNETS, initialize_layers
from model.network.attention import build_attention
from model.network.fitting import fit_alexnet, fit_network
from model.network.graph import StagedNetwork, chain_layers, find_first_convolution, run_graph, trace_shapes
from model.network.pooling import pool_maps
from model.network.seeding import seed_cpu_generator
from model.network.staging import build_staged_network, list_strides, plan_network


class Backbone(nn.Module):
    """A frozen network's layers (``layers``) with trainable blocks after some stages (``attention``).

    Attributes:
        pooled_stages: whose maps are pooled, in the order of the features.
        mapped_stages: whose maps come out: perhaps a finer one that is not pooled, then the pooled ones.
        feature_dim: D = scales * channels of the pooled stages * ways to pool them.
    """

    def __init__(self, config: DetectorConfig) -> None:
        """Builds ``config.backbone`` with weights from ``config.seed``; the global generators stay untouched.

        The layers are drawn before the attention blocks, so variants of one seed share them.

        Raises:
            ValueError: in one line, that there is no such network or stage, or that it takes no such photos.
        """
        super().__init__()
        self._config = config
        self.scales = config.scales
        with seed_cpu_generator(config.seed):
            network = build_network(config)
            self.layers, self._graph = network.layers.requires_grad_(False).eval(), network.graph
            self.attention = nn.ModuleDict(
                {
                    name_block(stage): build_attention(config.attention[stage], channels)
                    for stage, channels in network.channels.items()
                    if stage in config.attention
                }
            )
        self.pooled_stages, self.mapped_stages = network.pooled, network.finer + network.pooled
        channels = sum(network.channels[stage] for stage in network.pooled)
        self.feature_dim = config.scales * channels * len(config.poolings)

    def train(self, mode: bool = True) -> Backbone:
        """Sets the mode of the attention; frozen layers stay in evaluation mode, with the statistics that they have."""
        super().train(mode)
        self.layers.eval()
        return self

    def feature_maps(self, images: Tensor, *, attended: bool = True) -> dict[str, Tensor]:
        """Maps normalised images (N, 3, H, W) to the maps (N, channels, h, w) of each mapped stage.

        Args:
            images: on the device of the weights.
            attended: False leaves all attention out, which gives plain DifferNet's maps.
        """
        stages = self._config.attention if attended else {}
        blocks = {stage: self.attention[name_block(stage)] for stage in stages}
        return run_graph(self.layers, self._graph, images, attention=blocks)

    def feature_map(self, images: Tensor, *, attended: bool = True) -> Tensor:
        """Returns the maps of the last pooled stage alone, see `feature_maps`."""
        return self.feature_maps(images, attended=attended)[self.pooled_stages[-1]]

    def forward(self, images: Tensor, *, attended: bool = True) -> Tensor:
        """Maps normalised float images (N, 3, S, S) to pooled features, float32 (N, D), see `pool_with_maps`."""
        return self.pool_with_maps(images, attended=attended)[0]

    def pool_with_maps(self, images: Tensor, *, attended: bool = True) -> tuple[Tensor, list[Tensor]]:
        """Maps normalised float images (N, 3, S, S) to pooled features and the maps that they come from.

        Scale k is the image at S // 2**k, nearest neighbour as in DifferNet. A scale's features follow each other
        stage by stage, and a stage's in the order of ``config.pooling``.

        Returns:
            float32 (N, D), largest scale first; (N, C, h, w) of each mapped stage at the largest scale alone.
        """
        side = images.shape[-1]
        pyramid = [images, *(F.interpolate(images, size=side // 2**k, mode="nearest") for k in range(1, self.scales))]
        found = [self.feature_maps(scaled, attended=attended) for scaled in pyramid]
        pooled = [pool_maps([maps[stage] for stage in self.pooled_stages], self._config.poolings) for maps in found]
        return torch.cat(pooled, dim=1), list(found[0].values())

    def trace_map_shapes(self) -> list[tuple[int, int, int]]:
        """Returns the shape (C, h, w) of each mapped stage's map at the largest scale, without computing one."""
        layers = copy.deepcopy(self.layers).to("meta")
        found = trace_shapes(layers, self._graph, side_px=self._config.image_size)
        return [(int(one[1]), int(one[2]), int(one[3])) for one in found.values()]

    def find_first_convolution(self) -> str | None:
        """Returns the name below ``layers`` of the convolution that is all that sees the images, if there is one."""
        return find_first_convolution(self.layers, self._graph)

    def load_features(self, state: Mapping[str, Tensor] | nn.Module) -> None:
        """Loads the layers' weights by their library's names, from a state or a module; attention keeps its own.

        Those of layers behind the pooled stages are ignored, as is an AlexNet's ``features.`` prefix. Batch norms may
        be folded into the convolutions before them.

        Raises:
            ValueError: in one line, which weights are missing, unexpected, of another shape or not finite numbers.
        """
        given = state.state_dict() if isinstance(state, nn.Module) else state
        if self._config.backbone in ALEXNETS:
            fitted = fit_alexnet(self.layers, given)
        else:
            fitted = fit_network(plan_library_network(self._config), given)
        self.layers.load_state_dict(fitted, strict=True)


def build_network(config: DetectorConfig) -> StagedNetwork:
    """Builds the layers of ``config.backbone`` with random weights from torch's generator.

    Raises:
        ValueError: as `Backbone` says.
    """
    if config.backbone not in ALEXNETS:
        return build_staged_network(plan_library_network(config), config.backbone)
    alexnet, stages = ALEXNETS[config.backbone], BACKBONE_STAGES[config.backbone]
    layers = alexnet.build()
    initialize_layers(layers)
    # The paper pools what the last layer gives, a pooling layer behind the last stage.
    ends = {**dict(zip(stages, alexnet.ends, strict=True)), "": len(layers)}
    pooled = config.feature_stages or ("",)
    channels = {**dict(zip(stages, alexnet.channels, strict=True)), "": alexnet.channels[-1]}
    return StagedNetwork(layers, chain_layers(layers, ends, pooled=pooled), channels, pooled)


def plan_library_network(config: DetectorConfig) -> StagedNetwork:
    """Returns the plan of a network of torchvision or timm; ValueError as `Backbone` says."""
    sides = tuple(config.image_size // 2**scale for scale in range(config.scales))
    return plan_network(config.backbone, config.feature_stages, tuple(config.attention), sides)


def list_stages(backbone: str) -> tuple[str, ...]:
    """Lists the stages of a network that have short names, first to last."""
    return BACKBONE_STAGES[backbone] if backbone in BACKBONE_STAGES else tuple(list_strides(backbone))


def name_block(stage: str) -> str:
    """Returns the name of a stage's block among the weights, which must have no dot."""
    return stage.replace(".", "/")
