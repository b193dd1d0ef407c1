"""How fast fleets could score, and what stops one run before that."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jobs import capacity
from jobs.sizing.config import CapacityConfig
from jobs.sizing.fleet import Fleet, size_fleet
from jobs.sizing.plan import make_plan

COSTS = {"decode_ms_per_megapixel": 10, "row_ms": 0, "view_ms": 10, "gpu_view_ms": 1, "used_share": 0.5}
LIMITS = {"driver_us_per_row": 50, "commit_us_per_row": 90, "commit_s": 1, "list_s_per_million": 20}


def make_config(**changes: Any) -> CapacityConfig:
    """Photos of a megapixel and a view: 10 ms to decode, 10 ms of a core or 1 ms of a GPU for the view."""
    fields = {"megapixels": 1, "photo_mb": 0.5, "views": 1, "slice_photos": 100_000, "gets_per_s": 1e9}
    return CapacityConfig.model_validate(fields | {"costs": COSTS | LIMITS} | changes)


def test_gpus_get_the_cores_that_keep_them_busy() -> None:
    fleet = size_fleet(8, make_config(use_gpu=True))
    assert (fleet.gpus, fleet.photos_per_s, fleet.cores, fleet.nodes) == (8, 8000, 160, 10)
    assert fleet.gb_per_s == 4


def test_a_fleet_without_gpus_computes_views_on_its_cores() -> None:
    fleet = size_fleet(160, make_config())
    assert (fleet.gpus, fleet.cores, fleet.photos_per_s) == (0, 160, 4000)


@pytest.mark.parametrize(
    ("changes", "slowest", "per_s"),
    [
        ({}, "commits", 10_000),
        ({"slice_photos": 1000}, "commits", pytest.approx(917.4, abs=0.1)),
        ({"gets_per_s": 5500}, "requests", 5500),
        ({"node_gbit": 0.01}, "network", pytest.approx(200)),
        ({"costs": COSTS | LIMITS | {"driver_us_per_row": 500}}, "driver", pytest.approx(2000)),
        ({"costs": COSTS | LIMITS | {"list_s_per_million": 1000}}, "listing", pytest.approx(1000)),
    ],
)
def test_one_run_waits_for_what_lets_the_fewest_photos_through(
    changes: dict[str, Any], slowest: str, per_s: float
) -> None:
    fleet = size_fleet(64, make_config(use_gpu=True) if not changes else make_config(use_gpu=True, **changes))
    assert (fleet.slowest, round(fleet.run_per_s, 1)) == (slowest, per_s)


def test_a_small_fleet_waits_for_itself_and_needs_one_run() -> None:
    fleet = size_fleet(4, make_config(use_gpu=True))
    assert (fleet.slowest, fleet.run_per_s, fleet.runs) == ("fleet", 4000, 1)


def test_runs_side_by_side_share_out_what_one_run_cannot_do() -> None:
    assert size_fleet(64, make_config(use_gpu=True)).runs == 7


@pytest.mark.parametrize("gpus", [2, 64])
def test_a_fleet_and_a_plan_agree_on_the_hours_of_many_photos(gpus: int) -> None:
    config = make_config(use_gpu=True)
    fleet = size_fleet(gpus, config)
    photos = 1_000_000_000
    plan = make_plan(photos, config.model_copy(update={"cores": fleet.cores, "gpus": gpus}))
    longest_s = max(plan.stage_s.values())
    limits = {name: rate for name, rate in fleet.limits.items() if name != "listing"}
    assert longest_s == pytest.approx(photos / min(fleet.photos_per_s, *limits.values()), rel=0.001)


def test_what_takes_no_time_stops_nobody() -> None:
    free = dict.fromkeys(LIMITS, 0)
    fleet: Fleet = size_fleet(1000, make_config(use_gpu=True, costs=COSTS | free, node_gbit=100))
    assert (fleet.slowest, fleet.runs) == ("fleet", 1)


def test_the_command_says_it_as_a_table_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["--use-gpu", "--costs.gpu-view-ms", "0.2", "--fleets", "8,64", "--megapixels", "1"]
    assert capacity.main(argv) == 0
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 3
    assert table[2].split()[0] == "64"
    assert capacity.main([*argv, "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["gpus"], one["slowest"], one["run_per_s"]) for one in found] == [
        (8, "requests", 5500),
        (64, "requests", 5500),
    ]
