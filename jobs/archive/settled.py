"""What a run may leave out: what the result table knows of each listed object or box, and when to try it again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from jobs.tables.schema import RETRIED_CODES, SCORES, Status
from jobs.tables.scratch import Scratch

KNOWN = pa.schema(
    [
        SCORES.field(name)
        for name in (
            "image_uri",
            "image_etag",
            "image_bytes",
            "box",
            "detector_id",
            "weights_id",
            "false_alarm_rate",
            "confidence",
            "status",
            "error",
            "attempt",
            "scored_at",
            "fetched_at",
        )
    ]
)
"""Columns of the table's rows that decide whether an object is settled."""
_WANTED = pa.schema(
    [
        *(SCORES.field(name) for name in ("category", "detector_id", "weights_id", "false_alarm_rate", "confidence")),
        pa.field("promoted_at", SCORES.field("scored_at").type),
    ]
)

_SAME_BYTES = """(
    listed.image_etag = known.image_etag
    OR listed.image_etag IS NULL
    AND coalesce(listed.image_bytes = known.image_bytes, true)
    AND coalesce(listed.last_modified <= coalesce(known.fetched_at, known.scored_at), true)
)"""
"""A list may not know the entity tag; then the object counts as unchanged unless its size, or a modification after its
bytes were fetched, says otherwise."""
_NOT_AS_NOW = f"""coalesce(
    listed.image_etag <> known.image_etag
    AND ({{is_live}} OR listed.last_modified > coalesce(known.fetched_at, known.scored_at))
    OR {{is_live}} AND known.status = '{Status.MISSING}', false
)"""
"""Other bytes than the object has now, or none, by a listing of now or by one that knows of a later modification."""
_MAX_DOUBLINGS = 1000
_MAX_PAUSE_S = 3_000_000_000
"""A century: the database's times end not much later."""


@dataclass(frozen=True)
class DetectorIds:
    """What tells one detector from another: ``detector_id`` with its calibration, ``weights_id`` without.

    Rows made with another ``false_alarm_rate`` or ``confidence`` have another threshold. ``promoted_at`` is when the
    alias was last pointed at it.
    """

    detector_id: str
    weights_id: str | None = None
    false_alarm_rate: float | None = None
    confidence: float | None = None
    promoted_at: datetime | None = None


@dataclass(frozen=True)
class RetryPolicy:
    """How often an object that failed is tried, and when.

    The second try comes with the next run, the third ``retry_hours`` after it, each later one after twice as long.
    """

    max_attempts: int
    retry_hours: float


def find_settled(
    scratch: Scratch,
    known: Iterable[pa.RecordBatch],
    wanted: Mapping[str, DetectorIds],
    *,
    retries: RetryPolicy,
    is_live: bool,
    now: datetime | None = None,
) -> None:
    """Fills the tables ``left_out`` (row) and ``retried`` (row, attempts) of the rows of the table ``listed``.

    It also makes ``same``: what is known of the same bytes.

    An object is settled when its bytes were scored by the wanted detector at its false-alarm rate, or found unreadable
    by one of these weights; when its category has no detector and a row says so; when a row says that it is missing,
    unless the listing is live and shows it. Reasons that lie outside the bytes (RETRIED_CODES, failed) are tried again,
    see `RetryPolicy`. Each box of an object is settled by itself. Of an object that was deleted and is there again,
    only what came after the deletion counts.

    A detector that came back, as by a rollback, finds its own rows below newer ones of the detector in between. Such
    an object is not settled, once: its newest row shall be of the detector that the alias points at. Two aliases that
    score one archive in turns do not take it from each other night after night, for neither was moved. So it is with an
    object that got its earlier bytes back, as after an upload that was cut off, or is back itself: its newest row shall
    be of the bytes that are there.

    Args:
        scratch: the database; only the rows of listed objects are kept in it.
        known: KNOWN columns of the result table.
        wanted: category -> the detector that would score it now.
        retries: when to try again.
        is_live: whether the listing shows what is there now; an inventory or a list may be old.
        now: the time; the present by default.
    """
    scratch.insert("known", known, schema=KNOWN, only="SEMI JOIN listed ON incoming.image_uri = listed.image_uri")
    rows = [{"category": name, **asdict(ids)} for name, ids in wanted.items()]
    scratch.insert("wanted", [pa.RecordBatch.from_pylist(rows, schema=_WANTED)], schema=_WANTED)
    scratch.execute(_JOIN.format(not_as_now=_NOT_AS_NOW.format(is_live=is_live)))
    scratch.execute("CREATE VIEW same AS SELECT * FROM matched WHERE is_same")
    scratch.execute(_SUPERSEDED)
    missing = "false" if is_live else f"status = '{Status.MISSING}' AND code <> 'changed'"
    scratch.execute(
        f"INSERT INTO left_out SELECT row FROM same ANTI JOIN superseded USING (row) WHERE {_SETTLED} OR {missing}"
    )
    again = f"status = '{Status.FAILED}' OR code IN {RETRIED_CODES} OR {is_live} AND status = '{Status.MISSING}'"
    scratch.execute(
        "INSERT INTO retried SELECT row, greatest(max(attempt), count(*)), max(scored_at) "
        f"FROM same WHERE ({again}) AND ({SAME_WEIGHTS} OR detector_id IS NULL AND wanted_id IS NULL) GROUP BY row"
    )
    longest_s = f"least({retries.retry_hours * 3600} * pow(2, least(attempts - 2, {_MAX_DOUBLINGS})), {_MAX_PAUSE_S})"
    pause = f"to_seconds(CASE WHEN attempts < 2 THEN 0 ELSE {longest_s} END)"
    at = (now or datetime.now(UTC)).isoformat()
    scratch.execute(
        "INSERT INTO left_out SELECT row FROM retried "
        f"WHERE attempts >= {retries.max_attempts} OR last_at + {pause} > TIMESTAMPTZ '{at}'"
    )


_JOIN = f"""CREATE TABLE matched AS
SELECT {_SAME_BYTES} AS is_same, {{not_as_now}} AS is_past, listed.rowid AS row, known.status, known.detector_id,
    known.weights_id, coalesce(known.attempt, 1) AS attempt,
    known.scored_at, coalesce(regexp_replace(known.error, ':.*', '', 's'), '') AS code,
    wanted.detector_id AS wanted_id, wanted.weights_id AS wanted_weights, wanted.promoted_at,
    known.false_alarm_rate IS NOT DISTINCT FROM wanted.false_alarm_rate
    AND known.confidence IS NOT DISTINCT FROM wanted.confidence AS has_same_rate
FROM listed JOIN known ON listed.image_uri = known.image_uri AND listed.box IS NOT DISTINCT FROM known.box
    AND ({_SAME_BYTES} OR {{not_as_now}})
LEFT JOIN wanted ON listed.category = wanted.category
LEFT JOIN (
    SELECT image_uri, max(scored_at) AS deleted_at FROM known WHERE status = '{Status.DELETED}' GROUP BY image_uri
) AS gone ON listed.image_uri = gone.image_uri
WHERE coalesce(known.scored_at > gone.deleted_at, true)"""
SAME_WEIGHTS = "coalesce(detector_id = wanted_id, false) OR coalesce(weights_id = wanted_weights, false)"
_SETTLED = f"""(
    status = '{Status.SCORED}' AND detector_id = wanted_id AND has_same_rate
    OR status IN ('{Status.UNREADABLE}', '{Status.NOT_A_PHOTO}') AND code NOT IN {RETRIED_CODES} AND ({SAME_WEIGHTS})
    OR status = '{Status.NO_DETECTOR}' AND wanted_id IS NULL
)"""
_OF_OTHERS = "detector_id <> wanted_id"
_SUPERSEDED = f"""CREATE TABLE superseded AS
SELECT row FROM same SEMI JOIN (SELECT row FROM same WHERE {_OF_OTHERS}) AS others USING (row) GROUP BY row
HAVING max(scored_at) FILTER (WHERE {_OF_OTHERS}) > max(scored_at) FILTER (WHERE {_SETTLED})
    AND max(scored_at) FILTER (WHERE {_SETTLED}) < max(promoted_at)
    AND bool_or(status = '{Status.SCORED}')
UNION
SELECT row FROM matched SEMI JOIN (SELECT row FROM matched WHERE is_past) AS others USING (row) GROUP BY row
HAVING max(scored_at) FILTER (WHERE is_past) > max(scored_at) FILTER (WHERE is_same AND {_SETTLED})"""
