"""What is no photo is left out of an archive and named; what is one stays."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from jobs import manifest
from jobs.archive.manifest import fill_ordering, list_archive
from jobs.archive.ordering import Ordering
from jobs.archive.selection import Selection
from jobs.config import DEFAULT_KEY_PATTERN
from jobs.errors import EmptyArchiveError
from jobs.tables.scratch import Scratch

JUNK = (
    "cap/@eaDir/1.jpg/SYNOPHOTO_THUMB_M.jpg",
    "cap/.thumbnails/1.jpg",
    "cap/Thumbs.db",
    "cap/.DS_Store",
    "cap/._1.jpg",
    "cap/desktop.ini",
    ".train/cap/1.jpg",
    "__MACOSX/cap/1.jpg",
    "lost+found/1.jpg",
    "cap/_SUCCESS",
)
PHOTOS = ("cap/1.jpg", "cap/notes.txt", "cap/x.thumbs.db.jpg", "bolt/no-suffix", "bolt/a.hidden/1.JPG")


@pytest.fixture
def archive(tmp_path: Path) -> str:
    """Photos, and what lies beside photos in the field."""
    for name in JUNK + PHOTOS:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    return f"file://{tmp_path}"


def list_keys(archive: str, selection: Selection) -> list[str]:
    with Scratch() as scratch:
        ordering = Ordering(scratch)
        fill_ordering(ordering, archive, key_pattern=DEFAULT_KEY_PATTERN, selection=selection)
        found = [uri for batch in ordering.stream_rows() for uri in batch.column("image_uri").to_pylist()]
    return sorted(uri.removeprefix(f"{archive}/") for uri in found)


def test_thumbnails_hidden_and_system_files_are_left_out_and_counted(archive: str) -> None:
    selection = Selection()
    assert list_keys(archive, selection) == sorted(PHOTOS)
    assert sum(selection.left_out.values()) == len(JUNK)
    assert "thumbnail and system files" in selection.summarize()


def test_hidden_folders_are_no_categories(archive: str) -> None:
    assert set(list_archive(archive)["category"].to_pylist()) == {"cap", "bolt"}


def test_a_dot_or_two_as_a_part_of_a_key_hide_nothing() -> None:
    keys = ["cap/../1.jpg", "cap/./2.jpg", "../3.jpg", "cap/.hidden/4.jpg", "cap/..hidden/5.jpg", ".x/6.jpg"]
    rows = pa.record_batch({"image_uri": keys, "image_bytes": pa.array([1] * len(keys), pa.int64())})
    kept = Selection().select(rows, pa.array(keys), is_list=False)
    assert kept.column("image_uri").to_pylist() == keys[:3]


def test_folder_markers_are_no_photos(bucket: str) -> None:
    import boto3

    for key in ("cap/", "cap/1.jpg", "bolt/", "bolt_$folder$"):
        boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=b"x" if "1" in key else b"")
    assert list_keys(bucket, Selection()) == ["cap/1.jpg"]


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["*.jpg"], [], ["bolt/a.hidden/1.JPG", "cap/1.jpg", "cap/x.thumbs.db.jpg"]),
        (["cap/*"], ["*.txt", "x.*"], ["cap/1.jpg"]),
        ([], ["CAP/*"], ["bolt/a.hidden/1.JPG", "bolt/no-suffix"]),
        (["?.jpg"], [], ["bolt/a.hidden/1.JPG", "cap/1.jpg"]),
        (["a.hidden/*"], [], ["bolt/a.hidden/1.JPG"]),
    ],
)
def test_patterns_choose(include: list[str], exclude: list[str], expected: list[str], archive: str) -> None:
    assert list_keys(archive, Selection(include, exclude)) == expected


def test_the_flags_of_a_listing_choose_and_say_what_was_left_out(
    archive: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--include", "*.jpg,*.txt", "--exclude", "notes*"]
    assert manifest.main(["--archive", archive, "--output", str(tmp_path / "out" / "m.parquet"), *flags]) == 0
    said = capsys.readouterr()
    assert said.out.endswith(f"3 rows in file://{tmp_path}/out/m.parquet\n")
    assert "1 by --exclude (cap/notes.txt)" in said.err


def test_an_archive_of_nothing_but_junk_says_so(tmp_path: Path) -> None:
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    with pytest.raises(EmptyArchiveError, match=r"holds no photo \(left out: 1 thumbnail and system files"):
        list_archive(f"file://{tmp_path}")


def test_a_list_may_name_photos_below_a_hidden_folder(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("/data/.cache/cap/1.jpg\n/data/.cache/cap/.DS_Store\n")
    assert list_archive(f"file://{tmp_path}/list.txt")["image_uri"].to_pylist() == ["file:///data/.cache/cap/1.jpg"]
