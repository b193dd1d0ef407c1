"""Two runs with the same id: one works, the other is refused; whoever died does not block the next."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs import storage
from jobs.errors import EXIT_BAD_REQUEST, ConflictError, JobError, RequestError, StorageError
from jobs.storage import lease, uris
from jobs.storage.lease import hold_lease
from jobs.storage.lease_holder import Holder
from tests.support.places import ROOT


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no lease is yet."""
    place = f"file://{tmp_path}" if request.param == "file" else str(request.getfixturevalue("bucket"))
    return uris.join(place, "staging", "night", "lease.json")


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same rules on a clock a hundred times as fast."""
    monkeypatch.setattr(lease, "RENEWAL_INTERVAL_S", 0.1)
    monkeypatch.setattr(lease, "TTL_S", 0.6)
    monkeypatch.setattr(lease, "POLL_INTERVAL_S", 0.02)


def elsewhere(**changes: object) -> Holder:
    """A holder on another machine."""
    return Holder.this_process().model_copy(update={"machine": "other boot", "host": "node-7", **changes})


def leave(uri: str, holder: Holder) -> None:
    storage.write(uri, holder.model_dump_json().encode())


def test_while_one_works_the_other_is_refused_with_its_name(uri: str) -> None:
    with hold_lease(uri):
        with (
            pytest.raises(RequestError, match=r"process \d+ on \S+ since 20\d\d-.* UTC works on it") as caught,
            hold_lease(uri),
        ):
            pass
        assert caught.value.exit_code == EXIT_BAD_REQUEST
    assert list(storage.list_objects(uri.removesuffix("/lease.json"))) == []
    with hold_lease(uri):
        pass


@pytest.mark.parametrize("is_abandoned", [False, True], ids=["free", "abandoned"])
def test_of_many_at_once_one_gets_it(uri: str, is_abandoned: bool) -> None:
    if is_abandoned:
        leave(uri, Holder.this_process().model_copy(update={"pid_since": 1}))
    done, got_it, refused = threading.Event(), threading.Semaphore(0), []

    def work() -> bool:
        try:
            with hold_lease(uri):
                got_it.release()
                return done.wait(60)
        except RequestError:
            refused.append(1)
            if len(refused) == 5:
                done.set()
            return False

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(lambda _: work(), range(6))) == [False] * 5 + [True]


def test_a_write_that_is_sent_again_because_its_answer_got_lost_does_not_lose_the_lease(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = storage.write

    def written_twice(uri: str, data: bytes, *, if_etag: str | None = None, if_absent: bool = False) -> str:
        """What the client does after a time-out: the second write conflicts with the first."""
        write(uri, data, if_etag=if_etag, if_absent=if_absent)
        raise ConflictError(f"{uri} has changed")

    monkeypatch.setattr("jobs.storage.objects.write", written_twice)
    with hold_lease(uri) as mine:
        mine.confirm()
        mine.confirm()
        storage.delete(uri)
        write(uri, elsewhere().model_dump_json().encode())
        with pytest.raises(JobError, match="went to another process"):
            mine.confirm()


def test_after_kill_9_the_same_machine_takes_over_at_once(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    script = (
        "from jobs.storage.lease import hold_lease\nimport time\n"
        f"with hold_lease({uri!r}): print('held', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as victim:
        assert victim.stdout is not None
        assert victim.stdout.readline() == b"held\n"
        with pytest.raises(RequestError, match=f"process {victim.pid} "), hold_lease(uri):
            pass
        victim.kill()
    monkeypatch.setattr(lease.time, "sleep", lambda _: pytest.fail("waited"))
    with hold_lease(uri):
        pass


def test_a_process_id_that_is_used_again_is_not_the_holder(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease.time, "sleep", lambda _: pytest.fail("waited"))
    leave(uri, Holder.this_process().model_copy(update={"pid_since": 1}))
    with hold_lease(uri):
        pass


@pytest.mark.usefixtures("fast")
def test_a_holder_elsewhere_that_is_silent_is_replaced_whatever_its_clock_says(uri: str) -> None:
    leave(uri, elsewhere(since=datetime(2099, 1, 1, tzinfo=UTC)))
    with hold_lease(uri) as mine:
        assert f'"owner":"{mine.holder.owner}"'.encode() in storage.read(uri)


@pytest.mark.usefixtures("fast")
def test_a_holder_elsewhere_that_renews_is_left_alone(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = lease.Lease(uri, elsewhere(), storage.write(uri, elsewhere().model_dump_json().encode()))
    with pytest.raises(RequestError, match="on node-7 since"), hold_lease(uri):
        pass
    other.release()


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("taken", [lambda uri: leave(uri, elsewhere()), storage.delete], ids=["taken", "deleted"])
def test_who_has_lost_it_stops_in_the_middle_of_its_work(uri: str, taken: Callable[[str], None]) -> None:
    told = threading.Event()

    def work() -> None:
        with hold_lease(uri) as mine:
            mine.on_loss(told.set)
            taken(uri)
            assert told.wait(60)
            raise JobError("scoring stopped")

    with pytest.raises(JobError, match="went to another process, or could not be renewed"):
        work()


def test_who_has_lost_it_cannot_publish(uri: str) -> None:
    with hold_lease(uri) as mine:
        mine.confirm()
        leave(uri, elsewhere())
        with pytest.raises(JobError, match="went to another process, or could not be renewed"):
            mine.confirm()
    assert b"node-7" in storage.read(uri)


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize(("failures", "ttl_s", "outcome"), [(2, 60.0, "kept"), (10**9, 0.6, "lost")])
def test_a_storage_that_is_away_for_less_than_the_time_to_live_costs_nothing(
    uri: str, failures: int, ttl_s: float, outcome: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "TTL_S", ttl_s)
    write, calls, recovered = storage.write, [], threading.Event()

    def flaky(target: str, data: bytes, *, if_absent: bool = False, if_etag: str | None = None) -> str:
        calls.append(1)
        if 1 < len(calls) <= 1 + failures:
            raise StorageError("503")
        if len(calls) > 3 + failures:
            recovered.set()
        return write(target, data, if_absent=if_absent, if_etag=if_etag)

    monkeypatch.setattr("jobs.storage.objects.write", flaky)
    ended = "kept"
    try:
        with hold_lease(uri) as mine:
            mine.on_loss(recovered.set)
            recovered.wait(60)
            mine.confirm()
    except JobError:
        ended = "lost"
    assert ended == outcome


def test_a_damaged_lease_says_what_to_do(uri: str) -> None:
    storage.write(uri, b"{")
    with pytest.raises(RequestError, match=r"lease\.json is damaged: .* delete it"), hold_lease(uri):
        pass


@pytest.mark.slow
def test_the_job_exits_2_with_one_line_while_another_holds_its_run(tmp_path: Path) -> None:
    results = f"file://{tmp_path}/results"
    argv = ["--archive", str(tmp_path), "--detectors", str(tmp_path), "--results", results, "--run-id", "night"]
    with hold_lease(f"{results}/staging/night/lease.json"):
        done = subprocess.run(
            [sys.executable, "-m", "jobs.score", *argv], capture_output=True, text=True, check=False, cwd=ROOT
        )
    assert done.returncode == EXIT_BAD_REQUEST, done.stderr
    (line,) = done.stderr.splitlines()
    assert f"error: this run is under way: process {os.getpid()} on " in line
    assert "take a new --run-id" in line


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_a_command_that_is_stopped_exits_1_with_one_line_and_gives_its_lease_back(
    stop: signal.Signals, tmp_path: Path
) -> None:
    uri = f"file://{tmp_path}/lease.json"
    script = (
        "from jobs.cli import run_command; from jobs.storage.lease import hold_lease; import time\n"
        f"def main(argv):\n    with hold_lease({uri!r}): print('held', flush=True); time.sleep(600)\n"
        "run_command(main)"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert command.stdout is not None
    assert command.stdout.readline() == "held\n"
    command.send_signal(stop)
    said = command.communicate(timeout=60)[1]
    assert (command.returncode, said) == (1, "interrupted; the same command continues where this one stopped\n")
    assert list(storage.list_objects(f"file://{tmp_path}")) == []
