"""Whether a photo is tried again is a question with an answer, however often it was tried."""

from __future__ import annotations

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from jobs.archive.ordering import Ordering
from jobs.archive.settled import KNOWN, DetectorIds, RetryPolicy
from jobs.tables.schema import MANIFEST
from jobs.tables.scratch import Scratch


@pytest.mark.parametrize(("retry_hours", "is_tried"), [(0, True), (20, False), (1e300, False)])
@pytest.mark.parametrize("attempt", [100, 5000])
def test_pauses_end_before_the_calendar_does(retry_hours: float, attempt: int, *, is_tried: bool) -> None:
    photo = {"image_uri": "s3://b/1.jpg", "image_etag": "e", "category": "c"}
    told = {"detector_id": "d", "weights_id": "w", "status": "failed", "error": "decoder_died: x", "attempt": attempt}
    earlier = [photo | told | {"scored_at": datetime(2026, 11, 1, tzinfo=UTC)}]
    with Scratch() as scratch:
        known = Ordering(scratch)
        listing = pa.Table.from_pylist([photo | {"image_id": 0, "image_bytes": 1}], schema=MANIFEST)
        known.add_batches(listing.drop_columns(["image_id", "attempt"]).to_batches())
        known.drop_duplicates()
        known.drop_settled(
            pa.Table.from_pylist(earlier, schema=KNOWN).to_batches(),
            {"c": DetectorIds("d", "w")},
            retries=RetryPolicy(max_attempts=2**62, retry_hours=retry_hours),
            is_live=True,
            now=datetime(2026, 11, 30, tzinfo=UTC),
        )
        assert sum(len(batch) for batch in known.stream_rows()) == is_tried
