"""The formula: from photos and costs to the cores or hours that a run takes, and to what would stop a larger one.

    photo_ms  = megapixels * decode_ms_per_megapixel + row_ms + views * view_ms    (on GPUs without the views)
    before_s  = start_s + photos / 1e6 * list_s_per_million
    cores     = photos * photo_ms / 1000 / used_share / (hours * 3600 - before_s)
    hours     = (before_s + the longest of the stages) / 3600

The stages work at the same time: cores, GPUs, the network between storage and nodes, storage's requests, the driver,
and the commits. The last three do not grow with the cluster.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from jobs.sizing.config import DEFAULT_HOURS, CapacityConfig
from jobs.sizing.costs import DETECTORS
from model.presets import get_preset

KEYS_PER_LIST = 1000
MB_PER_GBIT = 125
_MB_PER_MEGAPIXEL = 0.45
SHARED_STAGES = ("network", "requests", "driver", "commits")
"""What is no matter of cores or GPUs."""


@dataclass(frozen=True)
class PhotoCosts:
    """What one photo costs.

    Attributes:
        cpu_ms: of a core.
        gpu_ms: of a GPU, 0 without.
        mb: bytes to fetch, in 1e6.
    """

    cpu_ms: float
    gpu_ms: float
    mb: float


@dataclass(frozen=True)
class Plan:
    """What a run takes.

    Attributes:
        photos: how many.
        cores: of all workers.
        gpus: of all workers.
        nodes: workers.
        hours: from submission to the last commit.
        gb_per_s: from storage, while photos are scored.
        terabytes: fetched.
        dollars: cores, GPUs and requests.
        before_s: seconds until the first photo is scored.
        stage_s: seconds that each stage takes, were it alone.
        shared_hours: hours of what is no matter of cores or GPUs, each alone, listing too.
        next_bottleneck: the longest of these.
        next_share: its share of the hours asked for; above 1 it cannot be done in one run.
    """

    photos: int
    cores: int
    gpus: int
    nodes: int
    hours: float
    gb_per_s: float
    terabytes: float
    dollars: float
    before_s: float
    stage_s: dict[str, float]
    shared_hours: dict[str, float]
    next_bottleneck: str
    next_share: float

    @property
    def bottleneck(self) -> str:
        """Returns the stage that the others wait for."""
        return max(self.stage_s, key=lambda name: self.stage_s[name])


def compute_photo_costs(config: CapacityConfig) -> PhotoCosts:
    """Computes what one photo costs, from what was given and, where nothing was, from what was measured.

    Raises:
        ValueError: the preset was not measured with this precision, and no figure was given.
    """
    measured, costs = DETECTORS[config.preset], config.costs
    views = config.views or get_preset(config.preset).views
    decode_ms = config.megapixels * (costs.decode_ms_per_megapixel or measured.decode_ms_per_megapixel)
    mb = config.photo_mb or _MB_PER_MEGAPIXEL * config.megapixels
    if config.use_gpu:
        return PhotoCosts(decode_ms + costs.row_ms, views * (costs.gpu_view_ms or 0), mb)
    return PhotoCosts(decode_ms + costs.row_ms + views * (costs.view_ms or measured.view_ms[config.precision]), 0, mb)


def make_plan(photos: int, config: CapacityConfig) -> Plan:
    """Makes the plan of a run over so many photos."""
    costs, photo = config.costs, compute_photo_costs(config)
    before_s = costs.start_s + photos / 1e6 * costs.list_s_per_million
    night_s = 3600 * (config.hours or DEFAULT_HOURS)
    left_s = night_s - before_s
    cores, gpus = config.cores, config.gpus or 0
    if cores is None:
        cores = count_workers(photos * photo.cpu_ms / 1000 / costs.used_share, left_s)
        gpus = count_workers(photos * photo.gpu_ms / 1000, left_s)
    nodes = math.ceil(cores / config.node_cores)
    stage_s = {
        "cores": photos * photo.cpu_ms / 1000 / costs.used_share / cores,
        "GPUs": photos * photo.gpu_ms / 1000 / gpus if gpus else 0.0,
        "network": photos * photo.mb / (nodes * config.node_gbit * MB_PER_GBIT),
        "requests": photos / config.gets_per_s,
        "driver": photos / 1e6 * costs.driver_us_per_row,
        "commits": photos / 1e6 * costs.commit_us_per_row + math.ceil(photos / config.slice_photos) * costs.commit_s,
    }
    scoring_s = max(stage_s.values())
    shared_s = {"listing": before_s - costs.start_s} | {name: stage_s[name] for name in SHARED_STAGES}
    following = max(shared_s, key=lambda name: shared_s[name])
    hours = (before_s + scoring_s) / 3600
    return Plan(
        photos=photos,
        cores=cores,
        gpus=gpus,
        nodes=nodes,
        hours=hours,
        gb_per_s=photos * photo.mb / 1000 / scoring_s,
        terabytes=photos * photo.mb / 1e6,
        dollars=compute_dollars(photos, config, core_hours=cores * hours, gpu_hours=gpus * hours),
        before_s=before_s,
        stage_s=stage_s,
        shared_hours={name: seconds / 3600 for name, seconds in shared_s.items()},
        next_bottleneck=following,
        next_share=shared_s[following] / night_s,
    )


def count_workers(work_s: float, left_s: float) -> int:
    """Counts what shares so many seconds of work in the time that is left; a night that is over leaves one hour."""
    return math.ceil(work_s / (left_s if left_s > 0 else 3600)) if work_s else 0


def compute_dollars(photos: int, config: CapacityConfig, *, core_hours: float, gpu_hours: float) -> float:
    """Computes the price of a run: machines, a GET for each photo and a LIST for every thousand."""
    prices = config.prices
    requests = photos / 1e6 * (prices.million_gets + prices.million_lists / KEYS_PER_LIST)
    return core_hours * prices.core_hour + gpu_hours * prices.gpu_hour + requests
