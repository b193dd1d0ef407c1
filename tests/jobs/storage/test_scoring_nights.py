"""A whole scoring run where archive, detectors and table lie on Azure (Azurite) or Google (a stub), not on S3."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs import storage
from jobs.results.known import read_rows
from jobs.storage import azure, clients, uris
from jobs.tables.schema import SCORES
from tests.support.clients import fresh_clients
from tests.support.servers.azurite import create_container, find_azurite, open_account, serve_azurite
from tests.support.servers.gcs_stub import serve_gcs
from tests.support.training import register_untrained

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _no_clients() -> Iterator[None]:
    with fresh_clients():
        yield


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A container of Azurite, where photos lie below keys that obstore cannot name."""
    if (program := find_azurite()) is None:
        pytest.skip("needs Azurite: npm install --prefix build/azurite azurite")
    with serve_azurite(program, tmp_path / "azurite") as settings:
        # The emulator does not know where to begin a listing, and Azure does.
        emulator = settings["AZURE_STORAGE_ENDPOINT"].rsplit("/", 1)[0]
        settings |= {"AZURE_STORAGE_USE_EMULATOR": "true", "AZURITE_BLOB_STORAGE_URL": emulator}
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        yield create_container()


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A bucket of the stub of Google's storage."""
    with serve_gcs() as address:
        account = {"disable_oauth": True, "client_email": "", "private_key": "", "private_key_id": ""}
        (tmp_path / "account.json").write_text(json.dumps(account | {"gcs_base_url": address}))
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(tmp_path / "account.json"))
        yield "gs://photos"


def _fill(place: str, drawn: Path, folder: Path) -> None:
    """Puts three photos, a broken one and an untrained detector there."""
    for number, path in enumerate(sorted((drawn / "data" / "insulator" / "test" / "good").glob("*.jpg"))[:3]):
        storage.write(uris.join(place, "archive", "pole", f"{number} ü%20.jpg"), path.read_bytes())
    storage.write(uris.join(place, "archive", "pole", "broken.jpg"), b"<html>")
    register_untrained(uris.join(place, "detectors"), "pole", folder=folder / "artifact")


def _score(place: str, run_id: str, *more: str) -> str:
    places = [word for name in ("archive", "detectors", "results") for word in (f"--{name}", uris.join(place, name))]
    argv = [*places, "--run-id", run_id, "--max-error-rate", "1", *more]
    done = subprocess.run(
        [sys.executable, "-m", "jobs.score", *argv],
        env=os.environ | {"RAY_ADDRESS": "local"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _read_table(place: str) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = read_rows(uris.join(place, "results"), SCORES.names).to_pylist()
    return rows


def _pick_scored(rows: list[dict[str, object]]) -> list[str]:
    return sorted(str(row) for row in rows if row["status"] == "scored")


@pytest.mark.ray
def test_a_night_on_azure_is_scored_and_its_second_run_scores_nothing(
    container: str, drawn: Path, tmp_path: Path
) -> None:
    _fill(container, drawn, tmp_path)
    photo = sorted((drawn / "data" / "insulator" / "test" / "good").glob("*.jpg"))[3].read_bytes()
    name = container.removeprefix("az://")
    azure.open_container(name).upload_blob("archive/pole//double.jpg", photo)
    with open_account().open_output_stream(f"{name}/archive/pole/./dot.jpg") as file:
        file.write(photo)
    _score(container, "one", "--scoring.actors", "1")
    rows = _read_table(container)
    assert Counter(row["status"] for row in rows) == {"scored": 4, "unreadable": 2}
    (double,) = [row for row in rows if str(row["image_uri"]).endswith("pole//double.jpg")]
    (dotted,) = [row for row in rows if str(row["image_uri"]).endswith("/./dot.jpg")]
    assert (double["status"], str(dotted["error"]).split(":")[0]) == ("scored", "refused")
    said = _score(container, "two", "--local")  # another Ray would show nothing more
    assert "run two: 1 unreadable; 0 anomalies" in said  # what was refused is asked for again
    assert _pick_scored(_read_table(container)) == _pick_scored(rows)


def test_a_night_on_google_is_scored_and_its_second_run_scores_nothing(gcs: str, drawn: Path, tmp_path: Path) -> None:
    _fill(gcs, drawn, tmp_path)
    photo = sorted((drawn / "data" / "insulator" / "test" / "good").glob("*.jpg"))[3].read_bytes()
    clients.open_boto3_client("gs").put_object(Bucket="photos", Key="archive/pole/.././/double.jpg", Body=photo)
    _score(gcs, "one", "--local")
    rows = _read_table(gcs)
    assert Counter(row["status"] for row in rows) == {"scored": 4, "unreadable": 1}
    said = _score(gcs, "two", "--local")
    assert "run two: no new photo" in said
    assert sorted(map(str, _read_table(gcs))) == sorted(map(str, rows))
