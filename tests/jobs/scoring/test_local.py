"""`jobs.score --local`: a small archive without Ray, with the rows that the cluster would give."""

from __future__ import annotations

import asyncio
import logging
import shutil
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import ray
import torch

from jobs.errors import RequestError
from jobs.results.known import read_rows
from jobs.scoring import preparation
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.local import map_ahead, run_loop
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.preparation import LOCAL_VIEWS, choose_local, plan_run
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.tables.schema import SCORES
from model.artifact import load_artifact


def _refuse(*_: Any, **__: Any) -> None:
    pytest.fail("it starts Ray")


def test_a_flat_folder_is_scored_without_ray_as_the_loaded_detector_scores_its_files(
    local_config: ScoreConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "init", _refuse)
    monkeypatch.setattr(ray, "remote", _refuse)
    assert scoring.score_archive(local_config) == 0
    rows = {row["image_uri"]: row for row in read_rows(local_config.results, SCORES.names).to_pylist()}
    assert [row["status"] for _, row in sorted(rows.items())] == ["scored"] * 3 + ["unreadable"]
    detector = load_artifact(tmp_path / "registry" / "pole", alias="champion")
    for uri, row in rows.items():
        if row["status"] == "scored":
            found = detector.score_file(uri.removeprefix("file://"))
            assert (found.score, found.p_value) == pytest.approx((row["score"], row["p_value"]), rel=1e-6)
            assert row["category"] == "pole"
    assert "3 scored, 1 unreadable" in capsys.readouterr().out
    assert scoring.score_archive(local_config.model_copy(update={"local": False})) == 0  # published: nothing to do


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster is named, and this process is in none."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr(ray, "is_initialized", lambda: False)


MANY_CORES, TWO_CORES = LOCAL_VIEWS[False], LOCAL_VIEWS[True]


def _make_plan(config: ScoreConfig, *, image_size: int, views: int) -> ScoringPlan:
    plan = plan_run(config, {"pole"})
    planned = plan.by_category["pole"].model_copy(update={"image_size": image_size, "views": views})
    return plan.model_copy(update={"by_category": {"pole": planned}})


def _change(config: ScoreConfig, **changes: Any) -> ScoreConfig:
    return ScoreConfig.model_validate(config.model_dump() | changes)


@pytest.mark.usefixtures("alone")
def test_few_photos_are_scored_without_ray_where_no_cluster_is_named(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(ray, "init", _refuse)
    assert scoring.score_archive(_change(local_config, local=None)) == 0
    assert "4 of 4 photos to score in this process" in capsys.readouterr().out


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(
    ("changes", "photos", "cores", "expected"),
    [
        ({}, MANY_CORES, 16, True),
        ({}, MANY_CORES + 1, 16, False),
        ({}, TWO_CORES, 2, True),
        ({}, 10**7, 2, True),
        ({"scoring": {"actors": 2}}, 1, 2, False),
        ({"scoring": {"max_actors": 2}}, 1, 2, False),
        ({"scoring": {"use_gpu": True}}, 1, 2, False),
        ({"scoring": {"batch_photos": 8}}, 1, 2, False),
        ({"local": False}, 1, 2, False),
        ({"local": True}, 10**6, 16, True),
    ],
)
def test_a_run_is_local_as_asked_or_where_it_is_small_and_nothing_asks_for_a_cluster(
    local_config: ScoreConfig,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    photos: int,
    cores: int,
    *,
    expected: bool,
) -> None:
    monkeypatch.setattr(preparation, "count_cores", lambda: cores)
    config = _change(local_config, **({"local": None} | changes))
    assert choose_local(config, _make_plan(local_config, image_size=224, views=1), photos) is expected


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("image_size", "views"), [(448, 1), (224, 4), (448, 64)])
def test_a_detector_with_more_to_do_makes_a_run_local_for_fewer_photos(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch, image_size: int, views: int
) -> None:
    monkeypatch.setattr(preparation, "count_cores", lambda: 16)
    config = _change(local_config, local=None)
    plan, most = _make_plan(config, image_size=image_size, views=views), MANY_CORES * 224**2 // (views * image_size**2)
    assert [choose_local(config, plan, photos) for photos in (most, most + 1)] == [True, False]


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize(("views", "expected"), [(2, True), (3, False)])
def test_two_cores_score_any_number_of_photos_locally_where_decoding_is_half_of_the_work(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch, views: int, *, expected: bool
) -> None:
    monkeypatch.setattr(preparation, "count_cores", lambda: 2)
    config = _change(local_config, local=None)
    plan = _make_plan(config, image_size=224, views=views)
    assert choose_local(config, plan, 10**7) is expected
    assert choose_local(config, plan, TWO_CORES // views)


@pytest.mark.parametrize("address", ["local", "10.0.0.1:6379"])
def test_a_named_cluster_scores_even_one_photo(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert not choose_local(_change(local_config, local=None), _make_plan(local_config, image_size=64, views=1), 1)


def test_the_record_of_a_run_in_one_process_has_its_rate_and_its_first_score(local_config: ScoreConfig) -> None:
    assert scoring.score_archive(local_config) == 0
    record = read_record(RunFolder(local_config.results, local_config.run_id))
    assert record is not None
    assert 0 < record["timings_s"]["to_first_batch"] <= record["timings_s"]["scoring"]


def give(result: int | Exception) -> Future[int]:
    """A future that is done."""
    future = Future[int]()
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
    return future


def test_batches_come_in_order_and_only_so_many_are_begun_ahead() -> None:
    begun: list[int] = []

    def begin(item: int) -> Future[int]:
        begun.append(item)
        return give(item)

    results = map_ahead(begin, iter(range(20)), ahead=2)
    for number, result in enumerate(results):
        assert result == number
        assert len(begun) <= number + 3
    assert begun == list(range(20))


def test_an_error_comes_where_its_result_would_have_come_and_begins_nothing_more() -> None:
    begun: list[Future[int]] = []

    def fail_at_three(item: int) -> Future[int]:
        begun.append(give(ValueError("three") if item == 3 else item) if item < 5 else Future())
        return begun[-1]

    results = map_ahead(fail_at_three, iter(range(100)), ahead=2)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert len(begun) == 6
    assert begun[5].cancelled()


def test_what_is_under_way_in_a_loop_is_cancelled_when_its_block_ends() -> None:
    ended: list[str] = []

    async def wait(begun: threading.Event) -> None:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.append("cancelled")

    begun = threading.Event()
    with run_loop() as loop:
        asyncio.run_coroutine_threadsafe(wait(begun), loop)
        assert begun.wait(timeout=30)
    assert ended == ["cancelled"]


def test_folders_called_key_value_are_names_and_names_reach_a_terminal_escaped(
    local_config: ScoreConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "year=2026" / "site=a b"
    for name in ("flat", "registry"):
        shutil.copytree(tmp_path / name, place / name)
    (place / "flat" / "0.jpg").rename(place / "flat" / "\x1b[2Jred.jpg")
    (place / "flat" / "broken.jpg").rename(place / "flat" / "\x1b]0;title\x07.jpg")
    (place / "flat" / ".\x1b[31mhidden").write_bytes(b"x")
    asked = {"archive": f"file://{place}/flat", "detectors": f"file://{place}/registry"}
    config = local_config.model_copy(update=asked | {"results": f"file://{place}/results=1"})
    assert scoring.score_archive(config) == 0
    assert scoring.score_archive(config.model_copy(update={"run_id": "again"})) == 0
    rows = read_rows(config.results, SCORES.names).to_pylist()
    names = sorted(row["image_uri"].rsplit("/", 1)[1] for row in rows if row["run_id"] == "n")
    assert names == ["\x1b[2Jred.jpg", "\x1b]0;title\x07.jpg", "1.jpg", "2.jpg"]
    assert {(row["category"], row["site"]) for row in rows} == {("pole", None)}
    said = capsys.readouterr()
    assert "\\x1b[2Jred.jpg" in said.out
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err


def test_a_person_who_scores_here_reads_the_summary_and_no_json_lines_unless_asked_for(
    local_config: ScoreConfig, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # whatever ran before in this process
    monkeypatch.setattr(logging.getLogger("attentdiffernet"), "level", logging.WARNING)
    assert scoring.score_archive(local_config) == 0
    assert '"event"' not in capfd.readouterr().err
    asked = local_config.model_copy(update={"log_format": "json", "run_id": "asked"})
    assert scoring.score_archive(asked) == 0
    assert '"event": "published"' in capfd.readouterr().err


def test_a_gpu_that_this_machine_lacks_is_refused_before_the_archive_is_listed(
    local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(scoring, "prepare_run", _refuse)
    asked = ScoreConfig.model_validate(local_config.model_dump() | {"scoring": {"use_gpu": True}})
    with pytest.raises(RequestError, match="needs 1 GPU, this machine has 0"):
        scoring.score_archive(asked)


def test_results_below_the_archive_are_no_photos_of_the_next_night(
    local_config: ScoreConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    config = local_config.model_copy(update={"results": f"{local_config.archive}/results"})
    assert scoring.score_archive(config) == 0
    assert scoring.score_archive(config.model_copy(update={"run_id": "next"})) == 0
    assert len(read_rows(config.results, ["image_uri"])) == 4
    said = capsys.readouterr()
    assert f"in {config.results} (results/" in said.out + said.err


@pytest.mark.parametrize(
    ("taken", "said"), [("archive", "--archive, the photos"), ("detectors", "a registry of detectors")]
)
def test_results_in_the_folder_of_something_else_are_refused_before_anything_is_written(
    taken: str, said: str, local_config: ScoreConfig
) -> None:
    place = str(getattr(local_config, taken))
    before = sorted(Path(place.removeprefix("file://")).rglob("*"))
    with pytest.raises(RequestError, match=said):
        scoring.score_archive(local_config.model_copy(update={"results": place}))
    assert sorted(Path(place.removeprefix("file://")).rglob("*")) == before
