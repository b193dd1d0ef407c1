"""A backbone compiled by OpenVINO for this machine's CPU: uint8 photos to pooled features, and distances, in bf16.

Distances of positions are computed inside, for the maps are large: to take them out costs more than all that is done
with them. What whitens them is an input, so that detectors which differ in it share one backbone.

``model.network.backbone`` is what it must agree with, up to the rounding of bf16 (tests/model/inference).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import openvino
import torch
import torch.nn.functional as F  # noqa: N812  # torch's own name for it
from torch import Tensor, nn

from model.config import DetectorConfig
from model.inference.views import BYTES_PER_PIXEL, gather_views
from model.network.backbone import Backbone

VIEWS_PER_PASS = 8
"""As fast as more on the CPUs tried, and fewer are computed in vain where a batch does not fill the last pass."""


class CompiledBackbone:
    """Convolutions and attention of one backbone; detectors with equal ones may share it."""

    def __init__(
        self, backbone: Backbone, config: DetectorConfig, *, mean: Tensor, std: Tensor, mapped_stages: int = 0
    ) -> None:
        """Compiles a copy of the weights, for as many threads as torch has now; takes about 2 seconds.

        Args:
            backbone: on the CPU, in evaluation mode.
            config: what it was built from.
            mean: (3, 1, 1) that is subtracted from colours in 0..1.
            std: (3, 1, 1) that divides them then.
            mapped_stages: of so many stages, the last of those mapped, distances come out as well.
        """
        self._padding = config.rotation_padding
        self._shape = (VIEWS_PER_PASS, config.image_size, config.image_size, BYTES_PER_PIXEL)
        network = _PixelsToFeatures(backbone, mean=mean, std=std).eval()
        views = torch.zeros(1, *self._shape[1:], dtype=torch.uint8)
        channels = [shape[0] for shape in backbone.trace_map_shapes()[-mapped_stages:]] if mapped_stages else []
        whitening = [part for count in channels for part in (torch.zeros(count, count, 1, 1), torch.zeros(count))]
        inputs = [(list(self._shape), np.uint8), *((list(part.shape), np.float32) for part in whitening)]
        with torch.no_grad():
            # Traced here, for OpenVINO's own call checks the trace, by a part of torch that takes 1 s of CPU to import.
            traced = torch.jit.trace(  # type: ignore[no-untyped-call]  # torch leaves it untyped
                network, (views, *whitening), strict=False, check_trace=False
            )
            graph = openvino.convert_model(traced, input=inputs)
        self._compiled = openvino.Core().compile_model(graph, "CPU", choose_settings(torch.get_num_threads()))

    def pool(self, images: Tensor, angles: Sequence[float]) -> Tensor:
        """Pools the features of rotated views, photo by photo: float32 (B * T, D), as `Backbone.forward` has them.

        The network sees passes of one shape, the last one filled up: no score depends on how many views there are.

        Args:
            images: uint8 (B, 3, S, S) RGB with B >= 1, on the CPU.
            angles: T degrees.
        """
        return torch.cat([pooled for pooled, _ in self.pool_groups(images, angles)])

    def pool_groups(
        self, images: Tensor, angles: Sequence[float], *, projections: Sequence[tuple[Tensor, Tensor]] = ()
    ) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Yields, for a few photos at a time, pooled features and squared distances (B, h, w) of their first views.

        So their views stay in the caches, and memory does not grow with the batch.

        Args:
            images: as `pool` takes them.
            angles: the first is 0 where there are projections.
            projections: of each of the mapped stages, see `PositionGaussians.list_projections`.
        """
        whitening = [part.numpy() for projection in projections for part in projection]
        for group in torch.split(images, max(1, VIEWS_PER_PASS // len(angles))):
            views = gather_views(group, angles, padding=self._padding)
            passes = [self._run_pass(part, whitening) for part in torch.split(views, VIEWS_PER_PASS)]
            # A pass holds several photos' views, or a part of one photo's: its first is in the first pass.
            yield torch.cat([found[0] for found in passes]), [one[:: len(angles)] for one in passes[0][1:]]

    def _run_pass(self, views: Tensor, whitening: Sequence[npt.NDArray[np.float32]]) -> list[Tensor]:
        missing = VIEWS_PER_PASS - len(views)
        whole = torch.cat([views, views.new_zeros(missing, *views.shape[1:])]) if missing else views
        found = self._compiled([whole.numpy(), *whitening])
        return [torch.from_numpy(found[number])[: len(views)] for number in range(len(found))]


class _PixelsToFeatures(nn.Module):
    """What is compiled: all scales, attention and pooling, with normalization folded into the first convolution.

    A network that does not begin with one sees normalized colours.
    """

    offset: Tensor
    scale: Tensor

    def __init__(self, backbone: Backbone, *, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.backbone = copy.deepcopy(backbone)
        offset, scale = 255 * mean.flatten(), 255 * std.flatten()
        if first := backbone.find_first_convolution():
            grey = offset.round()
            folded = fold_normalization(backbone.layers.get_submodule(first), grey=grey, mean=mean, std=std)
            self.backbone.layers.set_submodule(first, folded)
            offset, scale = torch.cat([grey, torch.tensor([-1.0])]), torch.ones(())
        self._channels = len(offset)  # torch.jit warns where a length is asked for inside
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)

    def forward(self, views: Tensor, *whitening: Tensor) -> tuple[Tensor, ...]:
        """Maps uint8 (N, S, S, 4) to pooled features, float32 (N, D), and to squared distances (N, h, w).

        Args:
            views: in pixels.
            whitening: weight and bias of the convolution that whitens the maps, for each of the last mapped stages.
        """
        pixels = views[..., : self._channels].float() - self.offset
        images = (pixels / self.scale if self.scale.ndim else pixels).permute(0, 3, 1, 2)
        features, maps = self.backbone.pool_with_maps(images)
        weights, biases = whitening[::2], whitening[1::2]
        last = maps[len(maps) - len(weights) :]
        return features, *[
            F.conv2d(one, weight, bias).square().mean(1)
            for one, weight, bias in zip(last, weights, biases, strict=True)
        ]


def fold_normalization(convolution: nn.Module, *, grey: Tensor, mean: Tensor, std: Tensor) -> nn.Conv2d:
    """Builds the first convolution over pixels from which the mean colour was subtracted, and a fourth channel of ones.

    These are whole numbers, which bf16 holds exactly; normalized pixels it would round. Zero padding stands for the
    mean colour still: the ones end at the photo's edge, and their weights make up for the mean's fraction.

    Args:
        convolution: over normalized pixels, without groups.
        grey: (3,) the mean colour, whole numbers in 0..255.
        mean: (3, 1, 1) of colours in 0..1.
        std: (3, 1, 1) that divides them.

    Raises:
        ValueError: the first layer is no such convolution.
    """
    if not isinstance(convolution, nn.Conv2d) or convolution.groups != 1:
        raise ValueError(f"needed a first layer that is a convolution without groups, got {convolution}")
    raw = convolution.weight.detach() / (255 * std)
    lost = (raw * (grey.view(3, 1, 1) - 255 * mean)).sum(1, keepdim=True)
    folded = nn.Conv2d(
        BYTES_PER_PIXEL,
        convolution.out_channels,
        (raw.shape[2], raw.shape[3]),
        stride=(convolution.stride[0], convolution.stride[1]),
        padding=convolution.padding,  # type: ignore[arg-type]  # what torch itself keeps there
        dilation=(convolution.dilation[0], convolution.dilation[1]),
        bias=convolution.bias is not None,
    )
    state = {"weight": torch.cat([raw, lost], dim=1)}
    folded.load_state_dict(state if convolution.bias is None else state | {"bias": convolution.bias.detach()})
    return folded


def choose_settings(threads: int) -> dict[str, object]:
    """Chooses OpenVINO's settings for a process with so many threads.

    Without the last one each process of a node ties its threads to the same first cores.
    """
    return {
        "INFERENCE_PRECISION_HINT": "bf16",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
