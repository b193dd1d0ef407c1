"""Photos of scored archives that people confirmed as defects: they choose among detectors."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from jobs.errors import RequestError
from jobs.results.known import select_fields, stream_latest
from jobs.review.matching import VerdictIndex
from jobs.review.verdicts import DEFECT, read_latest_verdicts
from jobs.tables.manifest import make_manifest
from jobs.tables.schema import Status

_READ = ("image_uri", "image_etag", "box", "category", "status")


def list_confirmed_defects(results: str, category: str) -> pa.Table:
    """Lists the scored photos, or boxes, of a category whose newest verdict is defect, as MANIFEST rows.

    A verdict on other bytes than were scored last says nothing of these; a photo that is deleted cannot be fetched.

    Raises:
        RequestError: there is none.
        StorageError: a table is damaged, or storage refused.
    """
    latest = read_latest_verdicts(results)
    names = pc.unique(latest.filter(pc.equal(latest["verdict"], DEFECT))["image_uri"])
    is_scored = pc.field("status") == Status.SCORED.value
    wanted = is_scored & (pc.field("category") == category) & pc.field("image_uri").isin(names)
    judged = [pa.Table.from_batches([batch]).filter(wanted) for batch in stream_latest(results, _READ)]
    scored = pa.concat_tables(judged) if judged else select_fields(_READ).empty_table()
    verdicts = VerdictIndex(latest).find_each(scored)
    found = scored.filter(pa.array([one == DEFECT for one in verdicts], pa.bool_()))
    if not len(found):
        raise RequestError(
            f"{results} has no scored photo of {category} that was confirmed as a defect: mark some on the page of "
            "jobs.report, and add what it downloads with `python -m jobs.verdicts add`"
        )
    return make_manifest(found.to_pylist(), category=category)
