"""Verb: how fast scoring is next to anomalib's PatchCore and FastFlow, and how well each finds defects.

``make bench-peers`` has the environment for it (extra ``peers``); figures go to build/bench-peers.json.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from jobs.benchmarks.peers.config import PeersConfig
from jobs.cli import parse_config, run_command
from jobs.errors import RequestError


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.benchmarks.peers.run.run` and returns the exit code."""
    config = parse_config(PeersConfig, argv, prog="python -m jobs.benchmark_peers")
    require_anomalib()
    from jobs.benchmarks.peers.run import run  # torch and anomalib take seconds, which --help need not wait for

    return run(config)


def require_anomalib() -> None:
    """Raises RequestError where anomalib is not installed."""
    if find_spec("anomalib") is None:
        raise RequestError(
            "needed anomalib, which is not installed: use `make bench-peers`, or install the extra `peers`"
        )


if __name__ == "__main__":
    run_command(main)
