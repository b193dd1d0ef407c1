"""A cluster of Ray of a test's own, of two nodes on this machine, which may lose one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from ray.cluster_utils import Cluster

from jobs import storage


@contextmanager
def serve_two_nodes() -> Iterator[Any]:
    """Runs a head and a node, ``spare``, of four CPUs each, which end with the block."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in storage.make_worker_environment().items():
            patch.setenv(name, value)
        running = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 4, "object_store_memory": 200_000_000, "include_dashboard": False},
        )
        try:
            running.spare = running.add_node(num_cpus=4, object_store_memory=200_000_000)
            yield running
        finally:
            running.shutdown()
