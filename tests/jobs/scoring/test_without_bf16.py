"""From photos to a scored archive by a bf16 detector, on machines that are said to have no fast bf16."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from jobs.results.known import stream_rows
from model.config import BF16_VARIABLE
from tests.support.detectors import TINY
from tests.support.training import request_tiny_training


@pytest.fixture
def environment(cluster: str) -> dict[str, str]:
    return os.environ | {"RAY_ADDRESS": cluster, BF16_VARIABLE: "off"}


def _run(command: Sequence[str], environment: dict[str, str]) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.nightly
def test_a_bf16_detector_is_trained_and_scores_where_nothing_computes_bf16(
    environment: dict[str, str], drawn: Path, tmp_path: Path
) -> None:
    request = request_tiny_training(drawn, tmp_path / "registry")
    request |= {"detector": TINY | {"precision": "bf16"}, "optimizer": {"epochs": 2, "learning_rate": 1e-3}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(request))
    _run(["jobs.train", "--config", str(tmp_path / "train.yaml")], environment)

    places = {"archive": drawn / "archive", "detectors": tmp_path / "registry", "results": tmp_path / "results"}
    flags = [word for name, place in places.items() for word in (f"--{name}", str(place))]
    precisions = {}
    for asked in ("auto", "bf16"):
        wanted = ["--run-id", asked, "--scoring.precision", asked, "--max-error-rate", "1", "--rescore"]
        said = _run(["jobs.score", *flags, *wanted], environment)
        assert ("has no fast bf16: this run scores in fp32" in said) == (asked == "auto")
        batches = stream_rows(str(tmp_path / "results"), ["run_id", "status", "precision"])
        rows = [row for batch in batches for row in batch.to_pylist() if row["run_id"] == asked]
        precisions[asked] = {row["precision"] for row in rows if row["status"] == "scored"}
    assert precisions == {"auto": {"fp32"}, "bf16": {"bf16"}}
