"""Lineage: data, code and configuration of a detector, and which photos must not calibrate it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pyarrow as pa
import pytest

from jobs.detectors import lineage as module
from jobs.detectors.lineage import (
    COMMIT_VARIABLE,
    MAX_TRAINING_PHOTOS,
    build_lineage,
    hash_manifest,
    hash_training_photos,
    is_training_photo,
    read_git_commit,
)


def _manifest(*photos: tuple[str, str]) -> pa.Table:
    columns = {"image_uri": [uri for uri, _ in photos], "image_etag": [etag for _, etag in photos]}
    return pa.table({**columns, "box": pa.nulls(len(photos), pa.string())})


KNOWN = _manifest(("s3://b/1.jpg", "one"), ("s3://b/2.jpg", "two"), ("s3://b/3.jpg", ""))


@pytest.mark.parametrize(
    ("photo", "expected"),
    [
        (("s3://b/1.jpg", "one"), True),
        (("s3://b/1.jpg", "replaced"), True),
        (("s3://elsewhere/copy.jpg", "two"), True),
        (("s3://b/4.jpg", "four"), False),
        (("s3://b/5.jpg", ""), False),
        (("two", "s3://b/1.jpg"), False),
    ],
    ids=["itself", "same key", "copy", "new", "new without etag", "uri like an etag"],
)
def test_a_training_photo_is_known_by_its_key_and_by_its_etag(photo: tuple[str, str], expected: bool) -> None:
    recorded = hash_training_photos(KNOWN)
    assert recorded is not None
    assert is_training_photo(_manifest(photo), recorded=recorded) == [expected]


def test_more_training_photos_than_a_record_holds_are_not_recorded() -> None:
    many = pa.table({"image_uri": [str(number) for number in range(MAX_TRAINING_PHOTOS + 1)]})
    many = many.append_column("image_etag", pa.array([""] * len(many)))
    assert hash_training_photos(many) is None
    assert len(hash_training_photos(many.slice(1)) or []) == pytest.approx(MAX_TRAINING_PHOTOS, rel=1e-3)


def test_the_manifest_hash_depends_on_boxes_and_is_that_of_before_where_there_are_none() -> None:
    whole = _manifest(("s3://b/1.jpg", "one"))
    boxes = [whole.set_column(2, "box", pa.array([box])) for box in ("1,2,3,4", "1,2,3,5")]
    assert len({hash_manifest(rows) for rows in (whole, *boxes)}) == 3
    assert hash_manifest(whole) == hashlib.sha256(b"s3://b/1.jpg one").hexdigest()


def test_the_manifest_hash_depends_on_keys_and_bytes_but_not_on_their_order() -> None:
    assert hash_manifest(KNOWN) == hash_manifest(KNOWN.take(pa.array([2, 0, 1])))
    changed = _manifest(("s3://b/1.jpg", "one"), ("s3://b/2.jpg", "changed"), ("s3://b/3.jpg", ""))
    assert len({hash_manifest(KNOWN), hash_manifest(changed), hash_manifest(KNOWN.slice(1))}) == 3


def test_lineage_has_what_a_reader_needs_to_repeat_the_training() -> None:
    config = {"data": "s3://b", "detector": {"seed": 7}}
    found = build_lineage(config, manifest_hash="ab12", parent="0" * 16)
    assert (found["config"], found["seed"], found["manifest_hash"], found["parent"]) == (config, 7, "ab12", "0" * 16)
    assert {"ray", "torch", "python"} <= found["versions"].keys()
    assert found["created_at"].endswith("+00:00")
    assert build_lineage({}, manifest_hash="ab12")["seed"] is None


def _git(folder: Path, *argv: str) -> None:
    identity = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *argv], check=True, capture_output=True)


def test_the_commit_is_the_repository_s_and_says_whether_files_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.setenv(COMMIT_VARIABLE, "f" * 40)
    _git(tmp_path, "init")
    assert read_git_commit() is None  # nothing committed yet, and the variable speaks of other code
    (tmp_path / "code.py").write_text("1")
    _git(tmp_path, "add", "code.py")
    _git(tmp_path, "commit", "-m", "first")
    _git(tmp_path, "tag", "-a", "v1", "-m", "a tag must not replace the hash")
    commit = read_git_commit()
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "code.py").write_text("2")
    assert read_git_commit() == f"{commit}-dirty"


@pytest.mark.parametrize(("given", "expected"), [("f" * 40, "f" * 40), ("main", None), (None, None)])
def test_without_a_repository_the_environment_names_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str | None, expected: str | None
) -> None:
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.delenv(COMMIT_VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(COMMIT_VARIABLE, given)
    assert read_git_commit() == expected
