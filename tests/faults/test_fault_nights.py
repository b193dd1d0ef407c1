"""Nights, each with a fault: in the end every photo is in the table once, and each night's lines say what happened."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pytest
import yaml

from jobs import score, storage
from jobs.detectors.registry import put
from jobs.errors import EXIT_DONE, EXIT_FAILED, EXIT_TOO_MANY_UNREADABLE, JobError
from jobs.results.delta import open_table
from jobs.results.known import read_latest
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.storage import clients
from model.artifact.files import WEIGHTS
from tests.support.clients import fresh_clients
from tests.support.kills import list_workers, read_to_the_end, wait_for
from tests.support.servers.fault_proxy import Proxy, Rule
from tests.support.servers.nodes import serve_two_nodes
from tests.support.training import register_untrained

FEW = 16
"""New photos of a night."""


@dataclass
class Week:
    """An archive that grows, its results and the storage's proxy."""

    bucket: str
    proxy: Proxy
    folder: Path
    capsys: pytest.CaptureFixture[str]
    photos: list[str] = field(default_factory=list)

    @property
    def results(self) -> str:
        return f"{self.bucket}/results"

    def add_photos(self, night: int, part: str, count: int, *, category: str = "pole") -> None:
        drawn = sorted((self.folder / "photos").iterdir())
        for number in range(count):
            uri = f"{self.bucket}/archive/{category}/{night}-{part}-{number:02d}.jpg"
            storage.write(uri, drawn[number % len(drawn)].read_bytes())
            self.photos.append(uri)

    def run_alone(self, night: int, *flags: str) -> tuple[int, str]:
        """Runs jobs.score without a cluster; returns its exit code and all that it said."""
        argv = [*self.name_run(night), "--local"]
        self.capsys.readouterr()
        with pytest.MonkeyPatch.context() as patch, fresh_clients():
            patch.setenv("AWS_ENDPOINT_URL", self.proxy.url)
            try:
                code, error = score.main([*argv, *flags]), ""
            except JobError as problem:
                code, error = problem.exit_code, f"error: {problem}"
        said = self.capsys.readouterr()
        return code, said.out + said.err + error

    def name_run(self, night: int) -> list[str]:
        """Returns the flags that every try of a night has."""
        return ["--config", str(self.folder / "score.yaml"), "--run-id", f"week-{date(2026, 11, night)}"]

    def start(self, night: int, *flags: str, address: str = "local") -> subprocess.Popen[str]:
        """Starts jobs.score in a process of its own, which may be ended, on the cluster at an address."""
        return subprocess.Popen(
            [sys.executable, "-u", "-m", "jobs.score", *self.name_run(night), *flags],
            env=os.environ | {"RAY_ADDRESS": address},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def read_record(self, night: int) -> dict[str, Any] | None:
        return read_record(RunFolder(self.results, f"week-{date(2026, 11, night)}"))

    def count_scored(self) -> int:
        """Counts the scored photos; fails if a reader of all rows, or of the latest ones, sees one twice."""
        table = open_table(self.results)
        assert table is not None
        rows = table.to_pandas(columns=["image_uri", "status"])
        found = Counter(rows[rows["status"] == "scored"]["image_uri"])
        assert set(found.values()) <= {1}
        latest = read_latest(self.results, ["image_uri", "status"])
        uris = latest["image_uri"].to_pylist()
        assert len(set(uris)) == len(uris)
        assert latest["status"].to_pylist().count("scored") == len(found)
        return len(found)


@pytest.fixture
def week(
    bucket: str, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Week]:
    """A week before its first night, with an untrained detector, and a cache of detectors of its own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "photos").mkdir()
    for number, path in enumerate(sorted((drawn / "data").rglob("*.jpg"))[:20]):
        (tmp_path / "photos" / f"{number}.jpg").write_bytes(path.read_bytes())
    detectors = f"{bucket}/detectors"
    for category in ("mast", "pole"):
        register_untrained(detectors, category, folder=tmp_path / category)
    request: dict[str, Any] = {"archive": f"{bucket}/archive", "detectors": detectors, "results": f"{bucket}/results"}
    (tmp_path / "score.yaml").write_text(yaml.safe_dump(request))
    with Proxy(os.environ["AWS_ENDPOINT_URL"]) as proxy:
        yield Week(bucket, proxy, tmp_path, capsys)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
def test_after_nights_of_faults_every_photo_is_in_the_table_once_and_each_night_has_said_what_happened(
    week: Week, small_disk: Path
) -> None:
    # Monday: the scheduler's deadline comes before the end.
    week.add_photos(23, "new", FEW)
    job = week.start(23, "--local", "--slice-photos", "4")
    assert job.stdout is not None
    assert any(line.startswith("slice ") for line in job.stdout)
    job.send_signal(signal.SIGTERM)
    said = read_to_the_end(job)
    assert job.returncode == EXIT_FAILED, said
    assert said.splitlines()[-1] == "interrupted; the same command continues where this one stopped"
    assert 0 < week.count_scored() < FEW

    # Tuesday: a node of the cluster is lost while its processes score.
    week.add_photos(24, "new", FEW)
    with serve_two_nodes() as nodes:
        job = week.start(24, "--scoring.actors", "2", "--scoring.batch-photos", "8", address=nodes.address)
        wait_for(lambda: list_workers(nodes.address, "ScoreImages"), job)
        nodes.remove_node(nodes.spare, allow_graceful=False)
        said = read_to_the_end(job, timeout_s=600)
    assert job.returncode == EXIT_DONE, said
    assert week.count_scored() == 2 * FEW

    # Wednesday: the head is lost, and with it the cluster; somebody calls the same command again.
    week.add_photos(25, "new", FEW)
    with serve_two_nodes() as nodes:
        job = week.start(25, "--scoring.actors", "2", "--scoring.batch-photos", "8", address=nodes.address)
        wait_for(lambda: list_workers(nodes.address, "ScoreImages"), job)
        os.kill(nodes.head_node.all_processes["raylet"][0].process.pid, signal.SIGKILL)
        said = read_to_the_end(job, timeout_s=600)
    assert job.returncode == EXIT_FAILED, said
    assert "Raylet is terminated" in said  # by Ray, which ends a driver without its raylet from inside
    assert week.read_record(25) is None
    code, said = week.run_alone(25)
    assert code == EXIT_DONE, said
    assert week.count_scored() == 3 * FEW

    # Thursday: the credentials run out in the middle of the night.
    week.add_photos(26, "new", FEW)
    week.proxy.rules.append(Rule("error", part="/pole/26-new-09", status=400, code="ExpiredToken"))
    code, said = week.run_alone(26)
    assert code == EXIT_FAILED, said
    assert "have run out (ExpiredToken): renew them" in said.splitlines()[-1]
    week.proxy.rules.clear()
    assert week.read_record(26) is None

    # Friday: the storage throttles some photos for longer than the run is patient.
    week.add_photos(27, "new", FEW)
    throttled = Rule("error", method="GET", part="/pole/27-new-0")
    week.proxy.rules.append(throttled)
    with pytest.MonkeyPatch.context() as patch:
        be_impatient(patch)
        code, said = week.run_alone(27)
    assert code == EXIT_TOO_MANY_UNREADABLE, said
    assert "10 storage" in said
    assert "alarm: 10 of " in said
    assert "rows are unreadable or failed: " in said
    week.proxy.rules.clear()
    assert week.count_scored() == 5 * FEW - 10

    # Saturday: the disk is full.
    week.add_photos(28, "new", FEW)
    filler = small_disk / "filler"
    room = os.statvfs(small_disk)
    filler.write_bytes(bytes(room.f_bavail * room.f_frsize))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(small_disk))
        code, said = week.run_alone(28)
    assert code == EXIT_FAILED, said
    assert "No space left on device" in said.splitlines()[-1]
    assert str(small_disk) in said.splitlines()[-1]
    assert week.count_scored() == 5 * FEW - 10
    assert week.read_record(28) is None

    # Sunday: a detector is damaged.
    week.add_photos(29, "new", FEW, category="mast")
    damage_detector(week.bucket, "mast")
    code, said = week.run_alone(29)
    assert code == EXIT_TOO_MANY_UNREADABLE, said
    assert f"{FEW} detector" in said
    assert week.count_scored() == 6 * FEW
    put(f"{week.bucket}/detectors", "mast", folder=week.folder / "mast")

    # The night after: nothing is left of the week but its photos.
    code, said = week.run_alone(30)
    assert code == EXIT_DONE, said
    assert week.count_scored() == len(week.photos)
    latest = read_latest(week.results, ["image_uri", "status"])
    assert sorted(latest["image_uri"].to_pylist()) == sorted(week.photos)
    assert set(latest["status"].to_pylist()) == {"scored"}
    table = open_table(week.results)
    assert table is not None
    by_folder = ds.dataset(
        storage.resolve_filesystem(f"{week.results}/scores")[1],
        filesystem=storage.resolve_filesystem(week.results)[0],
        format="parquet",
        exclude_invalid_files=True,
    )
    assert by_folder.count_rows() == table.to_pyarrow_dataset().count_rows()


def be_impatient(patch: pytest.MonkeyPatch) -> None:
    """Makes the pauses between tries of a request a thousandth as long, and fewer."""
    pauses = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=15), "base": 2}
    patch.setitem(clients._RETRY, "backoff", pauses)
    patch.setitem(clients._RETRY, "max_retries", 16)


def damage_detector(bucket: str, category: str) -> None:
    """Overwrites the weights of a registered detector with their first half."""
    (uri,) = (one.uri for one in storage.list_objects(f"{bucket}/detectors/{category}") if one.uri.endswith(WEIGHTS))
    data = storage.read(uri)
    storage.write(uri, data[: len(data) // 2])
