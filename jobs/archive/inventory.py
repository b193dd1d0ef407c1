"""S3 Inventory as an archive: ``manifest.json`` and the CSV or Parquet files that it names.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/storage-inventory-location.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote_plus

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, Field

from jobs import storage
from jobs.archive.absence import refuse_missing_input
from jobs.archive.csv_columns import CsvError, read_csv
from jobs.archive.keys import parse_keys
from jobs.archive.uri_list import to_column
from jobs.errors import DamagedFileError, RequestError, StorageError, one_line
from jobs.storage import uris
from jobs.tables import parquet as tables
from jobs.tables.schema import LISTED

_AS_IN_PARQUET = {
    "Bucket": "bucket",
    "Key": "key",
    "IsLatest": "is_latest",
    "IsDeleteMarker": "is_delete_marker",
    "Size": "size",
    "LastModifiedDate": "last_modified_date",
    "ETag": "e_tag",
}
"""Names in the CSV's fileSchema -> names in the Parquet files; what is not here is of no use to us."""

_AS_IN_LISTED = {"image_etag": "e_tag", "image_bytes": "size", "last_modified": "last_modified_date"}
"""Columns of LISTED -> names in the Parquet files."""


class _File(BaseModel):
    key: str


class _Manifest(BaseModel):
    """What is needed of a manifest.json."""

    destination_bucket: str = Field(alias="destinationBucket")
    file_format: str = Field(alias="fileFormat")
    file_schema: str = Field(alias="fileSchema")
    files: list[_File]


def read_inventory(manifest: str, *, pattern: re.Pattern[str]) -> Iterator[pa.RecordBatch]:
    """Streams the current objects of an inventory as LISTED batches; older versions and delete markers are left out.

    Args:
        manifest: URI of its manifest.json.
        pattern: matched at the beginning of each key for category, site and captured_at.

    Raises:
        RequestError: it is not there, is no inventory, or one in ORC.
        StorageError: a file that it names is missing, damaged or cannot be reached.
    """
    content = read_content(manifest)
    scheme, bucket, _ = uris.split(manifest)
    if scheme == "file":
        scheme, bucket = "s3", content["destinationBucket"].rsplit(":", 1)[-1]
    for file in content["files"]:
        uri = f"{scheme}://{bucket}/{file['key']}"
        for batch in read_rows([uri], content):
            yield from select_current(batch, pattern, uri=uri, encoded=content["fileFormat"] == "CSV")


def select_current(
    batch: pa.RecordBatch, pattern: re.Pattern[str], *, uri: str, encoded: bool
) -> Iterator[pa.RecordBatch]:
    """Yields the LISTED rows of a batch's current objects, if it has any.

    Args:
        batch: of an inventory file.
        pattern: see `read_inventory`.
        uri: of the file.
        encoded: whether keys are URL-encoded.

    Raises:
        DamagedFileError: a value that cannot be what its column says.
    """
    try:
        current = batch.filter(mark_current(batch))
        if len(current):
            yield to_listed(current, pattern, encoded=encoded, place=uri)
    except (RequestError, pa.ArrowException) as error:
        raise DamagedFileError(f"the inventory file {uri} is damaged: {one_line(error)}") from error


def read_content(manifest: str) -> Mapping[str, Any]:
    """Reads an inventory's manifest.json and checks that it is one.

    Raises:
        RequestError: it is not there, is no such manifest, or its files are neither CSV nor Parquet.
    """
    try:
        with refuse_missing_input():
            content: Any = json.loads(storage.read(manifest))
        file_format = _Manifest.model_validate(content).file_format
    except ValueError as error:
        raise RequestError(
            f"{manifest} is no manifest of an S3 Inventory: expected JSON with destinationBucket, fileFormat, "
            "fileSchema and files"
        ) from error
    if file_format not in ("CSV", "Parquet"):
        raise RequestError(
            f"the inventory {manifest} is in {file_format}: expected Parquet or CSV; change the inventory's "
            "configuration, or give a prefix or a list of URIs"
        )
    return dict(content)


def read_rows(files: Sequence[str], content: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
    """Batches with columns named as in Parquet; those that the inventory lacks are missing."""
    if content["fileFormat"] == "CSV":
        names = [name.strip() for name in content["fileSchema"].split(",")]
        for uri in files:
            yield from read_csv_rows(uri, names)
        return
    for uri in files:
        have = tables.read_schema(uri)
        _check_columns(have.names, uri)
        wanted = [name for name in _AS_IN_PARQUET.values() if name in have.names]
        yield from tables.scan_parquet([uri], columns=wanted, schema=have)


def _check_columns(names: Sequence[str], uri: str) -> None:
    if missing := {"bucket", "key"}.difference(names):
        raise RequestError(f"the inventory file {uri} has no column {' or '.join(sorted(missing))}: got {list(names)}")


def read_csv_rows(uri: str, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Reads a CSV file of an inventory, which has no line of names.

    Raises:
        RequestError: the inventory lacks a column.
        StorageError: the file is missing, damaged or cannot be reached.
    """
    ours = [_AS_IN_PARQUET.get(name, name) for name in names]
    _check_columns(ours, uri)
    wanted = [name for name in _AS_IN_PARQUET.values() if name in ours]
    try:
        yield from read_csv(uri, lambda *_: wanted, names=ours)
    except CsvError as error:
        raise StorageError(f"the inventory file {uri} is damaged: {error}") from error


def mark_current(batch: pa.RecordBatch) -> pa.Array:
    """Marks rows of the latest version that are no delete marker; an inventory may have neither column."""
    keep = pa.array([True] * len(batch))
    if "is_latest" in batch.schema.names:
        keep = pc.and_(keep, to_flags(batch.column("is_latest"), absent=True))
    if "is_delete_marker" in batch.schema.names:
        keep = pc.and_(keep, pc.invert(to_flags(batch.column("is_delete_marker"), absent=False)))
    return keep


def to_flags(column: pa.Array, *, absent: bool) -> pa.Array:
    """Converts a column of true and false, which CSV gives as text, to booleans; null becomes ``absent``."""
    flags = pc.equal(pc.utf8_lower(column), "true") if pa.types.is_string(column.type) else column.cast(pa.bool_())
    return pc.fill_null(flags, absent)


def to_listed(batch: pa.RecordBatch, pattern: re.Pattern[str], *, encoded: bool, place: str) -> pa.RecordBatch:
    """Converts rows of an inventory to LISTED rows.

    Keys of CSV files are URL-encoded, as in S3's own listings: a plus is a space.

    Raises:
        RequestError: a value that cannot be what its column says.
        pa.ArrowException: names that are no text.
    """
    have = dict(zip(batch.schema.names, batch.columns, strict=True))
    buckets, keys = (have[name].cast(pa.string()).to_pylist() for name in ("bucket", "key"))
    if not all((*buckets, *keys)):
        raise RequestError("a row has no bucket or no key")
    keys = [unquote_plus(key) for key in keys] if encoded else keys
    columns = {
        "image_uri": [f"s3://{bucket}/{key}" for bucket, key in zip(buckets, keys, strict=True)],
        "box": pa.nulls(len(batch), pa.string()),
    } | {
        field: to_column(have.get(name, pa.nulls(len(batch))), LISTED.field(field), place=place)
        for field, name in _AS_IN_LISTED.items()
    }
    return pa.record_batch(columns | parse_keys(keys, pattern), schema=LISTED)
