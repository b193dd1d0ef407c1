"""Whether the cluster has what a command asks for: a clear refusal, or a line while it grows, never a silent wait."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import ray
from ray.autoscaler.sdk import request_resources
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.experimental.internal_kv import _internal_kv_get  # Ray's own commands have no other way to the monitor's word

from jobs.cluster.progress import LINE_INTERVAL_S
from jobs.errors import RequestError

_STATUS_KEY = "__autoscaling_status"
"""Where Ray's monitor says what nodes there are."""
_FIXED_NODE = "node_"
"""Beginning of a node type that the monitor makes up where nodes were started by hand."""

Resources = Mapping[str, float]
"""Amount by Ray's names: CPU, GPU."""


@dataclass(frozen=True)
class Demand:
    """What a command needs at the same time.

    Attributes:
        flags: what asks for it, as on the command line.
        bundle: of one process, which has to fit on one node.
        count: of such processes.
        beside: what other work needs, on any node.
    """

    flags: str
    bundle: Resources
    count: int = 1
    beside: Resources = field(default_factory=dict)


def wait_for_resources(demand: Demand) -> None:
    """Returns once the cluster has what is needed, whether it is free or not; at once where it has.

    A cluster that may grow is asked to, and a line says what is waited for. Ray must be running.

    Raises:
        RequestError: the cluster has less and cannot grow.
    """
    shortage = find_shortage(demand, list_nodes())
    if shortage is None:
        return
    if not may_grow():
        raise RequestError(f"{demand.flags} needs {shortage}: ask for less, or take a larger cluster (RAY_ADDRESS)")
    request_resources(bundles=[dict(demand.bundle)] * demand.count)
    try:
        while shortage is not None:
            print(f"waiting for {shortage}", flush=True)
            time.sleep(LINE_INTERVAL_S)
            shortage = find_shortage(demand, list_nodes())
    finally:
        request_resources(bundles=[])  # what is used keeps its nodes


def find_shortage(demand: Demand, nodes: Sequence[Resources]) -> str | None:
    """Says what is needed and what there is, "1 GPU, the cluster has 0"; None where there is enough.

    Args:
        demand: what is needed.
        nodes: resources of each node.
    """
    short = []
    for name in {**demand.bundle, **demand.beside}:
        needed = demand.bundle.get(name, 0) * demand.count + demand.beside.get(name, 0)
        there = sum(node.get(name, 0) for node in nodes)
        if there < needed:
            short.append(f"{needed:g} {name}, the cluster has {there:g}")
    if short:
        return "; ".join(short)
    if sum(count_fitting(demand.bundle, node) for node in nodes) < demand.count:
        one = " and ".join(f"{amount:g} {name}" for name, amount in demand.bundle.items())
        return f"{demand.count} times {one} on one node, the cluster's nodes are smaller"
    return None


def count_fitting(bundle: Resources, node: Resources) -> int:
    """Counts the processes of one bundle that fit on a node."""
    return min(int(node.get(name, 0) / amount + 1e-9) for name, amount in bundle.items() if amount > 0)


def list_nodes() -> list[Resources]:
    """Returns the resources of each node that is alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def may_grow() -> bool:
    """Says whether an autoscaler adds nodes to this cluster; false for one of our own, or one started by hand."""
    if is_autoscaler_v2(fetch_from_server=True):  # KubeRay turns it on where it scales
        return True
    status = _internal_kv_get(_STATUS_KEY)
    report = json.loads(status).get("autoscaler_report") if status else None
    types = (report or {}).get("active_nodes") or {}
    return any(not name.startswith(_FIXED_NODE) for name in types)
