"""One arithmetic for a whole run, chosen from what the cluster's machines can do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jobs.cluster import arithmetic
from jobs.cluster.arithmetic import choose_precisions
from jobs.config import AskedPrecision, ScoringResources
from model.config import BF16_VARIABLE, Precision
from model.hardware import has_fast_bf16
from model.processor import read_cpu_name


@pytest.mark.parametrize(
    ("calibrated", "asked", "is_fast", "expected"),
    [
        ("bf16", "auto", True, "bf16"),
        ("bf16", "auto", False, "fp32"),
        ("bf16", "bf16", False, "bf16"),
        ("fp32", "auto", True, "fp32"),
        ("fp32", "fp32", False, "fp32"),
    ],
)
def test_bf16_needs_a_calibration_with_it_and_machines_that_are_fast_at_it(
    monkeypatch: pytest.MonkeyPatch, calibrated: Precision, asked: AskedPrecision, *, is_fast: bool, expected: Precision
) -> None:
    monkeypatch.setattr(arithmetic, "find_slow_machine", lambda *, use_gpu: None if is_fast else "an old CPU")
    assert choose_precisions([calibrated, "fp32"], asked=asked, resources=ScoringResources()) == [expected, "fp32"]


def test_a_run_of_float32_detectors_asks_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "start_ray", lambda: pytest.fail("the cluster was touched"))
    assert choose_precisions(["fp32"], asked="auto", resources=ScoringResources()) == ["fp32"]


@pytest.mark.usefixtures("cluster")
def test_the_machines_that_score_are_asked(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = choose_precisions(["bf16"], asked="auto", resources=ScoringResources())
    assert chosen == (["bf16"] if has_fast_bf16("cpu") else ["fp32"])
    assert (f"{read_cpu_name()} has no fast bf16" in capsys.readouterr().out) == (chosen == ["fp32"])


def test_what_the_driver_says_of_bf16_reaches_the_machines_that_score(cluster: str) -> None:
    script = (
        "from jobs.cluster.arithmetic import choose_precisions; from jobs.config import ScoringResources; "
        "print(choose_precisions(['bf16'], asked='auto', resources=ScoringResources()))"
    )
    environment = os.environ | {"RAY_ADDRESS": cluster, BF16_VARIABLE: "off"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['fp32']"
    assert "has no fast bf16: this run scores in fp32" in done.stdout
