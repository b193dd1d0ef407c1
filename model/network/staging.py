"""Any library's network, cut at its pooled stages without a line of code for it.

A stage is a node of the network's graph, or what a node's name begins with, such as ``layer2``: then it is the last
such node. ``stride8`` is the last block whose maps are an eighth of the photo a side.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import fx, nn

from model.network.graph import (
    ATTENDED,
    Attended,
    StagedNetwork,
    arrange_as_maps,
    fold_batch_norms,
    trace_shapes,
)
from model.network.libraries import (
    build_whole_network,
    build_without_weights,
    choose_tracer,
    list_nodes,
    suggest_name,
)

DEFAULT_STRIDES = ("stride8", "stride16")
"""Pooled where no stage is named, as far as a network has them."""

FINER_STRIDE = "stride4"
"""Mapped beside the pooled stages where all of these are coarser."""

_STRIDES = (2, 4, 8, 16, 32)
_PROBED_PX = (224, 256, 384, 512, 518)  # nearly every network takes one of them
_MAX_PX = 1024


def build_staged_network(plan: StagedNetwork, name: str) -> StagedNetwork:
    """Builds what `plan_network` planned, its batch norms folded, with random weights from torch's generator."""
    is_meta = torch.get_default_device().type == "meta"
    network = copy.deepcopy(build_without_weights(name)) if is_meta else build_whole_network(name)
    layers = fold_batch_norms(network, plan.graph)
    return StagedNetwork(layers, layers.graph, plan.channels, plan.pooled, plan.finer)


@lru_cache(maxsize=32)
def plan_network(
    name: str, pooled: tuple[str, ...], attended: tuple[str, ...], sides_px: tuple[int, ...]
) -> StagedNetwork:
    """Plans a network up to its pooled stages: shapes without values, batch norms as the library has them.

    Args:
        name: of torchvision or, after ``timm/``, of timm.
        pooled: stages whose maps come out; none stands for DEFAULT_STRIDES.
        attended: stages that attention follows.
        sides_px: of the photos that it will see, largest first.

    Raises:
        ValueError: no such network or stage, attention that no pooled stage sees, or a side that it does not take.
    """
    with torch.device("meta"):
        network = build_without_weights(name)
        taken = pooled or tuple(stage for stage in DEFAULT_STRIDES if stage in list_strides(name))
        finer = (FINER_STRIDE,) if FINER_STRIDE in list_strides(name) else ()
        nodes = {stage: find_node(name, stage) for stage in (*finer, *taken, *attended)}
        traced = choose_tracer(name)[0](network, {node: node for node in nodes.values()})
        check_sides(name, traced, sides_px)
        layouts = read_layouts(traced, sides_px[0])
        if hidden := [stage for stage, node in nodes.items() if node not in layouts]:
            raise ValueError(f"stage {hidden[0]} of {name} gives no maps")
        positions = count_positions(traced, layouts, side_px=sides_px[0])
        if finer and positions[nodes[FINER_STRIDE]] <= max(positions[nodes[stage]] for stage in taken):
            finer = ()
        graph = end_graph(
            traced,
            pooled={stage: nodes[stage] for stage in (*finer, *taken)},
            attended={stage: nodes[stage] for stage in attended},
            layouts=layouts,
        )
        channels = {stage: layouts[node].channels for stage, node in nodes.items()}
        return StagedNetwork(network, graph, channels, taken, finer)


@dataclass(frozen=True)
class Layout:
    """What a node gives: maps of so many channels, in the first or the last place."""

    channels: int
    has_channels_last: bool


def read_layouts(traced: fx.GraphModule, side_px: int) -> dict[str, Layout]:
    """Reads the layout of each output from photos of two sides: at one alone, channels may equal a side of the map."""
    shapes = trace_shapes(traced, traced.graph, side_px=side_px)
    larger = trace_shapes(traced, traced.graph, side_px=2 * side_px) if takes_side(traced, 2 * side_px) else shapes
    found = {}
    for name, shape in shapes.items():
        both = [shape, larger[name]]
        is_last = len(shape) == 3 or (len(shape) == 4 and any(one[1] == one[2] != one[3] for one in both))
        found[name] = Layout(shape[-1] if is_last else shape[1], is_last)
    return found


def count_positions(traced: fx.GraphModule, layouts: Mapping[str, Layout], *, side_px: int) -> dict[str, int]:
    """Counts the positions of each output's map, for photos of a side."""
    shapes = trace_shapes(traced, traced.graph, side_px=side_px)
    return {name: math.prod(shape[1:]) // layouts[name].channels for name, shape in shapes.items()}


def end_graph(
    traced: fx.GraphModule,
    *,
    pooled: Mapping[str, str],
    attended: Mapping[str, str],
    layouts: Mapping[str, Layout],
) -> fx.Graph:
    """Returns the graph up to the pooled stages as maps (N, C, h, w), with the attended nodes marked.

    Args:
        traced: a network, with every stage's node among its outputs.
        pooled: stage -> node.
        attended: stage -> node.
        layouts: by node.

    Raises:
        ValueError: no pooled stage sees an attended one.
    """
    outputs = next(node for node in reversed(traced.graph.nodes) if node.op == "output").args[0]
    graph, copies = fx.Graph(), dict[fx.Node, fx.Node]()
    graph.graph_copy(traced.graph, copies)
    for stage, name in attended.items():
        copies[outputs[name]].meta[ATTENDED] = Attended(stage, layouts[name].has_channels_last)
    ends = {}
    for stage, name in pooled.items():
        is_last = layouts[name].has_channels_last
        ends[stage] = graph.call_function(arrange_as_maps, (copies[outputs[name]],), {"has_channels_last": is_last})
    graph.output(ends)
    ended = fx.GraphModule(traced, graph).graph
    ended.eliminate_dead_code()
    left = {node.meta[ATTENDED].stage for node in ended.nodes if ATTENDED in node.meta}
    if unused := [stage for stage in attended if stage not in left]:
        where = "+".join(pooled)
        raise ValueError(f"attention after {', '.join(unused)} has no effect: features are pooled after {where}")
    return ended


def find_node(name: str, stage: str) -> str:
    """Returns the node of a stage, or the part of its name that stands for its last node.

    Raises:
        ValueError: the network has none; the message has the names of its parts.
    """
    nodes = list_nodes(name)
    if stage in nodes[1:] or any(node.startswith(f"{stage}.") for node in nodes):
        return stage
    if stage in (strides := list_strides(name)):
        return strides[stage]
    parts = list_parts(name)
    near = suggest_name(stage, [*nodes, *parts])
    shown = [*strides, *(part for part in parts if "." not in part)]
    raise ValueError(f"{name} has no stage {stage!r}{near or ', expected a node of it or one of ' + ', '.join(shown)}")


def list_parts(name: str) -> list[str]:
    """Lists the blocks of a network, first to last: its own modules, and those that a sequence of it has."""
    network = build_without_weights(name)
    modules = dict(network.named_modules())
    found = []
    for node in list_nodes(name)[1:]:
        whole, *inner = node.split(".")[:2]
        part = f"{whole}.{inner[0]}" if inner else whole
        if isinstance(modules.get(whole), nn.Sequential | nn.ModuleList) and part in modules:
            found.append(part)
        found.append(whole)
    return [part for part in dict.fromkeys(found) if part in modules and not part.startswith("classifier")]


@lru_cache(maxsize=32)
def list_strides(name: str) -> dict[str, str]:
    """Returns the last block of each resolution: ``stride8`` -> ``layer2``."""
    with torch.device("meta"):
        traced = choose_tracer(name)[0](build_without_weights(name), {part: part for part in list_parts(name)})
        side = next((px for px in _PROBED_PX if takes_side(traced, px)), _PROBED_PX[0])
        shapes = trace_shapes(traced, traced.graph, side_px=side)
        layouts = read_layouts(traced, side)
    positions = {part: math.prod(shape[1:]) // layouts[part].channels for part, shape in shapes.items()}
    nearest = {part: 2 ** round(math.log2(side / math.sqrt(count))) for part, count in positions.items()}
    return {
        f"stride{stride}": shorten_part([part for part, found in nearest.items() if found == stride])
        for stride in _STRIDES
        if stride in nearest.values()
    }


def shorten_part(parts: Sequence[str]) -> str:
    """Returns the last of several parts of a network, or the whole part that it ends."""
    last = parts[-1]
    whole = last.split(".")[0]
    return whole if whole in parts else last


def check_sides(name: str, traced: fx.GraphModule, sides_px: Sequence[int]) -> None:
    """Checks that a network takes photos of each side.

    Raises:
        ValueError: it does not; the message has the nearest side that it takes and the image_size that gives it.
    """
    for scale, side in enumerate(sides_px):
        if not takes_side(traced, side):
            upwards, downwards = range(side + 1, _MAX_PX + 1), range(side - 1, 0, -1)
            taken = next((px for px in (*upwards, *downwards) if takes_side(traced, px)), None)
            enough = "" if taken is None else f": it takes {taken} px, an image_size of {taken * 2**scale}"
            raise ValueError(f"{name} takes no photo of {side} px, scale {scale + 1} of {len(sides_px)}{enough}")


def takes_side(traced: fx.GraphModule, side_px: int) -> bool:
    """Tells whether a network takes photos of so many pixels a side."""
    try:
        trace_shapes(traced, traced.graph, side_px=side_px)
    except ValueError:
        return False
    return True
