"""One Ray, one S3 server and one set of real photos for the whole session."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from jobs.scoring.config import ScoreConfig
from tests.support.buckets import create_bucket
from tests.support.places import SHARED
from tests.support.training import register_untrained, request_tiny_training
from tests.support.users import CEPH_FOLDER

# Ignored in what a shell starts in the background, and inherited: tests could not interrupt anything then.
signal.signal(signal.SIGINT, signal.default_int_handler)
# A deadline in milliseconds would measure what else the machine does. Every run draws the same examples, so that a
# change is blamed for its own faults alone; `make nightly` looks for new ones.
hypothesis.settings.register_profile("same examples", deadline=None, derandomize=True)
hypothesis.settings.register_profile("new examples", deadline=None, max_examples=1000)
hypothesis.settings.load_profile("same examples")

_AWS = ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks the tests that need Ray or the S3 server by their fixtures, so that `make test-fast` can leave them out.

    Raises:
        pytest.UsageError: a test is named by an address in memory or by packed bytes, which hold the second in which
            they were packed: test processes side by side do not share them.
    """
    for item in items:
        if " at 0x" in item.nodeid or r"\x1f\x8b" in item.nodeid:
            raise pytest.UsageError(f"{item.nodeid} changes its name with every process: give its case an id")
        needed = getattr(item, "fixturenames", [])
        for fixture, mark in (("cluster", pytest.mark.ray), ("s3_environment", pytest.mark.s3)):
            if fixture in needed:
                item.add_marker(mark)


def _free_ports(count: int) -> list[int]:
    """Ports whose next neighbour is free too. Test processes that run side by side look in ranges of their own."""
    found = []
    first_port = 17480 + 500 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    for port in range(first_port, first_port + 500, 2):
        with socket.socket() as first, socket.socket() as second:
            if first.connect_ex(("127.0.0.1", port)) and second.connect_ex(("127.0.0.1", port + 1)):
                found.append(port)
        if len(found) == count:
            return found
    raise RuntimeError("no free ports on the loopback interface")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference folder with real photos and weights."""
    if not (SHARED / "data").is_dir():
        pytest.skip(f"needs the real photos and weights in {SHARED}")
    return SHARED


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | None]:
    """Starts the real S3 server, if there is one, and points AWS_* at it; before Ray, which inherits them."""
    script = SHARED / "s3" / "ceph-s3"
    if not script.exists() or not shutil.which("radosgw"):
        yield f"needs {script} and Debian's radosgw, ceph-mon, ceph-osd"
        return
    assignments, folder = _started_s3(script, tmp_path_factory)
    before = {name: os.environ.get(name) for name in _AWS}
    os.environ.update(item.split("=", 1) for item in assignments)
    os.environ[CEPH_FOLDER] = str(folder)
    yield None
    subprocess.run([str(script), "down", str(folder)], check=True, capture_output=True)
    del os.environ[CEPH_FOLDER]
    for name, value in before.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value


def _started_s3(script: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], Path]:
    """The environment to use, as NAME=value, and the server's folder.

    Up to eight tries on fresh ports: about one start in four fails, when the OSD asks the monitor for its device class
    before the monitor's first map ("mon_cmd_maybe_osd_create fail: 'wrong fsid'").
    """
    said = []
    for port in _free_ports(8):
        folder = tmp_path_factory.mktemp("ceph")
        started = subprocess.run([str(script), "up", str(folder), str(port)], capture_output=True, text=True)
        if started.returncode == 0:
            return started.stdout.strip().splitlines()[-1].removeprefix("export ").split(), folder
        said.append(f"port {port}: exit {started.returncode} {started.stderr.strip()[-300:]}")
        subprocess.run([str(script), "down", str(folder)], check=True, capture_output=True)
    raise RuntimeError("the S3 server did not start: " + "; ".join(said))


@pytest.fixture
def bucket(s3_environment: str | None) -> str:
    """The URI of a new bucket on the real S3 server."""
    return create_bucket(s3_environment)


@pytest.fixture(scope="session")
def cluster(s3_environment: str | None) -> Iterator[str]:
    """The session's one Ray; its address. More CPU slots than cores, or the stages would starve each other."""
    import ray

    from jobs import storage

    os.environ.setdefault("RAY_DATA_USE_DATASOURCE_V2", "0")
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    # W&B gives its own process 30 s to start, once for each trial: a busy machine takes longer, and that run is lost.
    os.environ.setdefault("WANDB__SERVICE_WAIT", "300")
    for tries_left in (2, 1, 0):
        try:
            context = ray.init(
                address="local",  # else Ray joins the last cluster that was started on this machine
                num_cpus=8,
                num_gpus=2,  # logical ones, for tests of how they are shared
                runtime_env={"env_vars": storage.make_worker_environment()},
                object_store_memory=600_000_000,
                include_dashboard=False,
                log_to_driver=False,
                logging_level="warning",
            )
            break
        except Exception:  # Ray's own kind: on a busy machine its agents do not start within its fixed time
            ray.shutdown()
            if not tries_left:
                raise
    yield str(context.address_info["address"])
    ray.shutdown()


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawn photos in MVTec layout under ``data``, and an archive of them with broken files under ``archive``."""
    from jobs.synthetic.archive import draw_archive

    folder = tmp_path_factory.mktemp("drawn")
    draw_archive(folder, size_px=128, train_good=60, test_good=20, missing_cap=8, rust=8)
    return folder


@pytest.fixture(scope="session")
def detectors(cluster: str, drawn: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registry, as a local folder, whose champion of category insulator is a tiny attentdiffernet_se."""
    from jobs.training import run as training
    from jobs.training.config import TrainConfig

    registry = tmp_path_factory.mktemp("registry")
    assert training.train_detectors(TrainConfig.model_validate(request_tiny_training(drawn, registry))) == 0
    return f"file://{registry}"


@pytest.fixture
def local_config(drawn: Path, tmp_path: Path) -> ScoreConfig:
    """A request for a flat folder of three photos and a broken one, with an untrained detector."""
    folder = tmp_path / "flat"
    folder.mkdir()
    for number, path in enumerate(sorted((drawn / "data" / "insulator" / "test" / "good").glob("*.jpg"))[:3]):
        shutil.copy(path, folder / f"{number}.jpg")
    (folder / "broken.jpg").write_bytes(b"<html>")
    registry = f"file://{tmp_path}/registry"
    register_untrained(registry, "pole", folder=tmp_path / "artifact")
    request = {"archive": str(folder), "detectors": registry, "results": str(tmp_path / "results"), "run_id": "n"}
    return ScoreConfig.model_validate(request | {"local": True, "category": "pole"})
