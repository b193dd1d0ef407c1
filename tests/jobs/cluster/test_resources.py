"""A command that asks for more than the cluster has says so: it ends, or it waits aloud for a cluster that grows."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from jobs.cluster import resources
from jobs.cluster.datasets import (
    count_most_scoring_actors,
    count_scoring_actors,
    make_actor_pool,
    wait_for_scoring_resources,
)
from jobs.cluster.resources import Demand, find_shortage, may_grow, wait_for_resources
from jobs.config import ScoringResources
from jobs.errors import RequestError

GPU = Demand("--use-gpu", {"CPU": 1, "GPU": 1})


@pytest.mark.parametrize(
    ("demand", "nodes", "said"),
    [
        (GPU, [{"CPU": 8.0}], "1 GPU, the cluster has 0"),
        (GPU, [{"CPU": 8.0, "GPU": 1.0}], None),
        (Demand("--workers 9", {"CPU": 1}, 9), [{"CPU": 4.0}, {"CPU": 4.0}], "9 CPU, the cluster has 8"),
        (Demand("--scoring.actors 8", {"CPU": 1}, 8, {"CPU": 0.5}), [{"CPU": 8.0}], "8.5 CPU, the cluster has 8"),
        (Demand("--workers 4", {"CPU": 1, "GPU": 0.5}, 4), [{"CPU": 8.0, "GPU": 2.0}], None),
        (
            Demand("--gpus-per-worker 2", {"CPU": 1, "GPU": 2}),
            [{"CPU": 8.0, "GPU": 1.0}] * 2,
            "1 times 1 CPU and 2 GPU on one node, the cluster's nodes are smaller",
        ),
        (GPU, [], "1 CPU, the cluster has 0; 1 GPU, the cluster has 0"),
    ],
)
def test_a_shortage_names_what_is_needed_and_what_there_is(
    demand: Demand, nodes: list[dict[str, float]], said: str | None
) -> None:
    assert find_shortage(demand, nodes) == said


def test_a_cluster_that_cannot_grow_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "list_nodes", lambda: [{"CPU": 8.0}])
    monkeypatch.setattr(resources, "may_grow", lambda: False)
    with pytest.raises(RequestError, match=r"^--use-gpu needs 1 GPU, the cluster has 0: ask for less"):
        wait_for_resources(GPU)


def test_a_cluster_that_grows_is_asked_to_and_waited_for_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = iter([[{"CPU": 8.0}], [{"CPU": 8.0}], [{"CPU": 8.0}, {"CPU": 4.0, "GPU": 1.0}]])
    asked: list[Any] = []
    monkeypatch.setattr(resources, "list_nodes", lambda: next(seen))
    monkeypatch.setattr(resources, "may_grow", lambda: True)
    monkeypatch.setattr(resources, "LINE_INTERVAL_S", 0)
    monkeypatch.setattr(resources, "request_resources", lambda bundles: asked.append(bundles))
    wait_for_resources(GPU)
    assert capsys.readouterr().out.splitlines() == ["waiting for 1 GPU, the cluster has 0"] * 2
    assert asked == [[{"CPU": 1, "GPU": 1}], []]


@pytest.mark.usefixtures("cluster")
def test_a_local_cluster_does_not_grow() -> None:
    assert not may_grow()
    with pytest.raises(RequestError, match="needs 3 GPU, the cluster has 2"):
        wait_for_resources(Demand("--workers 3 --use-gpu", {"GPU": 1}, 3))


@pytest.mark.parametrize(("node", "grows"), [("node_5f3a", False), ("gpu-workers", True)])
def test_an_autoscaler_is_known_by_the_types_of_its_nodes(
    monkeypatch: pytest.MonkeyPatch, node: str, *, grows: bool
) -> None:
    status = f'{{"autoscaler_report": {{"active_nodes": {{"{node}": 1}}}}}}'
    monkeypatch.setattr(resources, "is_autoscaler_v2", lambda *, fetch_from_server: False)
    monkeypatch.setattr(resources, "_internal_kv_get", lambda key: status.encode())
    assert may_grow() == grows


def find_room(monkeypatch: pytest.MonkeyPatch, **there: float) -> None:
    """Gives the cluster these resources, on two nodes."""
    monkeypatch.setattr("ray.cluster_resources", lambda: there)
    monkeypatch.setattr("ray.nodes", lambda: [{}, {}])


def test_scoring_actors_of_a_cluster_that_scales_are_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    find_room(monkeypatch, CPU=4.0)
    pool = make_actor_pool(ScoringResources(actors=2, max_actors=9))
    assert (pool.min_size, pool.max_size) == (2, 9)
    pool = make_actor_pool(ScoringResources(max_actors=9))
    assert (pool.min_size, pool.max_size) == (3, 9)  # what there is room for now
    assert count_most_scoring_actors(ScoringResources(max_actors=9)) == 9
    pool = make_actor_pool(ScoringResources())
    assert (pool.min_size, pool.max_size) == (3, 3)


def test_scoring_actors_share_a_gpu_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    find_room(monkeypatch, CPU=16.0, GPU=2.0)
    assert count_scoring_actors(ScoringResources(use_gpu=True)) == 2
    assert count_scoring_actors(ScoringResources(use_gpu=True, gpus_per_actor=0.1)) == 20
    monkeypatch.setattr(resources, "list_nodes", lambda: [{"CPU": 16.0, "GPU": 2.0}])
    monkeypatch.setattr(resources, "may_grow", lambda: False)
    wait_for_scoring_resources(ScoringResources(use_gpu=True, gpus_per_actor=0.25, actors=8))
    with pytest.raises(RequestError, match=r"needs 2\.25 GPU, the cluster has 2"):
        wait_for_scoring_resources(ScoringResources(use_gpu=True, gpus_per_actor=0.25, actors=9))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"actors": 4, "max_actors": 3}, "max_actors 3 is less than actors 4"),
        ({"gpus_per_actor": 0.5}, "give --scoring.use-gpu too"),
        ({"use_gpu": True, "gpus_per_actor": 1.5}, "less than or equal to 1"),
    ],
)
def test_shares_that_cannot_be_are_refused(asked: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ScoringResources(**asked)
