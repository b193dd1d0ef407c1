"""An archive as an S3 Inventory or as a list of URIs."""

from __future__ import annotations

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs import manifest, storage
from jobs.archive.manifest import list_archive
from jobs.errors import RequestError, StorageError

CSV_SCHEMA = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag, StorageClass"
INVENTORY = (
    ("cap/a b+c.jpg", True, False, 10, "e1"),
    ("cap/old.jpg", False, False, 11, "e2"),
    ("cap/gone.jpg", True, True, None, None),
    ('bolt/"ü",.jpg', True, False, 12, "e3"),
)
"""Key, latest, delete marker, size, entity tag."""
CURRENT = [('s3://photos/bolt/"ü",.jpg', "e3", 12, "bolt"), ("s3://photos/cap/a b+c.jpg", "e1", 10, "cap")]


def _rows(table: pa.Table) -> list[tuple[object, ...]]:
    return [(row["image_uri"], row["image_etag"], row["image_bytes"], row["category"]) for row in table.to_pylist()]


def _put_inventory(bucket: str, file_format: str, schema: str, data: bytes, suffix: str) -> str:
    key = f"inventories/photos/nightly/data/1{suffix}"
    storage.write(f"{bucket}/{key}", data)
    content = {
        "sourceBucket": "photos",
        "destinationBucket": "arn:aws:s3:::" + bucket.removeprefix("s3://"),
        "fileFormat": file_format,
        "fileSchema": schema,
        "files": [{"key": key, "size": len(data), "MD5checksum": ""}],
    }
    uri = f"{bucket}/inventories/photos/nightly/2026-11-24T01-00Z/manifest.json"
    storage.write(uri, json.dumps(content).encode())
    return uri


def test_a_csv_inventory_lists_the_current_objects_with_decoded_keys(bucket: str) -> None:
    encoded = ("cap/a+b%2Bc.jpg", "cap/old.jpg", "cap/gone.jpg", "bolt/%22%C3%BC%22%2C.jpg")
    lines = []
    for key, (_, latest, deleted, size, etag) in zip(encoded, INVENTORY, strict=True):
        known = ["photos", key, "v", str(latest).lower(), str(deleted).lower(), size or "", "", etag or "", "STANDARD"]
        lines.append(",".join(f'"{value}"' for value in known))
    data = gzip.compress("\n".join(lines).encode())
    assert _rows(list_archive(_put_inventory(bucket, "CSV", CSV_SCHEMA, data, ".csv.gz"))) == CURRENT


def test_a_parquet_inventory_lists_the_same(bucket: str, tmp_path: Path) -> None:
    when = datetime(2026, 11, 1, 2, 3, tzinfo=UTC)
    table = pa.table(
        {
            "bucket": ["photos"] * 4,
            "key": [row[0] for row in INVENTORY],
            "is_latest": [row[1] for row in INVENTORY],
            "is_delete_marker": [row[2] for row in INVENTORY],
            "size": pa.array([row[3] for row in INVENTORY], pa.int64()),
            "e_tag": [row[4] for row in INVENTORY],
            "last_modified_date": pa.array([when] * 4, pa.timestamp("ms", tz="UTC")),
            "encryption_status": ["NOT-SSE"] * 4,
        }
    )
    pq.write_table(table, tmp_path / "1.parquet")
    schema = "message s3.inventory {  required binary bucket (UTF8);}"
    found = list_archive(_put_inventory(bucket, "Parquet", schema, (tmp_path / "1.parquet").read_bytes(), ".parquet"))
    assert _rows(found) == CURRENT
    assert found["last_modified"].to_pylist() == [when, when]


def test_an_inventory_in_orc_is_refused(bucket: str) -> None:
    with pytest.raises(RequestError, match="is in ORC: expected Parquet or CSV"):
        list_archive(_put_inventory(bucket, "ORC", "struct<>", b"", ".orc"))


def test_an_inventory_whose_file_is_gone_is_an_error(bucket: str) -> None:
    uri = _put_inventory(bucket, "CSV", CSV_SCHEMA, b"", ".csv.gz")
    storage.delete(f"{bucket}/inventories/photos/nightly/data/1.csv.gz")
    with pytest.raises(StorageError, match=r"data/1\.csv\.gz"):
        list_archive(uri)


def test_what_is_no_inventory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"files": 3}')
    with pytest.raises(RequestError, match="is no manifest of an S3 Inventory"):
        list_archive(f"file://{tmp_path}/manifest.json")


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.parquet"])
@pytest.mark.parametrize("prefix", ["image_", ""], ids=["today's names", "older names"])
def test_a_list_of_uris_is_an_archive(name: str, prefix: str, tmp_path: Path) -> None:
    rows = {
        "note": ["unknown columns", "are", "ignored", None],
        f"{prefix}uri": ["s3://b/cap/2.jpg", "gs://c/x/1.jpg", "s3://b/cap/2.jpg", "file:///data/3.jpg"],
        f"{prefix}etag": ['"e2"', "", "other", None],
        f"{prefix}bytes" if prefix else "size_bytes": [7, 9, 8, 10],
        "category": [None, "bolt", "bolt", ""],
        "captured_at": ["2026-03-02T10:00", "someday", None, None],
    }
    table = pa.table(rows)
    if name.endswith(".parquet"):
        pq.write_table(table, tmp_path / name)
    else:
        text = table.to_pandas().to_csv(index=False)
        (tmp_path / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    found = list_archive(f"file://{tmp_path}/{name}")
    assert _rows(found) == [
        ("gs://c/x/1.jpg", None, 9, "bolt"),
        ("s3://b/cap/2.jpg", "e2", 7, "cap"),  # the first of two rows counts, the key names its category
        ("file:///data/3.jpg", None, 10, "data"),
    ]
    assert found["captured_at"].to_pylist() == [None, datetime(2026, 3, 2, 10, tzinfo=UTC), None]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("url,etag\ns3://b/x,e\n", "has no column image_uri: got url, etag"),
        ("uri\nhttps://b.s3.amazonaws.com/x.jpg\n", r"expected s3://.*, got 'https://b\.s3\.amazonaws\.com/x\.jpg'"),
        ("uri\ns3://bucket-alone\n", "expected s3://bucket/key"),
        ("uri,size_bytes\ns3://b/x,many\n", "column image_bytes of .*many"),
        ("uri,etag\ns3://b/x\n", "is no CSV"),
        ("image_etag,uri,image_uri\ne,s3://b/old,nowhere\n", "column image_uri of .* got 'nowhere'"),
        ("", "is no CSV"),
        ("uri\n", "is empty"),
    ],
)
def test_a_list_that_cannot_be_read_is_a_bad_request(text: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(RequestError, match=complaint) as caught:
        list_archive(f"file://{tmp_path}/list.csv")
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)


def test_the_verb_lists_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "list.csv").write_text("image_uri,image_bytes\ns3://b/cap/1.jpg,2000000\ns3://b/cap/2.jpg,\n")
    output = tmp_path / "manifest.parquet"
    assert manifest.main(["--archive", str(tmp_path / "list.csv"), "--output", str(output)]) == 0
    assert pq.read_table(output)["image_id"].to_pylist() == [0, 1]
    assert "cap: 2 objects, 2.0 MB" in capsys.readouterr().out
