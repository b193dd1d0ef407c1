"""Command: measures speed against something else in the same run, and writes what it finds to build/bench-*.json.

``python -m jobs.benchmark <name>``; each benchmark has settings of its own. Ratios come from passes that run in turns:
CPU seconds where one process does the work, wall seconds where several do.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from jobs.benchmarks.config import (
    FidelityBenchmarkConfig,
    GpuBenchmarkConfig,
    JobBenchmarkConfig,
    LocalizationBenchmarkConfig,
    NetworkBenchmarkConfig,
    NightsBenchmarkConfig,
    PlacesBenchmarkConfig,
    ReproductionBenchmarkConfig,
    ScaleBenchmarkConfig,
    TrainingBenchmarkConfig,
)
from jobs.benchmarks.engines.config import EnginesBenchmarkConfig
from jobs.benchmarks.peers.config import PeersBenchmarkConfig
from jobs.cli import parse_config, run_command
from jobs.config import JobConfig
from jobs.errors import EXIT_DONE, RequestError


@dataclass(frozen=True)
class Benchmark:
    """A sub-command.

    Attributes:
        config: its settings; the first line of their docstring says what it measures.
        measure: ``module:function`` that takes the settings, measures and writes. It is imported when it is asked for:
            torch, Ray and anomalib take seconds, which ``--help`` need not wait for.
    """

    config: type[JobConfig]
    measure: str


BENCHMARKS = {
    "network": Benchmark(NetworkBenchmarkConfig, "jobs.benchmarks.network:measure_network"),
    "gpu": Benchmark(GpuBenchmarkConfig, "jobs.benchmarks.devices.throughput:measure_gpu"),
    "fidelity": Benchmark(FidelityBenchmarkConfig, "jobs.benchmarks.fidelity:measure_fidelity"),
    "job": Benchmark(JobBenchmarkConfig, "jobs.benchmarks.job:measure_job"),
    "engines": Benchmark(EnginesBenchmarkConfig, "jobs.benchmarks.engines.run:measure_engines"),
    "places": Benchmark(PlacesBenchmarkConfig, "jobs.benchmarks.places:measure_places"),
    "training": Benchmark(TrainingBenchmarkConfig, "jobs.benchmarks.training:measure_training"),
    "scale": Benchmark(ScaleBenchmarkConfig, "jobs.benchmarks.scale:measure_scale"),
    "nights": Benchmark(NightsBenchmarkConfig, "jobs.benchmarks.nights:measure_nights"),
    "reproduction": Benchmark(ReproductionBenchmarkConfig, "jobs.benchmarks.reproduction.run:measure_reproduction"),
    "localization": Benchmark(LocalizationBenchmarkConfig, "jobs.benchmarks.localization.run:measure_localization"),
    "peers": Benchmark(PeersBenchmarkConfig, "jobs.benchmarks.peers.run:measure_peers"),
}


def main(argv: Sequence[str]) -> int:
    """Runs the benchmark that the first argument names; without one, or with ``--help``, lists them.

    Raises:
        RequestError: no such benchmark, or wrong flags for it.
    """
    if not argv or argv[0] in {"-h", "--help"}:
        print(describe_benchmarks())
        return EXIT_DONE
    name, *flags = argv
    if name not in BENCHMARKS:
        raise RequestError(f"expected one of {', '.join(BENCHMARKS)}, got {name!r}; see --help")
    benchmark = BENCHMARKS[name]
    config = parse_config(benchmark.config, flags, prog=f"python -m jobs.benchmark {name}")
    if name == "peers":
        require_anomalib()
    measure: Callable[[JobConfig], None] = pkgutil.resolve_name(benchmark.measure)
    measure(config)
    return EXIT_DONE


def describe_benchmarks() -> str:
    """Returns the help text: a line for each benchmark."""
    lines = [
        f"  {name:<14}{(benchmark.config.__doc__ or '').splitlines()[0]}" for name, benchmark in BENCHMARKS.items()
    ]
    usage = "usage: python -m jobs.benchmark <benchmark> [--config FILE.yaml] [--help] [flags]"
    return "\n".join([usage, "", "benchmarks:", *lines])


def require_anomalib() -> None:
    """Raises RequestError where anomalib is not installed."""
    if find_spec("anomalib") is None:
        raise RequestError(
            "needed anomalib, which is not installed: use `make bench-peers`, or install the extra `peers`"
        )


if __name__ == "__main__":
    run_command(main)
