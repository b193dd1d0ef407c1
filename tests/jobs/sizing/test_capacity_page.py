"""The tables of infra/docs/capacity.md are what the command says, and its defaults are what speed.md measured."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest

from jobs.sizing.config import CapacityConfig, CostConfig
from jobs.sizing.fleet import size_fleet
from jobs.sizing.plan import Plan, make_plan
from jobs.sizing.quantities import parse_quantity
from tests.support.places import ROOT

DOCS = ROOT / "infra" / "docs"
PAGE = (DOCS / "capacity.md").read_text()
SPEED = (DOCS / "speed.md").read_text()


def read_table(first: str) -> list[list[str]]:
    """The rows of the page's table whose header begins with a cell."""
    _, _, rest = PAGE.partition(f"| {first} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    assert lines
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def read_number(text: str) -> float:
    return float(text.replace(",", ""))


def shown(value: float, text: str) -> bool:
    """Whether a figure of the page is a value, rounded to as many digits as the page has."""
    digits = len(text.partition(".")[2])
    return abs(value - read_number(text)) <= 0.5 * 0.1**digits + 1e-9


@pytest.mark.parametrize("row", read_table("photos"), ids=lambda row: row[0])
def test_the_table_from_a_million_to_a_billion_is_the_command_s(row: Sequence[str]) -> None:
    flags = re.search(r"`--gets-per-s (\d+) --slice-photos (\d+)`", PAGE)
    assert flags is not None
    config = CapacityConfig.model_validate({"gets_per_s": flags[1], "slice_photos": flags[2]})
    plan: Plan = make_plan(parse_quantity(row[0]), config)
    found: list[Any] = [plan.cores, plan.nodes, plan.hours, plan.gb_per_s, plan.terabytes, plan.dollars]
    assert all(shown(value, text) for value, text in zip(found, row[1:7], strict=True)), found
    share = re.search(r"network: (\d+) %", row[7])
    if share is not None:
        assert (plan.next_bottleneck, round(100 * plan.next_share)) == ("network", int(share[1]))
    else:
        hours = {
            "commits": r"commits take ([\d.]+) hours",
            "driver": r"driver ([\d.]+)",
            "listing": r"listing ([\d.]+)",
        }
        for stage, pattern in hours.items():
            said = re.search(pattern, row[7])
            assert said is not None
            assert shown(plan.shared_hours[stage], said[1])


@pytest.mark.parametrize("row", read_table("GPUs"), ids=lambda row: f"{row[0]} GPUs")
def test_the_table_of_many_gpus_is_the_command_s(row: Sequence[str]) -> None:
    config = CapacityConfig.model_validate({"use_gpu": True, "megapixels": 1, "costs": {"gpu_view_ms": 0.2}})
    fleet = size_fleet(int(row[0]), config)
    found = [fleet.cores, fleet.photos_per_s, fleet.gb_per_s, fleet.run_per_s]
    assert all(shown(value, text) for value, text in zip(found, row[1:5], strict=True)), found
    if runs := re.search(r"(\d+) runs side by side", row[5]):
        assert fleet.runs == int(runs[1])


def test_costs_around_the_photos_are_those_that_speed_md_measured() -> None:
    costs = CostConfig()
    per_row = re.search(r"scale --sizes [\d,]+` \| [\d,]+, \d+ and (\d+) µs of CPU per row", SPEED)
    share = re.search(r"The ratio is ([\d.]+) \(", SPEED)
    assert per_row is not None
    assert share is not None
    assert costs.row_ms == pytest.approx(float(per_row[1]) / 1000, rel=0.05)
    assert costs.used_share == float(share[1])
