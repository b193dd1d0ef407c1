"""How fast a fleet of so many GPUs or cores could score, and what stops one run before that.

    fleet    = GPUs / gpu_ms (cores as many as they need), or cores * used_share / cpu_ms
    network  = nodes * node_gbit / photo_mb
    requests = gets_per_s,  driver = 1 / driver_us_per_row,  listing = 1 / list_us_per_key
    commits  = 1 / (commit_us_per_row + commit_s / slice_photos)

All are photos a second. The stages work at the same time and hand over through bounded queues, so that over a long run
the slowest alone sets the pace. Requests are those of the bucket's prefixes, the three after them are those of one run:
several runs over parts of the archive, with results of their own, add up.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jobs.sizing.config import CapacityConfig
from jobs.sizing.plan import MB_PER_GBIT, compute_photo_costs
from jobs.sizing.quantities import format_quantity
from jobs.sizing.report import align_right

PER_RUN = ("driver", "commits", "listing")
"""What a second run has a second one of."""
_HEADER = ("GPUs", "cores", "nodes", "could make/s", "GB/s", "one run makes/s", "and waits for", "runs side by side")


@dataclass(frozen=True)
class Fleet:
    """What so many workers could do.

    Attributes:
        gpus: of all workers, 0 without.
        cores: of all workers: with GPUs as many as keep them busy.
        nodes: workers.
        photos_per_s: what GPUs and cores could do, were they all that counts.
        gb_per_s: from storage, at that pace.
        limits: stage -> photos a second that it lets through.
    """

    gpus: int
    cores: int
    nodes: int
    photos_per_s: float
    gb_per_s: float
    limits: dict[str, float]

    @property
    def slowest(self) -> str:
        """Returns the stage that one run waits for."""
        return min({"fleet": self.photos_per_s} | self.limits, key=lambda name: self.allow(name))

    @property
    def run_per_s(self) -> float:
        """Returns the photos a second of one run."""
        return self.allow(self.slowest)

    @property
    def runs(self) -> int:
        """Returns how many runs side by side it takes until none waits for what is its own, at least one."""
        return max(1, math.ceil(self.photos_per_s / min(self.limits[name] for name in PER_RUN)))

    def allow(self, stage: str) -> float:
        """Returns the photos a second that a stage lets through."""
        return self.photos_per_s if stage == "fleet" else self.limits[stage]


def size_fleet(workers: int, config: CapacityConfig) -> Fleet:
    """Computes what a fleet of so many GPUs could do, or of so many cores where no GPU is asked for."""
    costs, photo = config.costs, compute_photo_costs(config)
    if config.use_gpu:
        photos_per_s = workers * 1000 / photo.gpu_ms
        cores = math.ceil(photos_per_s * photo.cpu_ms / 1000 / costs.used_share)
    else:
        cores, photos_per_s = workers, workers * costs.used_share * 1000 / photo.cpu_ms
    nodes = math.ceil(cores / config.node_cores)
    limits = {
        "network": nodes * config.node_gbit * MB_PER_GBIT / photo.mb,
        "requests": config.gets_per_s,
        "driver": invert(costs.driver_us_per_row / 1e6),
        "commits": invert(costs.commit_us_per_row / 1e6 + costs.commit_s / config.slice_photos),
        "listing": invert(costs.list_s_per_million / 1e6),
    }
    gpus = workers if config.use_gpu else 0
    return Fleet(gpus, cores, nodes, photos_per_s, photos_per_s * photo.mb / 1000, limits)


def invert(seconds: float) -> float:
    """Returns what is done in a second; endless where it takes no time."""
    return 1 / seconds if seconds else math.inf


def describe_fleet(fleet: Fleet) -> dict[str, Any]:
    """Returns a fleet as JSON; a stage that takes no time has the limit null, for JSON has no infinity."""
    limits = {name: per_s if math.isfinite(per_s) else None for name, per_s in fleet.limits.items()}
    more = {"limits": limits, "slowest": fleet.slowest, "run_per_s": fleet.run_per_s, "runs": fleet.runs}
    return asdict(fleet) | more


def format_fleets(fleets: Sequence[Fleet]) -> str:
    """Formats fleets as a table."""
    return "\n".join(align_right([_HEADER, *(_format_row(fleet) for fleet in fleets)]))


def _format_row(fleet: Fleet) -> tuple[str, ...]:
    return (
        str(fleet.gpus),
        f"{fleet.cores:,}",
        f"{fleet.nodes:,}",
        f"{fleet.photos_per_s:,.0f}",
        f"{fleet.gb_per_s:,.2f}",
        f"{fleet.run_per_s:,.0f}",
        fleet.slowest,
        format_quantity(fleet.runs),
    )
