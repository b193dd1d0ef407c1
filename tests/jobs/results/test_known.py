"""What is known of some photos: other files of the table are not read beyond their names of photos."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from jobs.results import delta, known
from jobs.results.known import read_rows, stream_known
from jobs.results.maintenance import optimize_table
from tests.jobs.results.score_rows import commit_rows, night, score_row


@pytest.fixture
def results(tmp_path: Path) -> str:
    """Four nights of two photos each; the last has seen one again."""
    found = f"file://{tmp_path}/the results #1"
    nights = [("a", "m"), ("b", "y"), ("c", "z"), ("a", "n")]
    for number, photos in enumerate(nights):
        run = f"night-{number}"
        rows = [score_row(photo, run_id=run, day=night(number)) for photo in photos]
        commit_rows(found, rows, run_id=run, day=night(number), known_since=number)
    return found


def read_runs(results: str, photos: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], int]:
    """Returns the runs of rows that come for some photos, and how many files were read whole."""
    scan, files = known.scan_files, list[known.ActiveFile]()

    def watch(found: list[known.ActiveFile], columns: list[str]) -> object:
        files.extend(found)
        return scan(found, columns)

    monkeypatch.setattr(known, "scan_files", watch)
    _, rows = stream_known(results, ["image_uri", "run_id"], photos=pa.array(photos, pa.string()))
    return sorted({row["run_id"] for batch in rows for row in batch.to_pylist()}), len(files)


@pytest.mark.parametrize(
    ("photos", "runs"),
    [(["a"], ["night-0", "night-3"]), (["z", "new"], ["night-2"]), (["new"], []), ([], [])],
)
def test_files_without_a_wanted_photo_are_left_out(
    photos: list[str], runs: list[str], results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_runs(results, photos, monkeypatch) == (runs, len(runs))


def test_a_file_whose_range_of_photos_has_no_wanted_one_is_not_opened(
    results: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def watch(files: list[str], **_: object) -> set[str]:
        opened.extend(files)
        return set()

    monkeypatch.setattr(known, "find_files", watch)
    stream_known(results, ["image_uri"], photos=pa.array(["o", "z1"], pa.string()))
    nights = sorted(uri.rsplit("/", 1)[1].split("-0")[0] for uri in opened)
    assert nights == ["night-1", "night-2"]


def test_a_log_that_has_not_gone_on_is_not_read_again(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = read_rows(results, ["image_uri"])
    for name in ("update_incremental", "get_add_actions"):
        monkeypatch.setattr(DeltaTable, name, lambda *_, **__: pytest.fail("the log was read anew"))
    assert read_rows(results, ["image_uri"]) == before


@pytest.mark.parametrize("is_compacted", [False, True], ids=["as written", "compacted"])
def test_unique_columns_have_no_dictionary(results: str, is_compacted: bool) -> None:
    if is_compacted:
        optimize_table(results)
    files = sorted(Path(results.removeprefix("file://")).glob("scores/*.parquet"))
    first = next(path for path in files if path.name.startswith("part-") == is_compacted)
    columns = pq.read_metadata(first).row_group(0).to_dict()["columns"]
    with_dictionary = {column["path_in_schema"] for column in columns if column["has_dictionary_page"]}
    assert "run_id" in with_dictionary
    assert not {"image_uri", "image_etag", "image_key"} & with_dictionary


def test_the_log_is_read_once_however_often_the_table_is(results: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = len(read_rows(results, ["image_uri"]))
    monkeypatch.setattr(delta, "open_table", lambda _: pytest.fail("the log was read anew"))
    commit_rows(results, [score_row("new", run_id="night-9")], run_id="night-9")
    assert len(read_rows(results, ["image_uri"])) == before + 1
