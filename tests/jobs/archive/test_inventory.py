"""Inventories that are not what they should be: one line names the file, whatever is wrong in it."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from jobs.archive.inventory import read_content, select_current
from jobs.errors import DamagedFileError, RequestError

MANIFEST = {"destinationBucket": "arn:aws:s3:::b", "fileFormat": "CSV", "fileSchema": "Bucket, Key", "files": []}


def select(**columns: Any) -> list[dict[str, Any]]:
    batch = pa.RecordBatch.from_pydict({"bucket": ["b"], "key": ["cap/1.jpg"]} | columns)
    pattern = re.compile("(?P<category>[^/]+)/")
    return [
        row for found in select_current(batch, pattern, uri="s3://b/file", encoded=True) for row in found.to_pylist()
    ]


@pytest.mark.parametrize(
    "wrong",
    [
        {"files": "abc"},
        {"files": [1]},
        {"files": [{}]},
        {"files": [{"key": 5}]},
        {"destinationBucket": None},
        {"fileSchema": 5},
        {"fileFormat": None},
    ],
    ids=str,
)
def test_a_manifest_of_other_types_is_no_manifest(wrong: dict[str, object], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST | wrong))
    with pytest.raises(RequestError, match="is no manifest of an S3 Inventory"):
        read_content(f"file://{tmp_path}/manifest.json")


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"size": ["x"]}, "column image_bytes"),
        ({"size": [-5]}, "expected sizes in bytes, got -5"),
        ({"last_modified_date": [17]}, "column last_modified"),
        pytest.param({"key": pa.array([None], pa.string())}, "a row has no bucket or no key", id="no key"),
        ({"bucket": [""]}, "a row has no bucket or no key"),
        ({"key": [["cap/1.jpg"]]}, "Unsupported cast"),
        ({"is_latest": [["true"]]}, "Unsupported cast"),
    ],
    ids=str,
)
def test_a_value_that_cannot_be_is_damage_of_the_file(columns: dict[str, Any], said: str) -> None:
    with pytest.raises(DamagedFileError, match=f"the inventory file s3://b/file is damaged: .*{said}"):
        select(**columns)


def test_times_of_any_unit_and_quoted_tags_are_read() -> None:
    times = pa.array([1_500_000_000_000_000_001], pa.timestamp("ns"))
    (row,) = select(last_modified_date=times, e_tag=['"abc"'], size=["123.0"], key=["cap/a%20b%2B.jpg"])
    assert (row["image_uri"], row["image_etag"], row["image_bytes"]) == ("s3://b/cap/a b+.jpg", "abc", 123)
    assert row["last_modified"] == datetime.fromtimestamp(1_500_000_000, UTC)
