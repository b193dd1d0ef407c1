"""Verb and noun: what is in an archive, as MANIFEST rows; minus what earlier runs have scored already.

``python -m jobs.manifest --archive URI --output FILE.parquet`` writes the listing alone, for a look before a run.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field

from jobs import storage
from jobs.cli import parse_config, run_verb
from jobs.config import DEFAULT_KEY_PATTERN, JobConfig, Uri
from jobs.errors import EXIT_DONE, RequestError
from jobs.schema import MANIFEST, RETRIED_CODES, Status


class ManifestConfig(JobConfig):
    """List an archive into a manifest (Parquet): one row per object."""

    archive: Uri = Field(description="prefix that holds the photos")
    output: Uri = Field(description="Parquet file to write")
    key_pattern: str = Field(DEFAULT_KEY_PATTERN, description="regular expression of category, site and captured_at")


def list_archive(archive: str, *, key_pattern: str = DEFAULT_KEY_PATTERN) -> pa.Table:
    """Lists every object under ``archive`` as MANIFEST rows, ordered by category and key.

    Raises:
        RequestError: the archive holds nothing.
        MissingBucketError: its bucket does not exist.
    """
    found = list(storage.list_objects(archive))
    if not found:
        raise RequestError(f"the archive {archive} is empty: expected photos under this prefix; check its spelling")
    return _as_table(found, archive=archive, pattern=re.compile(key_pattern))


def _as_table(found: Iterable[storage.ObjectInfo], *, archive: str, pattern: re.Pattern[str]) -> pa.Table:
    below = len(archive) + 1
    rows = [_row(info, pattern.match(info.uri[below:])) for info in found]
    rows.sort(key=lambda row: (str(row["category"] or ""), str(row["uri"])))
    return pa.Table.from_pylist([{**row, "image_id": number} for number, row in enumerate(rows)], schema=MANIFEST)


def _row(info: storage.ObjectInfo, match: re.Match[str] | None) -> dict[str, object]:
    named = match.groupdict() if match else {}
    return {
        "uri": info.uri,
        "etag": info.etag,
        "size_bytes": info.size_bytes,
        "last_modified": info.last_modified,
        "category": named.get("category"),
        "site": named.get("site"),
        "captured_at": _time(named.get("captured_at")),
    }


def _time(text: str | None) -> datetime | None:
    """An ISO 8601 time, UTC unless it says otherwise; None where the key holds none that exists."""
    try:
        moment = datetime.fromisoformat(text) if text else None
    except ValueError:
        return None
    return moment.replace(tzinfo=moment.tzinfo or UTC) if moment else None


def unscored(manifest: pa.Table, *, earlier: pa.Table, detector_ids: Mapping[str, str]) -> pa.Table:
    """Drops the rows that an earlier published run settled with the same detector, and renumbers image_id.

    An object is settled when its bytes were scored or found unreadable; reasons that lie outside the bytes
    (RETRIED_CODES) are tried again.

    Args:
        manifest: MANIFEST rows.
        earlier: columns image_uri, image_etag, detector_id, status, error of published runs.
        detector_ids: category -> detector id of this run.
    """
    code = pc.replace_substring_regex(earlier["error"], ":.*", "")
    is_settled = pc.or_(
        pc.equal(earlier["status"], Status.SCORED),
        pc.and_(pc.equal(earlier["status"], Status.UNREADABLE), pc.invert(pc.is_in(code, pa.array(RETRIED_CODES)))),
    )
    settled = earlier.filter(is_settled).select(["image_uri", "image_etag", "detector_id"])
    settled = settled.rename_columns(["uri", "etag", "detector_id"])
    wanted = [detector_ids.get(category) for category in manifest["category"].to_pylist()]
    keyed = manifest.append_column("detector_id", pa.array(wanted, pa.string()))
    rest = keyed.join(settled, keys=["uri", "etag", "detector_id"], join_type="left anti").sort_by("image_id")
    rest = rest.select(MANIFEST.names).drop_columns("image_id")
    return rest.add_column(0, MANIFEST.field("image_id"), pa.array(range(len(rest)), pa.int64())).cast(MANIFEST)


def write_parquet(table: pa.Table, uri: str, *, row_group_rows: int = 100_000) -> None:
    """Writes one table as one zstd Parquet object, in one atomic put."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=row_group_rows)
    storage.write(uri, buffer.getvalue())


def main(argv: Sequence[str]) -> int:
    """Lists the archive and writes the manifest."""
    config = parse_config(ManifestConfig, argv, prog="python -m jobs.manifest")
    manifest = list_archive(config.archive, key_pattern=config.key_pattern)
    write_parquet(manifest, config.output)
    counts = manifest.group_by("category").aggregate([([], "count_all"), ("size_bytes", "sum")])
    for row in counts.sort_by("category").to_pylist():
        print(f"{row['category'] or '(no category)'}: {row['count_all']} objects, {row['size_bytes_sum'] / 1e6:.1f} MB")
    print(f"{len(manifest)} rows in {config.output}")
    return EXIT_DONE


if __name__ == "__main__":
    run_verb(main)
