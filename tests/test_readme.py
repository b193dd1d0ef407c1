"""What one pastes from the README and infra/docs is run here, against small drawn photos on the real S3 server.

tests/test_docs.py checks the rest: commands that take hours, flags in the text, links.
"""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from jobs import evaluate, manifest, recalibrate, registry, score, storage, train
from jobs.detectors.aliases import read_aliases
from jobs.results.commit import commit_slice
from jobs.tables.schema import SCORES
from tests.support.detectors import TINY
from tests.support.pages import PAGES, blocks, find_command, names
from tests.support.places import ROOT
from tuning import search


@pytest.fixture(autouse=True)
def _stay_out_of_the_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command writes beside itself, such as the registry's list, lands in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def inspection(s3_environment: str | None, cluster: str, drawn: Path) -> str:
    """The bucket that the README speaks of, with training photos and an archive."""
    if s3_environment is not None:
        pytest.skip(s3_environment)
    import boto3

    client = boto3.client("s3")
    with suppress(client.exceptions.BucketAlreadyOwnedByYou):
        client.create_bucket(Bucket="inspection")
    for source, target in ((drawn / "data", "training"), (drawn / "archive", "archive")):
        for path in source.rglob("*.jpg"):
            storage.write(f"s3://inspection/{target}/{path.relative_to(source)}", path.read_bytes())
    return "s3://inspection"


@pytest.mark.docs
def test_the_main_job_s_commands_run_as_they_stand(
    inspection: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump({"detector": TINY, "optimizer": {"epochs": 5}}))
    assert train.main(["--config", str(small), *find_command("python -m jobs.train ")]) == 0
    arguments = find_command("python -m jobs.score ")
    assert score.main(arguments) == 3  # 5 broken files among 41 are more than the 5 % that --max-error-rate allows
    assert score.main(arguments) == 3
    assert "already published" in capsys.readouterr().out
    assert evaluate.main(find_command("python -m jobs.evaluate ")) == 0
    assert manifest.main(["--archive", f"{inspection}/archive", "--output", str(tmp_path / "m.parquet")]) == 0

    _download(f"{inspection}/results", tmp_path / "results")
    _download(f"{inspection}/detectors", tmp_path / "detectors")
    some = next(info.uri for info in storage.list_objects(f"{inspection}/training"))
    (tmp_path / "photo.jpg").write_bytes(storage.read(some))
    shutil.copytree(ROOT / "infra" / "analyst", tmp_path / "infra" / "analyst")
    capsys.readouterr()
    for page in PAGES:
        for block in blocks(page, "python"):
            exec(compile(block, page.name, "exec"), {})
    said = capsys.readouterr().out
    assert re.search(r"^[01]\.\d+$", said, re.MULTILINE)  # the p-value of one photo
    assert "image_uri" in said  # DuckDB's table
    assert re.search(r"insulator\s+scored\s+36", said)  # pandas' counts


@pytest.mark.docs
@pytest.mark.timeout(900)
def test_the_fleet_s_commands_run_as_they_stand(
    inspection: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.yaml"
    small.write_text(yaml.safe_dump({"detector": TINY, "optimizer": {"epochs": 5}}))
    fleet = find_command("python -m jobs.train --data s3://inspection/training --category all ")
    beginning = ["--data", f"{inspection}/training", "--category", "all"]
    assert train.main(["--config", str(small), *beginning, *fleet]) == 0
    detectors = f"{inspection}/detectors"
    names = {f"{variant}.seed{seed}" for variant in ("differnet", "attentdiffernet_se") for seed in range(3)}
    assert names <= set(read_aliases(detectors, "insulator"))
    before = read_aliases(detectors, "insulator")["champion"]

    assert registry.main(["list", *find_command("python -m jobs.registry list ")]) == 0
    assert (tmp_path / "detectors.parquet").exists()
    assert registry.main(["promote", *find_command("python -m jobs.registry promote ")]) == 0
    promoted = read_aliases(detectors, "insulator")
    assert promoted["champion"] == promoted["attentdiffernet_se.seed0"] != before
    assert registry.main(["rollback", *find_command("python -m jobs.registry rollback ")]) == 0
    assert read_aliases(detectors, "insulator")["champion"] == before

    for info in storage.list_objects(f"{inspection}/training/insulator/test/good"):
        name = info.uri.rsplit("/", 1)[-1]
        storage.write(f"{inspection}/new-season/insulator/train/good/{name}", storage.read(info.uri))
    assert recalibrate.main(find_command("python -m jobs.recalibrate ", having="--data")) == 0
    assert read_aliases(detectors, "insulator")["champion"] != before
    assert "champion" in capsys.readouterr().out


@pytest.mark.docs
@pytest.mark.timeout(900)
def test_the_search_s_command_runs_as_it_stands_and_its_winner_can_be_trained(
    inspection: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = tmp_path / "small.yaml"
    space = {"image_size": 128, "scales": 2, "flow_hidden_width": 32, "flow_blocks": 2, "pretext_steps": 2}
    small.write_text(
        yaml.safe_dump(
            {
                "detector": {**TINY, "collapse_guard": False},
                "optimizer": {"epochs": 2},
                "space": space,
                "validation_share": 0.5,
                "finalists": 1,
            }
        )
    )
    asked = find_command("python -m tuning.search ", having="--trials")
    smaller = [*asked[: asked.index("--trials")], "--trials", "5", "--seeds", "1", "--finalist-seeds", "1"]
    assert search.main(["--config", str(small), *smaller]) == 0
    results = f"{inspection}/search/insulator"
    assert "sealed until the winner stands" in capsys.readouterr().out
    assert b"Final comparison" in storage.read(f"{results}/index.html")
    (tmp_path / "winner.yaml").write_bytes(storage.read(f"{results}/winner.yaml"))
    assert train.main(["--config", str(tmp_path / "winner.yaml"), "--seeds", "1"]) == 0


def _download(uri: str, folder: Path) -> None:
    for info in storage.list_objects(uri):
        if info.uri.endswith("/"):
            continue  # a folder marker of pyarrow's
        place = folder / info.uri.removeprefix(uri + "/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(storage.read(info.uri))


QUERYING = [page for page in PAGES if page.name == "README.md"]


@pytest.mark.parametrize("page", QUERYING, ids=names)
@pytest.mark.parametrize("number", [0, 1], ids=["duckdb", "pandas"])
def test_a_query_gives_each_photo_once(
    page: Path, number: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    publish(results, "first", day=1, rows={"a": 0.011, "b": 0.012})
    publish(results, "second", day=2, rows={"a": 0.013, "c": 0.014})
    (file, *_) = (results / "scores").rglob("*.parquet")
    file.with_name("leftover.parquet").write_bytes(file.read_bytes())  # of a run that was killed before its commit
    duckdb.set_default_connection(duckdb.connect())  # views of other tests are not those of a newcomer
    found: dict[str, Any] = {}
    exec(compile(blocks(page, "python")[number], page.name, "exec"), found)
    assert capsys.readouterr().out
    photos = found["photos"] if "photos" in found else found["rows"].drop_duplicates("image_uri", keep="last")
    columns = ["image_uri", "p_value"]
    rows = photos[columns].values.tolist() if isinstance(photos, pd.DataFrame) else photos.select(*columns).fetchall()
    assert sorted(map(tuple, rows)) == [("a", 0.013), ("b", 0.012), ("c", 0.014)]


def publish(results: Path, run_id: str, *, day: int, rows: dict[str, float]) -> None:
    """Commits a run's rows of scored photos."""
    at = datetime(2026, 3, day, tzinfo=UTC)
    scored = {"category": "insulator", "status": "scored", "image_etag": run_id, "run_id": run_id, "scored_at": at}
    table = [scored | {"image_uri": uri, "p_value": p, "score": 1 / p} for uri, p in rows.items()]
    batches = pa.Table.from_pylist(table, schema=SCORES).to_batches()
    commit_slice(f"file://{results}", batches, run_id=run_id, slice_number=0, run_date=at.date(), known_since=-1)


@pytest.mark.docs
@pytest.mark.timeout(420)
def test_the_demo_runs_with_nothing_configured(tmp_path: Path) -> None:
    """In a process and a Ray of its own, as `make demo` does, in under five minutes."""
    import os
    import subprocess
    import sys

    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_ADDRESS"))}
    done = subprocess.run(
        [sys.executable, "-m", "jobs.demo", "--folder", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    found = re.search(r"AUROC of the archive, defective against flawless: ([\d.]+) %", done.stdout)
    assert found is not None
    assert float(found[1]) > 70  # seeded random features reach 82 to 84 on three seeds
    assert "features: " in done.stdout
    assert "line-07" in done.stdout
    shutil.rmtree(tmp_path)
