"""Head nodes of Ray of a test's own, with a dashboard, as `ray job submit` and jobs.nightly need them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

RAY = str(Path(sys.executable).parent / "ray")
START_TIMEOUT_S = 300.0
"""A head takes 10 s, and two minutes on a machine with twenty busy processes."""


def find_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Head:
    """A head node, which ends with `stop`; started again it has the same ports and knows nothing of before.

    ``folder``: where its sockets are, a short name. ``environment``: variables that its jobs have, too, such as those
    of a storage.
    """

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    ports: list[int] = field(default_factory=lambda: [find_free_port() for _ in range(5)])
    node: subprocess.Popen[str] | None = None

    @property
    def address(self) -> str:
        """Where its dashboard answers."""
        return f"http://127.0.0.1:{self.ports[0]}"

    @property
    def metrics(self) -> str:
        """Where its metrics are, for Prometheus."""
        return f"http://127.0.0.1:{self.ports[3]}/metrics"

    def start(self) -> None:
        dashboard, gcs, agent, metrics, client = map(str, self.ports)
        argv = [RAY, "start", "--head", "--block", "--num-cpus", "8", "--object-store-memory", "200000000"]
        argv += ["--port", gcs, "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent]
        argv += ["--metrics-export-port", metrics, "--ray-client-server-port", client]  # else 10001, of all heads
        argv += ["--temp-dir", str(self.folder), "--disable-usage-stats"]
        own = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_ADDRESS"))}
        own |= {"RAY_AUTH_MODE": "disabled", "RAY_worker_niceness": "0", "RAY_metrics_report_interval_ms": "500"}
        own |= self.environment
        self.node = subprocess.Popen(argv, env=own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self._wait_until_it_answers(f"{self.address}/api/version")

    def stop(self) -> None:
        if self.node is not None:
            self.node.terminate()
            self.node.communicate(timeout=60)
            self.node = None

    def _wait_until_it_answers(self, url: str) -> None:
        assert self.node is not None
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                if self.node.poll() is not None:
                    pytest.fail(f"the head node ended: {self.node.communicate()[0]}")
                time.sleep(0.2)  # the pace of asking
        pytest.fail(f"the head node's dashboard did not answer within {START_TIMEOUT_S:g} s")


@contextmanager
def serve_head(environment: dict[str, str] | None = None) -> Iterator[Head]:
    """Runs a head node, which ends with the block; see `Head` for its environment.

    The path of a socket has 107 bytes at most, and those below pytest's folders have more where two processes test.
    """
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        head = Head(Path(folder), environment or {})
        try:
            head.start()
            yield head
        finally:
            head.stop()
