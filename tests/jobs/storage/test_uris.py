"""URIs: one file has one URI, however its path is written; keys of buckets stay as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.config import as_path
from jobs.errors import RequestError
from jobs.storage import uris


@pytest.mark.parametrize(
    "written",
    [
        "archive/../archive/tile",
        "{here}/./archive//tile/",
        "{here}/x/../archive/tile",
        "file://{here}/x/../archive/tile",
        "file://localhost{here}/archive/tile",
        "file:{here}/archive/tile",
        "~/archive/tile",
        "~/x/../archive/tile",
        "file://~/archive/tile",
    ],
)
def test_every_way_to_write_a_path_is_one_uri(written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert uris.normalize(written.format(here=tmp_path)) == f"file://{tmp_path}/archive/tile"
    assert as_path(written.format(here=tmp_path)) == f"{tmp_path}/archive/tile"


def test_what_lies_above_a_link_is_above_its_target(tmp_path: Path) -> None:
    (tmp_path / "far" / "inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "inner")
    assert uris.normalize(f"{tmp_path}/link/../x") == f"file://{tmp_path}/far/x"
    assert uris.normalize(f"{tmp_path}/link/x") == f"file://{tmp_path}/link/x"


def test_dots_in_a_bucket_are_names() -> None:
    assert uris.normalize("s3://bucket/a/../b/./c//d") == "s3://bucket/a/../b/./c//d"


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("file://server/share", "expected an absolute path after file://, such as file:///server/share"),
        ("file://../x", "expected an absolute path"),
        ("s3:///key", "expected a bucket after s3://"),
        ("~nobody-of-this-name/x", "nobody-of-this-name"),
    ],
)
def test_a_uri_that_names_no_place_is_refused(uri: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        uris.normalize(uri)


def test_a_local_path_is_no_bucket() -> None:
    with pytest.raises(ValueError, match="expected a local file or folder, got 's3://b/x'"):
        as_path("s3://b/x")
