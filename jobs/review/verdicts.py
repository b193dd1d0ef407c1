"""The table of verdicts beside the scores: what people found on photos; of two on one photo the newer holds."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import RequestError
from jobs.results.side_table import append_rows, read_table
from jobs.storage import uris
from jobs.tables.schema import VERDICTS

TABLE = "verdicts"
"""Folder of the verdicts, below the results."""
GOOD, DEFECT, UNSURE = WORDS = ("good", "defect", "unsure")
KEY = ("image_uri", "image_etag", "box")


def locate_verdicts(results: str) -> str:
    """Returns the URI of the table of verdicts."""
    return uris.join(results, TABLE)


def write_verdicts(results: str, rows: pa.Table) -> int:
    """Adds VERDICTS rows that the table does not have yet, and returns how many; makes the table if need be.

    The same file twice adds nothing the second time, if its rows say when they were made.
    """
    known = read_verdicts(results)
    new = leave_out_known(rows, VERDICTS.empty_table() if known is None else known)
    if len(new) or known is None:
        append_rows(
            locate_verdicts(results),
            new,
            name=TABLE,
            description="what people found on photos; the newest verdict holds",
        )
    return len(new)


def leave_out_known(rows: pa.Table, known: pa.Table) -> pa.Table:
    """Returns the rows that are not in ``known`` word for word, each once."""
    there = {tuple(row.values()) for row in known.select(VERDICTS.names).to_pylist()}
    is_new = []
    for row in map(tuple, (one.values() for one in rows.to_pylist())):
        is_new.append(row not in there)
        there.add(row)
    return rows.filter(pa.array(is_new, pa.bool_()))


def read_verdicts(results: str) -> pa.Table | None:
    """Reads all verdicts, VERDICTS rows; None where there is no table yet.

    Raises:
        StorageError: the table is damaged, or storage refused.
    """
    return read_table(locate_verdicts(results), schema=VERDICTS)


def select_latest(verdicts: pa.Table, key: Sequence[str] = KEY) -> pa.Table:
    """Returns the newest of the VERDICTS rows of each photo, bytes and box."""
    order = pc.sort_indices(verdicts, sort_keys=[("at", "descending"), ("verdict", "ascending")])
    ranked = verdicts.take(order).append_column("row", pa.array(range(len(verdicts)), pa.int64()))
    first = ranked.group_by(list(key), use_threads=False).aggregate([("row", "min")])["row_min"]
    return ranked.take(first).select(verdicts.schema.names)


def read_latest_verdicts(results: str) -> pa.Table:
    """Reads the newest verdict on each photo, bytes and box.

    Raises:
        RequestError: there are none yet.
        StorageError: the table is damaged, or storage refused.
    """
    verdicts = read_verdicts(results)
    if verdicts is None or not len(verdicts):
        raise RequestError(
            f"{results} has no verdicts: mark photos on the page of jobs.report or jobs.sample, and add what it "
            "downloads with `python -m jobs.verdicts add`"
        )
    return select_latest(verdicts)
