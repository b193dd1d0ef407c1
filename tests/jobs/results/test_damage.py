"""What is wrong with a table is said in one line, and nothing is written to it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Schema

from jobs.errors import DamagedFileError, DeniedError, JobError, MissingObjectError, RequestError, StorageError
from jobs.results import access, known
from jobs.results import delta as delta_module
from jobs.results.delta import make_schema, open_table, read_version
from jobs.results.errors import explain_delta_error
from jobs.results.known import NO_TABLE, read_rows, stream_known
from jobs.results.maintenance import optimize_table, repair_table, vacuum_table
from jobs.results.side_table import append_rows, read_table
from jobs.tables.schema import SCHEMA_VERSION, SCORES
from tests.jobs.results.score_rows import commit_rows, list_photos, score_row


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    """The folder of a table of three commits."""
    for number in range(3):
        commit_rows(f"file://{tmp_path}", [score_row(f"p{number}")], slice_number=number, known_since=number)
    delta_module._OPEN.__dict__.clear()  # another process reads it
    return tmp_path / "scores"


def log(scores: Path, version: int) -> Path:
    """The file of one commit."""
    return scores / "_delta_log" / f"{version:020d}.json"


def change(version: int, edit: Callable[[str], str]) -> Callable[[Path], None]:
    """An edit of one commit's file."""

    def apply(scores: Path) -> None:
        path = log(scores, version)
        path.write_text(edit(path.read_text()))

    return apply


def raise_protocol(text: str) -> str:
    """A first commit as a newer writer would leave it."""
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        if "protocol" in line:
            line["protocol"] = {
                "minReaderVersion": 3,
                "minWriterVersion": 7,
                "readerFeatures": ["timeMachine"],
                "writerFeatures": ["timeMachine"],
            }
    return "\n".join(map(json.dumps, lines))


@pytest.mark.parametrize(
    ("break_it", "kind", "said"),
    [
        (
            change(2, lambda text: text[: len(text) // 2]),
            StorageError,
            "log of .*/scores is damaged, restore _delta_log",
        ),
        (change(2, lambda _: "no json at all"), StorageError, "log of .*/scores is damaged"),
        (lambda scores: log(scores, 1).unlink(), StorageError, "log of .*/scores is damaged"),
        (lambda scores: log(scores, 0).unlink(), StorageError, "log of .*/scores is damaged"),
        (change(0, raise_protocol), RequestError, "needs a newer Delta protocol than this program knows"),
        (
            change(0, lambda text: text.replace(rf"version\":\"{SCHEMA_VERSION}", r"version\":\"99")),
            RequestError,
            f"has columns of version 99, this program knows up to {SCHEMA_VERSION}: update the program",
        ),
    ],
    ids=["cut", "garbage", "gap", "no first commit", "protocol", "schema"],
)
def test_a_table_that_cannot_be_read_is_left_as_it_is(
    scores: Path, break_it: Callable[[Path], None], kind: type[JobError], said: str
) -> None:
    break_it(scores)
    before = {path: path.read_bytes() for path in scores.rglob("*") if path.is_file()}
    for use in (
        lambda: stream_known(f"file://{scores.parent}", ["image_uri"]),
        lambda: commit_rows(f"file://{scores.parent}", [score_row("new")], slice_number=9),
    ):
        with pytest.raises(kind, match=said) as raised:
            use()
        assert "\n" not in str(raised.value)
    assert {path: path.read_bytes() for path in scores.rglob("*") if path.is_file()} == before


def find_file(scores: Path) -> Path:
    """The file of the second commit."""
    return next(scores.glob("night-1-00001-*.parquet"))


def cut(path: Path) -> None:
    """Leaves the first half of a file, as a full disk does."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scribble(path: Path) -> None:
    """Overwrites what lies before the footer, which stays as it is."""
    data = path.read_bytes()
    path.write_bytes(data[:20] + b"x" * 400 + data[420:])


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("damage", [Path.unlink, cut, scribble], ids=["lost", "cut", "scribbled"])
def test_a_file_that_cannot_be_read_is_named_with_what_to_do(
    scores: Path, damage: Callable[[Path], None], size: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, results = find_file(scores), f"file://{scores.parent}"
    damage(path)
    monkeypatch.setattr(known, "_SMALL_BYTES", 0 if size == "large" else known._SMALL_BYTES)
    kind = MissingObjectError if damage is Path.unlink else DamagedFileError
    with pytest.raises(kind, match=rf"{path} (does not exist|is damaged).*restore it.*jobs.table repair") as raised:
        list_photos(results)
    assert "\n" not in str(raised.value)
    path.unlink(missing_ok=True)
    assert repair_table(results) == [f"file://{path}"]
    assert list_photos(results) == ["p0", "p2"]


@pytest.mark.parametrize("damage", [Path.unlink, cut, scribble], ids=["lost", "cut", "scribbled"])
def test_a_compaction_stops_at_a_file_that_cannot_be_read(scores: Path, damage: Callable[[Path], None]) -> None:
    damage(find_file(scores))
    with pytest.raises(StorageError, match=r"a file of \S+/scores is (missing|damaged).*jobs.table repair"):
        optimize_table(f"file://{scores.parent}")


@pytest.mark.parametrize("damage", [Path.unlink, cut], ids=["lost", "cut"])
def test_nobody_is_sent_to_repair_a_table_that_repair_does_not_know(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    uri = f"file://{tmp_path}/verdicts"
    append_rows(uri, pa.table({"image_uri": ["a"]}), name="verdicts", description="for a test")
    damage(next((tmp_path / "verdicts").glob("*.parquet")))
    with pytest.raises(StorageError, match=r"verdicts is (missing|damaged).*restore it from a backup") as raised:
        read_table(uri, schema=pa.schema([("image_uri", pa.string())]))
    assert "jobs.table" not in str(raised.value)
    assert "\x1b" not in str(raised.value)


def test_a_file_in_the_place_of_the_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "scores").write_text("a note")
    with pytest.raises(RequestError, match=r"/scores is no folder, a table needs one: correct --results"):
        open_table(f"file://{tmp_path}")


def test_damage_of_the_log_is_told_without_a_backtrace(scores: Path) -> None:
    path = log(scores, 2)
    path.write_text(path.read_text()[:80])
    with pytest.raises(StorageError, match="the log of") as raised:
        open_table(f"file://{scores.parent}")
    assert "unknown" not in str(raised.value)


def test_a_delta_table_of_something_else_is_refused(tmp_path: Path) -> None:
    DeltaTable.create(str(tmp_path / "scores"), schema=Schema.from_arrow(pa.schema([("sales", pa.int64())])))
    with pytest.raises(RequestError, match=r"is a Delta table, but not of scores .*correct --results"):
        open_table(f"file://{tmp_path}")


def test_parquet_files_without_a_log_are_no_table(tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    (tmp_path / "scores" / "x.parquet").write_bytes(b"")
    with pytest.raises(RequestError, match=r"has Parquet files and no _delta_log"):
        open_table(f"file://{tmp_path}")


def test_a_folder_with_nothing_is_no_error(tmp_path: Path) -> None:
    version, rows = stream_known(f"file://{tmp_path}", ["image_uri"])
    assert (version, list(rows)) == (NO_TABLE, [])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("100%", "has a % in it"),
        ("a%20b", "has a % in it"),
        (r"D:\results", r"has a \ in it"),
        ("two\nlines", r"has a '\n' in it"),
        ("caf\uf7e9", r"has a '\uf7e9' in it"),  # a name that is not UTF-8
    ],
)
def test_a_folder_that_delta_lake_would_take_for_another_is_refused(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        open_table(f"file://{tmp_path}/{name}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["the results #1", "q?x", "ünï", "plus+", "~x", "run_date=2020-01-01", "_x.parquet"])
def test_other_names_of_folders_work_with_every_command(name: str, tmp_path: Path) -> None:
    results = f"file://{tmp_path}/{name}"
    for number in range(2):
        commit_rows(results, [score_row(f"p{number}")], slice_number=number, known_since=number)
        delta_module._OPEN.__dict__.clear()  # another process goes on
    assert optimize_table(results).files_after == 1
    assert repair_table(results) == []
    assert len(vacuum_table(results, retention_hours=0)) == 2
    assert list_photos(results) == ["p0", "p1"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_storage_without_conditional_writes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = access.storage.write
    monkeypatch.setattr(access.storage, "write", lambda uri, data, **_: write(uri, data))
    with pytest.raises(RequestError, match=r"ignores conditional writes .* could overwrite each other's commits"):
        commit_rows(f"file://{tmp_path}", [score_row("a")])
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_a_table_of_an_older_version_gets_the_new_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = f"file://{tmp_path}"
    with monkeypatch.context() as before:
        before.setattr(delta_module, "SCHEMA_VERSION", 1)
        older = Schema([field for field in make_schema().fields if field.name not in ("box", "tail_rank")])
        before.setattr(delta_module, "make_schema", lambda: older)
        delta_module.create_table(results)
    commit_rows(results, [score_row("a", box="0,0,1,1")])
    table = open_table(results)
    assert table is not None
    names = pa.schema(table.schema().to_arrow()).names
    assert set(names) == {*SCORES.names, "run_date"}
    assert read_rows(results, ["box"])["box"].to_pylist() == ["0,0,1,1"]
    assert read_version(table) == SCHEMA_VERSION


def test_a_denied_write_of_a_parquet_file_is_no_damaged_file() -> None:
    said = "Failed to parse parquet: External: Generic S3 error: PUT: 403 Forbidden: <Code>AccessDenied</Code>"
    found = explain_delta_error(OSError(said), "s3://bucket/results/scores", needs="write")
    assert isinstance(found, DeniedError)


@pytest.mark.parametrize("reason", ["Permission denied (os error 13)", "Read-only file system (os error 30)"])
def test_a_local_file_that_may_not_be_written_is_denied_and_nobody_is_told_to_delete_it(reason: str) -> None:
    said = f"Failed to parse parquet: Generic LocalFileSystem error: Unable to open file /r/p.parquet#1: {reason}"
    found = explain_delta_error(OSError(said), "file:///r/scores", needs="write")
    assert isinstance(found, DeniedError)
    assert "this user lacks the permission" in str(found)
    assert "delete" not in str(found)
