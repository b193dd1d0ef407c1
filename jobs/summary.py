"""The last words of a scoring run: counts, speed, where the table is, the most anomalous photos."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jobs import uris
from jobs.publish import record_uri
from jobs.schema import Status


def summary(record: Mapping[str, Any], rows: pa.Table, *, results: str, top: int) -> str:
    """Several lines for a person.

    Args:
        record: the run record.
        rows: SCORES rows of the run.
        results: base URI of the results.
        top: how many of the most anomalous photos to list.
    """
    counts = ", ".join(f"{count} {status}" for status, count in record["counts"].items() if count) or "no new photo"
    speed = f" at {record['images_per_s']:.1f} images/s" if record["images_per_s"] else ""
    lines = [
        f"run {record['run_id']}: {counts}{speed}; {record['anomalies']} anomalies",
        f"{record['listed']} objects listed, {record['already_scored']} scored by earlier runs",
        *_reasons(rows),
        *_most_anomalous(rows, top),
        f"table:  {uris.join(results, 'scores')}",
        f"record: {record_uri(results, record['run_id'])}",
    ]
    return "\n".join(lines)


def _reasons(rows: pa.Table) -> list[str]:
    codes = Counter(error.split(":", 1)[0] for error in rows["error"].to_pylist() if error)
    return ["reasons: " + ", ".join(f"{count} {code}" for code, count in codes.most_common())] if codes else []


def _most_anomalous(rows: pa.Table, top: int) -> list[str]:
    scored = rows.filter(pc.equal(rows["status"], Status.SCORED))
    if not len(scored) or not top:
        return []
    # Ties in p-value are broken by how far the score lies over its own detector's threshold.
    over = pc.divide(scored["score"], pc.coalesce(scored["threshold"], pa.scalar(1.0)))
    ranked = scored.append_column("over", over).sort_by([("p_value", "ascending"), ("over", "descending")])
    found = ranked.slice(0, top).to_pylist()
    return ["most anomalous (p-value, score, photo):"] + [
        f"  {row['p_value']:.4f}  {row['score']:9.3f}  {row['image_uri']}" for row in found
    ]
