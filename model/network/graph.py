"""A network as a graph of named nodes that ends at the maps to pool, with attention after any of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ATTENDED = "attended"
"""Key of a node's ``meta`` for an `Attended`. Names of nodes change when a graph is copied."""


@dataclass(frozen=True)
class Attended:
    """Which attention follows a node.

    Attributes:
        stage: whose.
        has_channels_last: the node gives maps (N, h, w, C), as Swin does.
    """

    stage: str
    has_channels_last: bool = False


@dataclass(frozen=True)
class StagedNetwork:
    """Layers and the order in which they run.

    Attributes:
        layers: what the graph calls, by the names that the network's own weights have.
        graph: from images (N, 3, S, S) to a dictionary of the outputs of the finer stage and the pooled ones.
        channels: of each stage that is pooled or can have attention.
        pooled: the stages that are pooled, in this order.
        finer: at most one stage before them, whose maps come out too, for they say more precisely where.
    """

    layers: nn.Module
    graph: fx.Graph
    channels: Mapping[str, int]
    pooled: tuple[str, ...]
    finer: tuple[str, ...] = ()


def chain_layers(layers: nn.Sequential, ends: Mapping[str, int], *, pooled: Sequence[str]) -> fx.Graph:
    """Builds the graph of layers that run one after the other, up to the last pooled stage.

    Args:
        layers: what runs.
        ends: stage -> number of layers up to its end; its attention follows there.
        pooled: stages whose maps come out.
    """
    graph, outputs = fx.Graph(), {}
    maps = graph.placeholder("images")
    stages = {end: stage for stage, end in ends.items()}
    for index, _ in enumerate(islice(layers, max(ends[stage] for stage in pooled))):
        maps = graph.call_module(str(index), (maps,))
        if (stage := stages.get(index + 1)) is not None:
            maps.meta[ATTENDED] = Attended(stage)
            outputs[stage] = maps
    graph.output({stage: outputs[stage] for stage in pooled})
    return graph


def run_graph(
    layers: nn.Module, graph: fx.Graph, images: Tensor, *, attention: Mapping[str, nn.Module]
) -> dict[str, Tensor]:
    """Runs a graph: the maps (N, C, h, w) of the stages that come out.

    Args:
        layers: what it calls.
        graph: of a `StagedNetwork`.
        images: (N, 3, S, S).
        attention: blocks by stage; none leaves them all out.
    """
    found: dict[str, Tensor] = _AttentiveRun(layers, graph, attention).run(images)
    return found


class _AttentiveRun(fx.Interpreter):
    """Runs nodes one by one, and the attention of those that have some."""

    def __init__(self, layers: nn.Module, graph: fx.Graph, attention: Mapping[str, nn.Module]) -> None:
        super().__init__(layers, graph=graph)
        self._attention = attention

    def run_node(self, n: fx.Node) -> Any:
        output, followed = super().run_node(n), n.meta.get(ATTENDED)
        if followed is None or followed.stage not in self._attention:
            return output
        is_last = followed.has_channels_last
        maps = self._attention[followed.stage](arrange_as_maps(output, has_channels_last=is_last))
        return restore_arrangement(maps, dimensions=output.ndim, has_channels_last=is_last)


def arrange_as_maps(output: Tensor, *, has_channels_last: bool) -> Tensor:
    """Arranges what a node gives as (N, C, h, w): vectors (N, C) have one position, tokens (N, L, C) are a column."""
    if output.ndim == 4:
        return output.permute(0, 3, 1, 2) if has_channels_last else output
    return output.transpose(1, 2).unsqueeze(-1) if output.ndim == 3 else output[:, :, None, None]


def restore_arrangement(maps: Tensor, *, dimensions: int, has_channels_last: bool) -> Tensor:
    """Arranges maps (N, C, h, w) as the output of so many dimensions that `arrange_as_maps` made them of."""
    if dimensions == 4:
        return maps.permute(0, 2, 3, 1) if has_channels_last else maps
    return maps.flatten(2).transpose(1, 2) if dimensions == 3 else maps.flatten(1)


def find_first_convolution(layers: nn.Module, graph: fx.Graph) -> str | None:
    """Returns the name of the convolution without groups that is all that sees the images; None where there is none."""
    images = next(iter(graph.nodes))
    users = list(images.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    layer = layers.get_submodule(str(users[0].target))
    return str(users[0].target) if type(layer) is nn.Conv2d and layer.groups == 1 else None


def fold_batch_norms(layers: nn.Module, graph: fx.Graph) -> fx.GraphModule:
    """Folds each batch norm into the convolution before it, if nothing else sees that: the same features, sooner.

    Args:
        layers: in evaluation mode; not changed.
        graph: what calls them; not changed.
    """
    found = fx.GraphModule(layers, copy_graph(graph))
    for convolution, norm in list_foldable(found, found.graph):
        name, other = str(convolution.target), str(norm.target)
        parts = found.get_submodule(name), found.get_submodule(other)
        folded = fuse_conv_bn_eval(*parts)  # type: ignore[arg-type, type-var]  # `list_foldable` saw
        found.set_submodule(name, folded)
        convolution.meta.update(norm.meta)
        norm.replace_all_uses_with(convolution)
        found.graph.erase_node(norm)
    found.delete_all_unused_submodules()
    found.recompile()
    return found


def copy_graph(graph: fx.Graph) -> fx.Graph:
    """Copies a graph; what it calls is looked up by name in whatever it runs on."""
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph, {}))
    return copied


def list_foldable(layers: nn.Module, graph: fx.Graph) -> list[tuple[fx.Node, fx.Node]]:
    """Lists the pairs of a convolution and the batch norm behind it that can be folded.

    Neither is called twice, and attention that stands between them keeps them apart.
    """
    calls = [node for node in graph.nodes if node.op == "call_module"]
    targets = [node.target for node in calls]
    once = [node for node in calls if targets.count(node.target) == 1]
    return [
        (node.args[0], node)
        for node in once
        if type(layers.get_submodule(str(node.target))) is nn.BatchNorm2d  # timm's own has an activation behind it
        and isinstance(node.args[0], fx.Node)
        and node.args[0] in once
        and isinstance(layers.get_submodule(str(node.args[0].target)), nn.Conv2d)
        and len(node.args[0].users) == 1
        and ATTENDED not in node.args[0].meta
    ]


@torch.no_grad()
def trace_shapes(layers: nn.Module, graph: fx.Graph, *, side_px: int) -> dict[str, torch.Size]:
    """Returns the shape of each output that has 2 to 4 dimensions for one photo of ``side_px``, computing nothing.

    Raises:
        ValueError: the network takes no photo of this side; the message is the reason, in one line.
    """
    images = torch.empty(1, 3, side_px, side_px, device="meta")
    try:
        found = fx.Interpreter(layers, graph=graph).run(images)
    except (RuntimeError, AssertionError, ValueError, TypeError, IndexError) as error:
        raise ValueError((str(error).splitlines() or [type(error).__name__])[0]) from error
    return {name: one.shape for name, one in found.items() if isinstance(one, Tensor) and 1 < one.ndim < 5}
