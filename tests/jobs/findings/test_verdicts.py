"""Verdicts: a file of them becomes rows of a Delta table; what is none is named; twice is once."""

from __future__ import annotations

import math
from contextlib import nullcontext
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import verdicts
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, RequestError
from jobs.findings.verdicts import read_verdict_list
from jobs.review.verdicts import read_latest_verdicts, read_verdicts, select_latest
from jobs.storage import uris
from tests.jobs.results.score_rows import commit_rows, score_row

DOWNLOADED = """image_uri,image_etag,box,verdict,by,at\r
"s3://archive/a, b.jpg","0a","","defect","","2026-11-02T08:00:00.000Z"\r
"s3://archive/c.jpg","","10,20,300,40","good","anna","2026-11-02T08:01:00.000Z"\r
"""


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def results(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = f"file://{tmp_path}" if request.param == "file" else str(request.getfixturevalue("bucket"))
    return uris.join(place, "results")


def _add(results: str, content: str | bytes, folder: Path, *flags: str) -> int:
    file = folder / "verdicts.csv"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return verdicts.main(["add", str(file), "--results", results, *flags])


def _read(results: str) -> list[dict[str, object]]:
    found = read_verdicts(results)
    assert found is not None
    rows: list[dict[str, object]] = found.sort_by("image_uri").to_pylist()
    return rows


def test_what_the_page_downloads_is_taken_as_it_is(results: str, tmp_path: Path) -> None:
    assert _add(results, DOWNLOADED, tmp_path, "--by", "bert") == EXIT_DONE
    first, second = _read(results)
    assert (first["image_uri"], first["image_etag"], first["box"], first["verdict"], first["by"]) == (
        "s3://archive/a, b.jpg",
        "0a",
        None,
        "defect",
        "bert",
    )
    assert (second["box"], second["verdict"], second["by"]) == ("10,20,300,40", "good", "anna")


@pytest.mark.parametrize("written", ["10.0,20.2,300.0,39.8", "010,20,300,40", "(10; 20; 300; 40)"])
def test_a_box_is_stored_as_the_result_table_writes_it(written: str, tmp_path: Path) -> None:
    """Else the verdict would find no row of the results."""
    results = uris.normalize(str(tmp_path / "results"))
    assert _add(results, f'image_uri,verdict,box\ns3://a/1.jpg,good,"{written}"\n', tmp_path) == EXIT_DONE
    assert [one["box"] for one in _read(results)] == ["10,20,300,40"]


def test_boxes_with_decimal_commas_are_named_and_never_misread(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    content = "image_uri;x;y;width;height;verdict\ns3://a/1.jpg;10,5;20;30;40;good\ns3://a/2.jpg;1.5;2;3;4;good\n"
    assert _add(results, content, tmp_path) == EXIT_TOO_MANY_UNREADABLE
    assert "got 10,5,20,30,40: decimals need a point, 10.5 in place of 10,5" in capsys.readouterr().err
    assert [(one["image_uri"], one["box"]) for one in _read(results)] == [("s3://a/2.jpg", "2,2,3,4")]


def test_the_older_names_of_columns_are_read_as_in_archive_lists(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    assert _add(results, 'URI,etag,verdict\ns3://a/1.jpg,"""0a""",good\n', tmp_path) == EXIT_DONE
    assert [(one["image_uri"], one["image_etag"]) for one in _read(results)] == [("s3://a/1.jpg", "0a")]


def test_who_looked_is_not_known_where_this_user_has_no_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find_none() -> str:
        raise KeyError("getpwuid(): uid not found: 1000780000")

    monkeypatch.setattr("getpass.getuser", find_none)
    results = uris.normalize(str(tmp_path / "results"))
    assert _add(results, "image_uri,verdict,by\ns3://a/1.jpg,good,\ns3://a/2.jpg,good,ann\n", tmp_path) == EXIT_DONE
    assert [one["by"] for one in _read(results)] == [None, "ann"]


def test_the_same_file_again_adds_nothing(results: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        assert _add(results, DOWNLOADED, tmp_path, "--by", "bert") == EXIT_DONE
    assert len(_read(results)) == 2
    assert "0 verdicts added" in capsys.readouterr().out


def test_the_newest_verdict_holds(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    head = "image_uri,verdict,at\n"
    _add(results, head + "s3://a/1.jpg,defect,2026-11-02T08:00:00Z\n", tmp_path)
    _add(results, head + "s3://a/1.jpg,good,2026-11-03T08:00:00Z\ns3://a/1.jpg,unsure,2026-11-01T08:00:00Z\n", tmp_path)
    found = read_verdicts(results)
    assert found is not None
    assert select_latest(found)["verdict"].to_pylist() == ["good"]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("s3://a/1.jpg,scratch,,", "verdict must be good, defect, unsure, got scratch"),
        (",good,,", "image_uri must be s3://bucket/key"),
        ("photo.jpg,good,,", "image_uri must be s3://bucket/key"),
        ('s3://a/1.jpg,good,"1,2,3",', "box must be x,y,width,height"),
        ('s3://a/1.jpg,good,"1,2,0,4",', "box must be x,y,width,height"),
        ('s3://a/1.jpg,good,"1,5;2;30;4",', "box must be x,y,width,height in pixels, got 1,5;2;30;4: decimals need a"),
        ("s3://a/1.jpg,good,,yesterday", "at must be a time"),
        ("s3://a/1.jpg,good,,2226-01-01T00:00:00", "at must be past, or no later verdict would ever hold"),
        ("s3://a/1.jpg,\x1b[2J,,", r"verdict must be good, defect, unsure, got \x1b[2J"),
    ],
)
def test_a_row_that_is_no_verdict_is_named_and_the_others_are_added(
    row: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    content = f"image_uri,verdict,box,at\n{row}\ns3://a/2.jpg,Good ,,\n"
    assert _add(results, content, tmp_path) == EXIT_TOO_MANY_UNREADABLE
    assert f"left out row 1 of file://{tmp_path}/verdicts.csv: {said}" in capsys.readouterr().err
    assert [(one["image_uri"], one["verdict"]) for one in _read(results)] == [("s3://a/2.jpg", "good")]


def test_photos_that_nobody_has_judged_yet_are_counted_and_are_no_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    assert _add(results, "image_uri,verdict\ns3://a/1.jpg,\ns3://a/2.jpg,defect\n", tmp_path) == EXIT_DONE
    assert "1 photos of the list have no verdict yet" in capsys.readouterr().out
    assert [one["image_uri"] for one in _read(results)] == ["s3://a/2.jpg"]


def test_blank_rows_below_a_spreadsheet_are_no_fault(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    content = "\ufeffimage_uri;box;verdict;at\r\ns3://a/1.jpg;1,2,3,4;Good;2026-11-02\r\n;;;\r\n;;;\r\n"
    assert _add(results, content, tmp_path) == EXIT_DONE
    assert [(one["image_uri"], one["box"]) for one in _read(results)] == [("s3://a/1.jpg", "1,2,3,4")]


def test_verdicts_of_one_moment_that_differ_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    rows = [("1", "good"), ("1", "defect"), ("2", "good"), ("2", "good")]
    content = "image_uri,verdict\n" + "".join(f"s3://a/{name}.jpg,{verdict}\n" for name, verdict in rows)
    assert _add(results, content, tmp_path) == EXIT_DONE
    assert (
        "1 photos have different verdicts of one moment, such as s3://a/1.jpg: defect holds" in capsys.readouterr().err
    )
    assert read_latest_verdicts(results).sort_by("image_uri")["verdict"].to_pylist() == ["defect", "good"]


def test_verdicts_on_boxes_that_are_not_read_are_on_whole_photos_and_say_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    assert _add(results, "image_uri,x,y,w,h,verdict\ns3://a/1.jpg,1,2,3,4,good\n", tmp_path) == EXIT_DONE
    assert "no boxes are read from x, y, its rows are whole photos" in capsys.readouterr().err


def test_a_parquet_file_is_taken_too(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    pq.write_table(pa.table({"image_uri": ["s3://a/1.jpg"], "verdict": ["unsure"]}), tmp_path / "marks.parquet")
    assert verdicts.main(["add", "--file", str(tmp_path / "marks.parquet"), "--results", results]) == EXIT_DONE
    assert [one["verdict"] for one in _read(results)] == ["unsure"]


def test_columns_of_other_types_are_read_as_archive_lists_are(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    listed = {
        "image_uri": ["s3://a/1.jpg", "s3://a/2.jpg"],
        "verdict": ["good", "defect"],
        "image_etag": ['"0a"', None],
        "by": [7, None],
        "at": [date(2026, 11, 2), None],
        "x": [1.0, math.nan],
        "y": [2.0, math.nan],
        "width": [3.0, math.nan],
        "height": [4.0, math.nan],
    }
    pq.write_table(pa.table(listed), tmp_path / "marks.parquet")
    assert verdicts.main(["add", str(tmp_path / "marks.parquet"), "--results", results, "--by", "me"]) == EXIT_DONE
    first, second = _read(results)
    at = first.pop("at")
    assert at == datetime(2026, 11, 2, tzinfo=UTC)
    expected = ("s3://a/1.jpg", "0a", "1,2,3,4", "good", "7")
    assert tuple(first.values()) == expected
    assert (second["image_etag"], second["box"], second["by"]) == (None, None, "me")


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ({"at": [1764490000]}, "column at of .*: expected timestamps or ISO 8601 text, got int64"),
        ({"by": [["me"]]}, "column by of "),
        ({"image_uri": [5]}, None),
        ({"at": [math.nan], "by": [math.nan], "image_etag": [math.nan], "box": [math.nan]}, None),
    ],
)
def test_a_column_that_says_nothing_is_refused_or_absent(
    column: dict[str, list[object]], said: str | None, tmp_path: Path
) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    pq.write_table(pa.table({"image_uri": ["s3://a/1.jpg"], "verdict": ["good"]} | column), tmp_path / "marks.parquet")
    with nullcontext() if said is None else pytest.raises(RequestError, match=said):
        code = verdicts.main(["add", str(tmp_path / "marks.parquet"), "--results", results])
        assert code == (EXIT_TOO_MANY_UNREADABLE if "image_uri" in column else EXIT_DONE)


def test_a_verdict_that_a_file_has_twice_is_added_once(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    row = "s3://a/1.jpg,good,2026-11-02T08:00:00Z\n"
    assert _add(results, f"image_uri,verdict,at\n{row}{row}", tmp_path) == EXIT_DONE
    assert len(_read(results)) == 1


@pytest.mark.parametrize(
    ("row", "strange"),
    [
        ("s3://a/1.jpg,,,good", 0),
        ("s3://a/1.jpg,etag of s3://a/1.jpg,,good", 0),
        ("s3://a/2.jpg,any,,good", 0),  # of bytes whose tag nobody knows
        ("s3://a/1.jpg,other,,good", 1),
        ('s3://a/1.jpg,,"1,2,3,4",good', 1),
        ("s3://a/3.jpg,,,good", 1),
    ],
)
def test_verdicts_on_what_the_result_table_does_not_have_are_counted(
    row: str, strange: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    commit_rows(results, [score_row("s3://a/1.jpg"), score_row("s3://a/2.jpg", image_etag=None)])
    assert _add(results, f"image_uri,image_etag,box,verdict\n{row}\n", tmp_path) == EXIT_DONE
    said = capsys.readouterr().err
    assert said.startswith(f"warning: {strange} of 1 verdicts are on photos, boxes or bytes") if strange else not said


def test_verdicts_in_a_folder_without_results_are_kept_and_called_strange(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = uris.normalize(str(tmp_path / "misspelt"))
    assert _add(results, "image_uri,verdict\ns3://a/1.jpg,good\n", tmp_path) == EXIT_DONE
    assert "1 of 1 verdicts are on photos" in capsys.readouterr().err
    assert len(_read(results)) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image,label\n", "has no column image_uri or verdict"),
        ("", "is no CSV"),
        (b"\xff\xfe\x00", "is no CSV|no column"),
    ],
)
def test_a_file_that_is_no_list_of_verdicts_is_refused(content: str | bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=said):
        _add(uris.normalize(str(tmp_path / "results")), content, tmp_path)


def test_another_command_is_refused() -> None:
    with pytest.raises(RequestError, match=r"expected a command \(add\), got 'remove'"):
        verdicts.main(["remove"])


def test_a_list_of_verdicts_that_is_not_there_is_a_fault_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"verdicts\.csv does not exist: correct its name in the request"):
        read_verdict_list(f"file://{tmp_path}/verdicts.csv", by="ann")
