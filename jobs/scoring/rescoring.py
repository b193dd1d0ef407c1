"""New rows from stored raw scores: a detector that was recalibrated, or has another false-alarm rate, fetches nothing.

A raw score depends on the photo's bytes and on the detector's weights, preprocessing and precision, for which
``weights_id`` stands. p-value, tail rank and threshold follow from it and the calibration alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.archive.settled import SAME_WEIGHTS
from jobs.results.commit import commit_slice, find_next_slice
from jobs.results.files import ROW_ORDER
from jobs.results.known import stream_known
from jobs.scoring.plan import PlannedDetector, ScoringPlan
from jobs.scoring.staged_rows import DETECTOR_COLUMNS, describe_detector, make_key, rate_scores
from jobs.tables.schema import SCHEMA_VERSION, SCORES, Status
from jobs.tables.scratch import Scratch

MAX_FEW_PHOTOS = 262_144
"""Photos that are looked up in the table by name, 30 MB of names: of files that have none of them one column is read.
A night of 20,000 new photos over 7 million known ones took 13 s of CPU without, 3 s with it."""
_FROM_LISTING = ("category", "site", "captured_at")
"""What a key says, which may be read by another --key-pattern now."""
_FROM_DETECTOR = tuple(name for name in DETECTOR_COLUMNS if name != "precision")
"""The row's own precision is that of its raw score."""


def rescore_stored(scratch: Scratch, plan: ScoringPlan, *, results: str, version: int, run_date: date) -> int:
    """Commits a new row for each listed photo or box whose raw score by the wanted weights is stored; counts them.

    They are left out of what is to score. A raw score counts if it is of the same bytes; the newest is taken.

    Args:
        scratch: has the tables ``listed``, ``left_out`` and ``same`` of `jobs.archive.settled.find_settled`.
        plan: the run's detectors.
        results: base URI of the results.
        version: of the table that ``same`` was made from.
        run_date: day of the run, which every row gets.

    Raises:
        JobError: the local disk is full.
        StorageError: storage refused or could not be reached.
    """
    scratch.execute(_CANDIDATES)
    ((count,),) = scratch.query("SELECT count(*) FROM candidates")
    if not count:
        return 0
    only = "SEMI JOIN candidates ON incoming.image_uri = candidates.image_uri"
    photos = list_few_photos(scratch, "candidates")
    stored = stream_known(results, SCORES.names, version=version, photos=photos)[1]
    scratch.insert("stored", stored, schema=SCORES, only=only)
    scratch.execute("INSERT INTO left_out SELECT row FROM candidates")
    name = f"{plan.run_id}/rescored"
    done = commit_slice(
        results,
        stream_rescored(scratch, plan),
        run_id=name,
        slice_number=find_next_slice(results, name),
        run_date=run_date,
        known_since=version,
    )
    return done.rows


def list_few_photos(scratch: Scratch, table: str) -> pa.Array | None:
    """Lists the photos of a table of the scratch database; None if they are more than MAX_FEW_PHOTOS."""
    ((count,),) = scratch.query(f"SELECT count(*) FROM {table}")
    if count > MAX_FEW_PHOTOS:
        return None
    field = SCORES.field("image_uri")
    batches = scratch.stream(f"SELECT image_uri FROM {table}", schema=pa.schema([field]))
    return pa.chunked_array([batch.column(0) for batch in batches], field.type).combine_chunks()


def stream_rescored(scratch: Scratch, plan: ScoringPlan) -> Iterator[pa.RecordBatch]:
    """Yields SCORES rows of the table ``candidates``, in the order of the table's files."""
    columns = [f"listed.{name}" if name in _FROM_LISTING else f"stored.{name}" for name in SCORES.names]
    query = (
        f"SELECT * FROM (SELECT {', '.join(columns)} FROM candidates JOIN listed ON listed.rowid = candidates.row "
        "JOIN stored ON stored.image_uri = candidates.image_uri AND stored.scored_at = candidates.scored_at "
        "AND stored.detector_id = candidates.detector_id AND stored.box IS NOT DISTINCT FROM candidates.box "
        f"WHERE stored.status = '{Status.SCORED}') ORDER BY {ROW_ORDER}"
    )
    for batch in scratch.stream(query, schema=SCORES):
        for category in batch.column("category").unique().to_pylist():
            mine = batch.filter(pc.equal(batch.column("category"), category))
            yield rescore_batch(mine, plan.by_category[category], plan=plan)


def rescore_batch(batch: pa.RecordBatch, detector: PlannedDetector, *, plan: ScoringPlan) -> pa.RecordBatch:
    """Returns SCORES rows of one category as the detector would have made them from the same raw scores."""
    facts: dict[str, Any] = describe_detector(detector)
    constant = {name: facts[name] for name in _FROM_DETECTOR} | {
        "run_id": plan.run_id,
        "scored_at": datetime.now(UTC),
        "schema_version": SCHEMA_VERSION,
    }
    values = {
        **rate_scores(detector, np.asarray(batch.column("score"), np.float64)),
        "image_key": [make_key(uri, plan.root) for uri in batch.column("image_uri").to_pylist()],
        # When the bytes came decides whether the photo was replaced; the new row is younger than they are.
        "fetched_at": pc.coalesce(batch.column("fetched_at"), batch.column("scored_at")),
    }
    columns = [make_column(field, batch, constant=constant, values=values) for field in SCORES]
    return pa.RecordBatch.from_arrays(columns, schema=SCORES)


def make_column(
    field: pa.Field, batch: pa.RecordBatch, *, constant: dict[str, Any], values: dict[str, Any]
) -> pa.Array:
    """Returns a column: of one value, of given values, or as the batch has it."""
    if field.name in constant:
        return pa.repeat(pa.scalar(constant[field.name], field.type), len(batch))
    given = values.get(field.name)
    if given is None:
        return batch.column(field.name)
    return given if isinstance(given, pa.Array) else pa.array(given, field.type)


_CANDIDATES = f"""CREATE TABLE candidates AS
SELECT same.row, listed.image_uri, listed.box, same.scored_at, same.detector_id
FROM same JOIN listed ON listed.rowid = same.row ANTI JOIN left_out ON same.row = left_out.row
WHERE same.status = '{Status.SCORED}' AND ({SAME_WEIGHTS})
QUALIFY row_number() OVER (PARTITION BY same.row ORDER BY same.scored_at DESC) = 1"""
