"""The formula of capacity, its limits, and the command around it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs import capacity
from jobs.cli import parse_config
from jobs.errors import RequestError
from jobs.sizing.config import CapacityConfig
from jobs.sizing.costs import DETECTORS
from jobs.sizing.plan import compute_photo_costs, make_plan
from jobs.sizing.report import format_plans
from model.presets import TRAINING_PRESETS

ROUND = {
    "decode_ms_per_megapixel": 5,
    "view_ms": 10,
    "row_ms": 0,
    "used_share": 1,
    "start_s": 0,
    "list_s_per_million": 0,
    "driver_us_per_row": 0,
    "commit_s": 0,
    "commit_us_per_row": 0,
}
"""Costs that can be computed with in the head: a photo of 12 megapixels and 4 views is 100 ms."""


def make_config(costs: dict[str, float] | None = None, **fields: Any) -> CapacityConfig:
    return CapacityConfig.model_validate({"views": 4, "costs": ROUND | (costs or {}), **fields})


def test_a_photo_costs_its_megapixels_and_its_views() -> None:
    assert compute_photo_costs(make_config()).cpu_ms == pytest.approx(12 * 5 + 4 * 10)


def test_cores_are_the_work_over_the_time() -> None:
    plan = make_plan(288_000, make_config(hours=1))  # 28,800 s of work
    assert (plan.cores, plan.nodes) == (8, 1)
    assert plan.hours == pytest.approx(1.0)


def test_listing_and_start_are_taken_off_the_night() -> None:
    plan = make_plan(1_000_000, make_config({"start_s": 300, "list_s_per_million": 1500}, hours=1))
    assert plan.before_s == 1800
    assert plan.cores == 56  # 100,000 s of work in 1,800 s
    assert plan.hours == pytest.approx(1.0, rel=0.02)


def test_cores_that_are_given_say_the_hours() -> None:
    assert make_plan(288_000, make_config(cores=4)).hours == pytest.approx(2.0)


def test_a_share_of_the_cores_goes_to_ray() -> None:
    assert make_plan(288_000, make_config({"used_share": 0.5}, hours=1)).cores == 16


def test_on_gpus_the_cores_only_decode() -> None:
    plan = make_plan(288_000, make_config({"gpu_view_ms": 0.5}, hours=1, use_gpu=True))
    assert plan.cores == 5  # 288,000 x 60 ms / 3600 s = 4.8
    assert plan.gpus == 1
    assert plan.stage_s["GPUs"] == pytest.approx(288_000 * 4 * 0.5e-3)


def test_bytes_are_those_of_the_photos() -> None:
    plan = make_plan(1_000_000, make_config(photo_mb=5, hours=1))
    assert plan.terabytes == pytest.approx(5.0)
    assert plan.gb_per_s == pytest.approx(5000 / 3600, rel=0.05)


def test_what_does_not_grow_with_the_cluster_makes_the_run_longer_than_asked() -> None:
    config = make_config({"driver_us_per_row": 100}, hours=1, gets_per_s=1e6)
    plan = make_plan(100_000_000, config)
    assert plan.hours == pytest.approx(10_000 / 3600)
    assert (plan.bottleneck, plan.next_bottleneck) == ("driver", "driver")
    assert "100M does not fit into 1 hours" in format_plans([plan], config)


def test_a_night_that_listing_fills_says_so() -> None:
    plan = make_plan(1_000_000_000, make_config({"list_s_per_million": 50}, hours=8, gets_per_s=1e6))
    assert plan.next_bottleneck == "listing"
    assert plan.next_share > 1


def test_dollars_are_machines_and_requests() -> None:
    prices = {"core_hour": 1, "million_gets": 2, "million_lists": 1000}
    plan = make_plan(1_000_000, make_config(hours=1, prices=prices))
    assert plan.dollars == pytest.approx(plan.cores * plan.hours + 2 + 1)


@pytest.mark.parametrize("preset", TRAINING_PRESETS)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_preset_was_measured(preset: str, precision: str) -> None:
    config = CapacityConfig.model_validate({"preset": preset, "precision": precision})
    assert compute_photo_costs(config).cpu_ms > 12
    assert DETECTORS[preset].view_ms["bf16"] < DETECTORS[preset].view_ms["fp32"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--photos", "many"], r"expected a whole number from 1 to 1000B, such as 800k, 10M or 2\.5B, got 'many'"),
        (["--photos", "0"], r"--photos: expected a whole number from 1 to 1000B, .*, got 0"),
        (["--photos", "-5"], r"--photos: expected a whole number from 1 to 1000B, .*, got -5"),
        (["--photos", "1e30"], r"--photos: expected a whole number from 1 to 1000B, .*, got "),
        (["--photos", "1000001M"], r"--photos: expected a whole number from 1 to 1000B, .*, got '1000001M'"),
        (["--fleets", "0"], r"--fleets: expected a whole number from 1 to 1000B, .*, got 0"),
        (["--megapixels", "1e300"], r"--megapixels: input should be less than or equal to 1e\+?0?6|1000000"),
        (["--hours", "1e300"], r"--hours: input should be less than or equal to"),
        (["--costs.row-ms", "1e300"], r"--costs\.row-ms: input should be less than or equal to"),
        (["--hours", "8", "--cores", "4"], "not both"),
        (["--fleets", "8", "--cores", "4"], "--cores would change nothing with --fleets"),
        (["--fleets", "8", "--photos", "3"], "--photos would change nothing with --fleets"),
        (["--measure-photos", "5"], "--measure-photos would change nothing without --measure FOLDER"),
        (["--use-gpu"], r"needs --costs\.gpu-view-ms: no GPU was measured here, infra/gpu-check\.sh prints it"),
        (["--gpus", "2"], "gpus are there for --use-gpu"),
        (["--save", "costs.yaml"], "are there for --measure"),
        (["--preset", "resnet"], "expected one of .*differnet_fast, .*, got 'resnet'"),
    ],
)
def test_a_wrong_request_is_one_line(flags: list[str], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        capacity.main(flags)


def test_the_answer_has_a_line_for_each_number_and_the_formula(capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main(["--photos", "10M,2.5B", "--megapixels", "12"]) == 0
    shown = capsys.readouterr().out
    assert [line.split()[0] for line in shown.splitlines()[1:3]] == ["10M", "2.5B"]
    assert "cores = photos x " in shown
    assert "measured on: Intel Xeon with AMX" in shown


def test_the_answer_can_be_read_by_a_program(capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main(["--photos", "1M", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["plans"][0]["photos"] == 10**6
    assert found["plans"][0]["bottleneck"] == "cores"


@pytest.mark.parametrize(
    "flags",
    [
        ["--photos", "1000B", "--megapixels", "1e6", "--costs.view-ms", "1e9", "--prices.core-hour", "1e9"],
        ["--photos", "1", "--megapixels", "0.0001", "--costs.row-ms", "0", "--costs.view-ms", "1e-300"],
        ["--photos", "1000B", "--hours", "1e-9"],
        ["--photos", "1", "--cores", "1000000000"],
        ["--fleets", "1,1000B", "--costs.list-s-per-million", "0", "--costs.driver-us-per-row", "0"],
    ],
    ids=["most", "least", "no time", "cores without work", "stages without cost"],
)
@pytest.mark.parametrize("form", ["text", "json"])
def test_absurd_sizes_still_give_numbers(flags: list[str], form: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert capacity.main([*flags, "--format", form]) == 0
    shown = capsys.readouterr().out
    assert not re.search(r"\b(nan|inf|NaN|Infinity)\b", shown)


def test_help_imports_neither_torch_nor_ray() -> None:
    look = (
        "import sys\n"
        "from jobs import capacity\n"
        "capacity.main(['--photos', '1M'])\n"
        "sys.exit(not {'torch', 'ray'}.isdisjoint(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", look], check=False, capture_output=True).returncode == 0


def test_measured_costs_are_read_back(tmp_path: Path) -> None:
    from jobs.sizing.measurement import save_costs

    config = make_config(preset="differnet", megapixels=1)
    save_costs(config, tmp_path / "costs.yaml")
    again = parse_config(CapacityConfig, ["--config", str(tmp_path / "costs.yaml")])
    assert compute_photo_costs(again) == compute_photo_costs(config)
