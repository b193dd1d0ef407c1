"""`python -m jobs.registry`: what its commands say, refuse and change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jobs import storage
from jobs.detectors import registry
from jobs.detectors.aliases import read_aliases, read_history, set_alias
from jobs.errors import ConflictError, RequestError
from jobs.registry import main
from jobs.storage import uris
from model.artifact.files import ARTIFACT_FILES
from model.config import DetectorConfig
from model.statistics.calibration import Calibration
from tests.support.detectors import TINY
from tests.support.places import ROOT

METRICS: dict[str, Any] = {
    "loss_by_epoch": [3.0, 2.0, 1.5],
    "lineage": {"created_at": "2026-11-21T10:00:00+00:00", "git_commit": "c0ffee", "parent": None},
    "training_photos": ["11111111", "22222222"],
}


def _registered(
    detectors: str,
    *,
    category: str = "cap",
    seed: int = 0,
    calibration: Calibration | None = Calibration(scores=tuple(range(19))),  # noqa: B008
    metrics: dict[str, Any] | None = None,
    variant: str = "tiny",
) -> str:
    """Puts a detector whose weights are no weights: no command but scoring reads them."""
    config = DetectorConfig.model_validate({"variant": variant, "seed": seed, **TINY})
    contents = {
        "detector.safetensors": b"weights",
        "config.json": json.dumps({"format_version": 1, "detector": config.model_dump(mode="json")}).encode(),
        "calibration.json": b"null" if calibration is None else calibration.model_dump_json().encode(),
        "metrics.json": json.dumps(METRICS if metrics is None else metrics).encode(),
        "card.md": b"",
    }
    folder = Path(uris.split(detectors)[2]).parent / f"artifact-{category}-{seed}"
    folder = Path("/") / folder
    folder.mkdir(exist_ok=True)
    for name in ARTIFACT_FILES:
        (folder / name).write_bytes(contents[name])
    return registry.put(detectors, category, folder=folder)


@pytest.fixture
def detectors(tmp_path: Path) -> str:
    """An empty registry."""
    return f"file://{tmp_path}/registry"


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> Any:
    capsys.readouterr()
    assert main([*argv, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_list_shows_every_detector_with_its_seed_loss_calibration_and_aliases(
    detectors: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = _registered(detectors), _registered(detectors, seed=1, calibration=None)
    set_alias(detectors, "cap", alias="champion", detector_id=first)
    set_alias(detectors, "cap", alias="tiny.seed0", detector_id=first)
    rows = {row["detector_id"]: row for row in _json(capsys, "list", "--detectors", detectors)}
    assert rows[first]["aliases"] == ["champion", "tiny.seed0"]
    assert [rows[first][name] for name in ("variant", "seed", "epochs", "loss")] == ["tiny", 0, 3, 1.5]
    assert (rows[first]["calibration_photos"], rows[first]["smallest_rate"]) == (19, 0.05)
    assert (rows[second]["seed"], rows[second]["aliases"], rows[second]["smallest_rate"]) == (1, [], None)
    assert main(["list", "--detectors", detectors]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["category", "detector_id", "variant"]
    assert any(line.endswith("champion, tiny.seed0") and first in line for line in lines)


def test_list_fits_a_terminal(detectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    detector_id = _registered(detectors)
    set_alias(detectors, "cap", alias="champion", detector_id=detector_id)
    capsys.readouterr()
    assert main(["list", "--detectors", detectors]) == 0
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 100


def test_list_as_parquet_tells_detectors_of_one_variant_apart(detectors: str, tmp_path: Path) -> None:
    ids = {_registered(detectors, seed=seed) for seed in (0, 1)}
    assert main(["list", "--detectors", detectors, "--output", str(tmp_path / "detectors.parquet")]) == 0
    rows = pq.read_table(tmp_path / "detectors.parquet").to_pylist()
    assert {row["detector_id"] for row in rows} == ids
    assert {row["seed"] for row in rows} == {0, 1}


def test_show_keeps_figures_for_programs_to_the_whole_card(detectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    detector_id = _registered(detectors)
    argv = ["show", "--detectors", detectors, "--category", "cap", "--name", detector_id]
    capsys.readouterr()
    assert main(argv) == 0
    short = capsys.readouterr().out
    assert "loss_by_epoch" not in short
    assert "false-alarm rate asked for" in short
    assert main([*argv, "--format", "card"]) == 0
    assert "loss_by_epoch" in capsys.readouterr().out


def test_list_names_a_damaged_detector_and_goes_on(detectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    whole, damaged = _registered(detectors), _registered(detectors, seed=1)
    storage.write(uris.join(detectors, "cap", damaged, "config.json"), b"{")
    rows = {row["detector_id"]: row for row in _json(capsys, "list", "--detectors", detectors)}
    assert rows[whole]["variant"] == "tiny"
    assert "config.json is damaged" in rows[damaged]["damage"]


def test_list_shows_the_figures_of_the_epoch_that_was_kept(detectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    _registered(detectors, metrics={"loss_by_epoch": [3.0, 2.0, 1.5], "loss": 2.0, "validation_loss": 2.5})
    (row,) = _json(capsys, "list", "--detectors", detectors)
    assert [row[name] for name in ("epochs", "loss", "validation_loss")] == [3, 2.0, 2.5]


def test_list_of_a_category_that_is_not_there_says_which_are(detectors: str) -> None:
    _registered(detectors)
    with pytest.raises(RequestError, match="no detector of damper; it has cap"):
        main(["list", "--detectors", detectors, "--categories", "damper"])


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["list"], r"no detector in file://.*registry: none was trained there yet, or correct --detectors"),
        (["list", "--format", "json"], "no detector in"),
        (["list", "--output", "OUTPUT"], "no detector in"),
        (["history", "--category", "cap"], r"cap has no alias in file://.*registry, which has no category: correct"),
        (["history", "--category", "cap", "--format", "json"], "cap has no alias in"),
    ],
)
def test_a_registry_that_has_nothing_is_said_as_a_wrong_request(
    detectors: str, argv: list[str], said: str, tmp_path: Path
) -> None:
    given = [str(tmp_path / "list.parquet") if one == "OUTPUT" else one for one in argv]
    with pytest.raises(RequestError, match=said):
        main([*given, "--detectors", detectors])
    assert not (tmp_path / "list.parquet").exists()


def test_a_history_of_a_wrong_category_names_those_that_are_there(detectors: str) -> None:
    set_alias(detectors, "cap", alias="champion", detector_id=_registered(detectors))
    with pytest.raises(RequestError, match=r"cup has no alias in .*, which has cap: correct --category"):
        main(["history", "--detectors", detectors, "--category", "cup"])


def test_show_prints_promises_lineage_and_aliases(detectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    detector_id = _registered(detectors)
    set_alias(detectors, "cap", alias="champion", detector_id=detector_id)
    assert main(["show", "--detectors", detectors, "--category", "cap"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"cap, aliases: champion\n# Detector {detector_id}: tiny\n")
    assert "| 5.0% | 18 |" in said
    assert "- code: commit c0ffee" in said
    assert "11111111" not in said
    shown = _json(capsys, "show", "--detectors", detectors, "--category", "cap", "--name", detector_id)
    assert shown["calibration"]["thresholds"] == {"0.05": 18.0, "0.01": None}
    assert (shown["config"]["seed"], shown["metrics"]["training_photos"]) == (0, 2)


def test_compare_shows_only_what_differs(detectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    first = _registered(detectors)
    second = _registered(detectors, seed=7, metrics=METRICS | {"loss_by_epoch": [0.25], "auroc": 0.5})
    set_alias(detectors, "cap", alias="champion", detector_id=first)
    argv = ["compare", "--detectors", detectors, "--category", "cap", "--names", f"champion,{second}"]
    differing = _json(capsys, *argv)
    assert differing["config.seed"] == [0, 7]
    assert differing["metrics.loss_by_epoch"] == ["[3.0, 2.0, 1.5]", "[0.25]"]
    assert differing["metrics.auroc"] == [None, 0.5]
    assert {"config.variant", "calibration.photos", "metrics.lineage.git_commit"}.isdisjoint(differing)
    assert main(argv) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["config.seed", "0", "7"] in rows


def test_one_detector_cannot_be_compared(detectors: str) -> None:
    with pytest.raises(RequestError, match="--names"):
        main(["compare", "--detectors", detectors, "--category", "cap", "--names", "champion"])


def test_promote_and_rollback_move_the_alias_and_leave_a_history(
    detectors: str, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = _registered(detectors), _registered(detectors, seed=1)
    where = ["--detectors", detectors, "--category", "cap"]
    assert main(["promote", *where, "--name", first]) == 0
    set_alias(detectors, "cap", alias="tiny.seed1", detector_id=second)
    assert main(["promote", *where, "--name", "tiny.seed1", "--reason", "new photos"]) == 0
    assert f"champion of cap: {first} -> {second}" in capsys.readouterr().out
    assert main(["rollback", *where, "--reason", "too many alarms"]) == 0
    assert read_aliases(detectors, "cap")["champion"] == first
    changes = _json(capsys, "history", *where, "--alias", "champion")
    assert [(line["from"], line["to"], line["action"], line["reason"]) for line in changes] == [
        (None, first, "promote", ""),
        (first, second, "promote", "new photos"),
        (second, first, "rollback", "too many alarms"),
    ]
    assert main(["history", *where]) == 0
    assert "too many alarms" in capsys.readouterr().out.splitlines()[-1]


def test_promote_refuses_what_is_not_there_not_whole_or_not_calibrated(detectors: str) -> None:
    where = ["--detectors", detectors, "--category", "cap"]
    uncalibrated, torn = _registered(detectors, calibration=None), _registered(detectors, seed=1)
    Path(uris.join(detectors, "cap", torn, "detector.safetensors").removeprefix("file://")).unlink()
    for name, said in [
        ("0" * 16, "no detector 0000000000000000 of cap is registered"),
        (uncalibrated, "has no calibration, so it cannot give p-values: calibrate it with jobs.recalibrate"),
        (torn, "lacks detector.safetensors"),
        ("candidate", "cap has no alias 'candidate'"),
    ]:
        with pytest.raises(RequestError, match=said):
            main(["promote", *where, "--name", name])
    assert read_aliases(detectors, "cap") == {}


def test_a_rollback_to_a_detector_that_is_gone_is_refused(detectors: str) -> None:
    second = _registered(detectors)
    set_alias(detectors, "cap", alias="champion", detector_id="0" * 16)
    set_alias(detectors, "cap", alias="champion", detector_id=second)
    with pytest.raises(RequestError, match="no detector 0000000000000000 of cap is registered"):
        main(["rollback", "--detectors", detectors, "--category", "cap"])
    assert read_aliases(detectors, "cap") == {"champion": second}


def test_promote_if_current_loses_against_another_promotion(detectors: str) -> None:
    first, second = _registered(detectors), _registered(detectors, seed=1)
    where = ["--detectors", detectors, "--category", "cap", "--name", second, "--if-current"]
    set_alias(detectors, "cap", alias="champion", detector_id=first)
    for expected in ("none", "0" * 16):
        with pytest.raises(ConflictError, match=f"champion of cap is {first}, not {expected}"):
            main(["promote", *where, expected])
    assert main(["promote", *where, first]) == 0
    assert len(read_history(detectors, "cap")) == 2


@pytest.mark.parametrize("category", ["..", "../cap", ".train", "a/b", ""])
def test_a_category_that_leads_elsewhere_is_refused(detectors: str, category: str) -> None:
    with pytest.raises(RequestError, match="--category"):
        main(["show", "--detectors", detectors, "--category", category])


def test_names_from_storage_cannot_command_the_terminal(detectors: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b[2J\u202e"
    detector_id = _registered(detectors, variant=f"v{hostile}", metrics={"lineage": {"git_commit": hostile}})
    place = uris.join(detectors, "cap", "aliases.json")
    storage.write(place, json.dumps({f"x{hostile}": detector_id}).encode())
    where = ["--detectors", detectors, "--category", "cap"]
    assert main(["list", "--detectors", detectors]) == 0
    assert main(["show", *where, "--name", detector_id]) == 0
    with pytest.raises(RequestError, match=r"\\x1b\[2J") as refusal:
        main(["show", *where])
    said = capsys.readouterr().out + str(refusal.value)
    assert "\\x1b[2J\\u202e" in said
    assert "\x1b" not in said
    assert "\u202e" not in said


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["--help"], 0, "rollback  Point an alias at the detector that it was promoted from"),
        (["promote", "--help"], 0, "--if-current"),
        ([], 2, "expected a command (list, show, compare, promote, rollback, sign, history), got ''"),
        (["delete"], 2, "got 'delete'"),
        (["list"], 2, "--detectors is required"),
    ],
)
def test_the_command_line_answers_without_torch(argv: list[str], code: int, said: str) -> None:
    blocked = "import sys, runpy; sys.modules['torch'] = None; runpy.run_module('jobs.registry', run_name='__main__')"
    command = [sys.executable, "-c", blocked, *argv]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == code
    assert said in (done.stdout if code == 0 else done.stderr)
    assert "Traceback" not in done.stderr
