"""The policies of infra/iam on the real S3 server: enough for their commands, and nothing in them is too much."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from jobs import storage
from jobs.errors import JobError
from jobs.findings.config import AddVerdictsConfig, ReportConfig, SampleConfig
from jobs.findings.run import report_run
from jobs.findings.sample import sample_run
from jobs.findings.verdict_report import report_verdicts
from jobs.findings.verdicts import add_verdicts
from jobs.results import maintenance
from jobs.results.commands import run_table_command
from jobs.results.known import read_rows
from jobs.scoring.config import ScoreConfig
from jobs.scoring.run import score_archive
from tests.support.buckets import create_bucket
from tests.support.users import User, act_as, create_user, grant, list_rights, read_policy, take_away

ARCHIVE, MODELS, RESULTS = "inspection-archive", "inspection-models", "inspection-results"
TRAINING = "inspection-training"


@pytest.fixture
def buckets(s3_environment: str | None, local_config: ScoreConfig, tmp_path: Path) -> dict[str, str]:
    """The local archive and its registry, and empty results, each in a bucket of its own."""
    assert local_config.archive == f"file://{tmp_path}/flat"
    made = {name: create_bucket(s3_environment) for name in (ARCHIVE, MODELS, RESULTS)}
    for folder, bucket in (("flat", made[ARCHIVE]), ("registry", made[MODELS])):
        for file in sorted((tmp_path / folder).rglob("*")):
            if file.is_file():
                storage.write(f"{bucket}/{folder}/{file.relative_to(tmp_path / folder)}", file.read_bytes())
    return made


def make_request(buckets: dict[str, str], run_id: str = "night") -> ScoreConfig:
    request: dict[str, Any] = {"archive": f"{buckets[ARCHIVE]}/flat", "detectors": f"{buckets[MODELS]}/registry"}
    request |= {"results": f"{buckets[RESULTS]}/fleet", "run_id": run_id, "local": True, "category": "pole"}
    return ScoreConfig.model_validate(request | {"max_error_rate": 1.0, "rescore": True})


def run_as(user: User, command: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """Runs a command with a user's rights; returns all that it said."""
    capsys.readouterr()
    with act_as(user):
        try:
            command()
        except JobError as error:
            return f"error: {error}"
    said = capsys.readouterr()
    return said.out + said.err


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_scorer_needs_each_of_its_rights_and_no_other(
    buckets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    policy, user = read_policy("scorer"), create_user()
    score_archive(make_request(buckets, "of-the-owner"))  # a user may always read what he has written himself
    silent = []
    for number, (sid, action) in enumerate(list_rights(policy)):
        grant(user, take_away(policy, sid, action), buckets)
        said = run_as(user, partial(score_archive, make_request(buckets, f"n{number}")), capsys)
        uris = [buckets[name] for name in (ARCHIVE, MODELS, RESULTS) if name.endswith(sid_place(sid))]
        named = f"lack the permission {action}" in said or f"or {action}" in said
        photos_denied = sid == "ReadArchive" and "4 access_denied" in said  # rows with their reason, no end of a run
        unasked = sid == "ListModels" and "3 scored" in said  # asked only where a detector is not there
        if not photos_denied and not unasked and not (named and any(uri in said for uri in uris)):
            silent.append((sid, action, said))
    assert silent == []
    grant(user, policy, buckets)
    request = make_request(buckets).model_copy(update={"explain": "top:2"})
    said = run_as(user, lambda: score_archive(request), capsys)
    assert "3 scored, 1 unreadable" in said
    assert "2 photos explained" in said


def sid_place(sid: str) -> str:
    """What a statement is about: the last word of its id."""
    return sid.removeprefix("List").removeprefix("Read").removeprefix("Write").lower()


def list_silent(
    role: str,
    make_commands: Callable[[str], Sequence[Callable[[], object]]],
    buckets: dict[str, str],
    capsys: pytest.CaptureFixture[str],
) -> list[tuple[str, str, list[str]]]:
    """The rights of a role without which no command fails with one line that names the right and a place.

    With all its rights every command has to succeed. Each try has results of its own, which the owner has written:
    on Ceph he may not read what another user has written.
    """
    policy, user, silent = read_policy(role), create_user(), []
    for number, (sid, action) in enumerate(list_rights(policy)):
        results = write_nights(buckets, f"without-{number}")
        grant(user, take_away(policy, sid, action), buckets)
        said = [run_as(user, command, capsys) for command in make_commands(results)]
        asked = [line for line in said if f"lack the permission {action}" in line or f"or {action}" in line]
        if not any(uri in line for line in asked for uri in buckets.values()):
            silent.append((sid, action, said))
    results = write_nights(buckets, "with-all")
    grant(user, policy, buckets)
    said = [run_as(user, command, capsys) for command in make_commands(results)]
    assert [line for line in said if line.startswith("error: ") or "lack the permission" in line] == []
    return silent


def write_nights(buckets: dict[str, str], folder: str) -> str:
    """Scores three nights as the owner, and gathers the files of two: there are files to gather and files to delete."""
    results = f"{buckets[RESULTS]}/{folder}"
    for number in range(3):
        score_archive(make_request(buckets, f"night-{number}").model_copy(update={"results": results}))
        if number == 1:
            maintenance.optimize_table(results)
    return results


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_an_analyst_needs_each_of_its_rights_and_cannot_write(
    buckets: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def make_commands(results: str) -> list[Callable[[], object]]:
        export = ["export", "--results", results, "--output", str(tmp_path / "latest.parquet")]
        commands = [["runs", "--results", results], ["history", "--results", results], export]
        return [partial(read_rows, results, ["image_uri"]), *(partial(run_table_command, argv) for argv in commands)]

    assert list_silent("analyst", make_commands, buckets, capsys) == []
    assert (tmp_path / "latest.parquet").is_file()
    results, analyst = write_nights(buckets, "read"), create_user()
    grant(analyst, read_policy("analyst"), buckets)
    with act_as(analyst), pytest.raises(JobError, match=r"lack the permission s3:PutObject"):
        storage.write(f"{results}/mine", b"x")
    said = run_as(analyst, partial(report_run, ReportConfig(results=results, run_id="night-0")), capsys)
    assert "lack the permission s3:PutObject" in said


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_janitor_needs_each_of_its_rights(buckets: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    def make_commands(results: str) -> list[Callable[[], object]]:
        return [
            partial(maintenance.vacuum_table, results, retention_hours=0),
            partial(maintenance.optimize_table, results),
            partial(maintenance.repair_table, results),
        ]

    assert list_silent("janitor", make_commands, buckets, capsys) == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_reviewer_needs_each_of_its_rights(
    buckets: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marks = tmp_path / "marks.csv"
    marks.write_text(f"image_uri,verdict\n{buckets[ARCHIVE]}/flat/0.jpg,good\n")

    def make_commands(results: str) -> list[Callable[[], object]]:
        verdicts = AddVerdictsConfig.model_validate({"results": results, "file": str(marks), "by": "me"})
        return [
            lambda: print(write_and_read_page(results)),
            partial(sample_run, SampleConfig(results=results, run_id="night-2", n=2)),
            partial(add_verdicts, verdicts),
            partial(report_verdicts, results, "night-2"),
        ]

    assert list_silent("reviewer", make_commands, buckets, capsys) == []


def write_and_read_page(results: str) -> str:
    """The page of a run: pictures that could not be fetched are lines there."""
    report_run(ReportConfig(results=results, run_id="night-2"))
    return storage.read(f"{results}/reports/night-2.html").decode()


@pytest.fixture
def training_buckets(s3_environment: str | None, drawn: Path) -> dict[str, str]:
    """Flawless and labelled photos in a bucket of their own, and an empty one for detectors."""
    made = {name: create_bucket(s3_environment) for name in (TRAINING, MODELS)}
    for file in sorted((drawn / "data").rglob("*.jpg")):
        storage.write(f"{made[TRAINING]}/{file.relative_to(drawn / 'data')}", file.read_bytes())
    return made


def run_command_as(user: User, *argv: str) -> str:
    """Runs a command in a process and, if it starts one, a Ray of its own; returns its exit code and all it said."""
    own = {"AWS_ACCESS_KEY_ID": user.name, "AWS_SECRET_ACCESS_KEY": user.secret, "RAY_ADDRESS": "local"}
    command = [sys.executable, "-m", *argv]
    done = subprocess.run(command, env=os.environ | own, capture_output=True, text=True, timeout=600, check=False)
    return f"exit {done.returncode}: {done.stdout}{done.stderr}"


def train_as(user: User, data: str, detectors: str) -> str:
    """Trains a detector that takes no time to fit."""
    tiny = ("--detector.weights", "random", "--detector.image-size", "64", "--calibration-fraction", "0.4")
    place = ("--data", data, "--category", "insulator", "--detectors", detectors)
    return run_command_as(user, "jobs.train", *place, *tiny)


@pytest.mark.nightly
@pytest.mark.parametrize(("sid", "action"), list_rights(read_policy("trainer")))
def test_a_training_that_lacks_a_right_names_it_and_the_place(
    training_buckets: dict[str, str], sid: str, action: str
) -> None:
    user, detectors = create_user(), f"{training_buckets[MODELS]}/detectors"
    storage.write(f"{detectors}/insulator/aliases.json", b"{}")  # the owner's: a user may read what he has written
    grant(user, take_away(read_policy("trainer"), sid, action), training_buckets)
    said = train_as(user, training_buckets[TRAINING], detectors)
    assert not said.startswith("exit 0")
    lines = [line for line in said.splitlines() if f"lack the permission {action}" in line or f"or {action}" in line]
    assert [line for line in lines if any(uri in line for uri in training_buckets.values())], said


@pytest.mark.nightly
@pytest.mark.timeout(2400)
def test_a_trainer_trains_calibrates_evaluates_and_promotes_with_its_rights(training_buckets: dict[str, str]) -> None:
    data, detectors = training_buckets[TRAINING], f"{training_buckets[MODELS]}/detectors"
    user = create_user()
    grant(user, read_policy("trainer"), training_buckets)
    of_it = ("--detectors", detectors, "--category", "insulator")
    said_by_all = [
        train_as(user, data, detectors),
        run_command_as(
            user, "jobs.recalibrate", *of_it, "--data", data, "--folder", "insulator/test/good", "--promote"
        ),
        run_command_as(user, "jobs.evaluate", "--data", data, "--detectors", detectors),
        run_command_as(user, "jobs.registry", "list", "--detectors", detectors),
        run_command_as(user, "jobs.registry", "show", *of_it),
        run_command_as(user, "jobs.registry", "rollback", *of_it),
        run_command_as(user, "jobs.registry", "history", *of_it),
    ]
    assert [said for said in said_by_all if not said.startswith("exit 0")] == []
