"""Rows that say of photos that the archive does not have them any more."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa

from jobs.archive.kinds import ArchiveKind, detect_kind
from jobs.errors import RequestError
from jobs.results.commit import commit_slice, find_next_slice
from jobs.results.files import ROW_ORDER
from jobs.results.known import NEWEST, stream_known
from jobs.scoring.config import ScoreConfig
from jobs.scoring.rescoring import list_few_photos
from jobs.tables.schema import SCHEMA_VERSION, SCORES, Status
from jobs.tables.scratch import Scratch

_KEPT = ("image_uri", "image_etag", "image_bytes", "box", "category", "site", "captured_at", "image_key")
_NAME = pa.schema([SCORES.field("image_uri")])
_READ = pa.schema([SCORES.field(name) for name in (*_KEPT, "status", "scored_at", "run_id")])


def check_whole_listing(config: ScoreConfig) -> None:
    """Raises RequestError where --mark-deleted is asked for and the run does not list all that is there now."""
    if not config.mark_deleted:
        return
    if detect_kind(config.archive) is not ArchiveKind.PREFIX:
        raise RequestError(
            f"--mark-deleted needs a listing of what is there now, {config.archive} is a list or an inventory: give "
            "the archive's prefix"
        )
    if config.boxes is not None:
        raise RequestError("--mark-deleted needs a listing of all photos: leave out --boxes")
    if config.include or config.exclude:
        raise RequestError("--mark-deleted needs a listing of all photos: leave out --include and --exclude")


def mark_deleted(scratch: Scratch, config: ScoreConfig, *, version: int, listed_at: datetime) -> int:
    """Commits a row for each photo, or box of one, that the table has and the listing has not; returns their number.

    A photo that is marked, or was missing already, gets no second row. What came into the table after the listing
    began may have come into the archive after it, too, and is left alone.

    Args:
        scratch: has the listing in its table ``listed``.
        config: the request.
        version: of the table that is looked at.
        listed_at: when the listing began.
    """
    if version < 0:
        return 0
    below = config.archive.rstrip("/").replace("'", "''") + "/"
    only = f"ANTI JOIN listed ON incoming.image_uri = listed.image_uri WHERE starts_with(incoming.image_uri, '{below}')"
    # Names alone are read of all rows: on most nights none is absent, and then of few files.
    names = stream_known(config.results, _NAME.names, version=version)[1]
    scratch.insert("absent", names, schema=_NAME, only=only)
    photos = list_few_photos(scratch, "absent")
    if photos is not None and not len(photos):
        return 0
    seen = stream_known(config.results, _READ.names, version=version, photos=photos)[1]
    scratch.insert("seen", seen, schema=_READ, only=only)
    scratch.execute(
        f"CREATE TABLE gone AS SELECT * FROM (SELECT * FROM seen QUALIFY {NEWEST}) "
        f"WHERE status NOT IN ('{Status.DELETED}', '{Status.MISSING}') AND scored_at < '{listed_at.isoformat()}'"
    )
    ((count,),) = scratch.query("SELECT count(*) FROM gone")
    name = f"{config.run_id}/deleted"
    if count:
        commit_slice(
            config.results,
            stream_deleted(scratch, config.run_id),
            run_id=name,
            slice_number=find_next_slice(config.results, name),
            run_date=listed_at.date(),
            known_since=version,
        )
    return int(count)


def stream_deleted(scratch: Scratch, run_id: str) -> Iterator[pa.RecordBatch]:
    """Yields SCORES rows with the status ``deleted`` of the table ``gone``."""
    kept = pa.schema([SCORES.field(name) for name in _KEPT])
    constant = {
        "status": Status.DELETED.value,
        "run_id": run_id,
        "scored_at": datetime.now(UTC),
        "schema_version": SCHEMA_VERSION,
    }
    query = f"SELECT {', '.join(_KEPT)} FROM gone ORDER BY {ROW_ORDER}"
    for batch in scratch.stream(query, schema=kept):
        columns = [
            batch.column(field.name)
            if field.name in _KEPT
            else pa.repeat(pa.scalar(constant.get(field.name), field.type), len(batch))
            for field in SCORES
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=SCORES)
