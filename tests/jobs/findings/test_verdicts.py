"""Verdicts: a file of them becomes rows of a Delta table; what is none is named; twice is once."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import verdicts
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, RequestError
from jobs.findings.verdicts import read_verdict_list
from jobs.review.verdicts import read_verdicts, select_latest
from jobs.storage import uris

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
        ("s3://a/1.jpg,good,,yesterday", "at must be a time"),
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


def test_a_parquet_file_is_taken_too(tmp_path: Path) -> None:
    results = uris.normalize(str(tmp_path / "results"))
    pq.write_table(pa.table({"image_uri": ["s3://a/1.jpg"], "verdict": ["unsure"]}), tmp_path / "marks.parquet")
    assert verdicts.main(["add", "--file", str(tmp_path / "marks.parquet"), "--results", results]) == EXIT_DONE
    assert [one["verdict"] for one in _read(results)] == ["unsure"]


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
