"""Which photos a verdict speaks of."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from jobs.review.matching import VerdictIndex
from jobs.tables.schema import VERDICTS

URI = "s3://archive/a.jpg"


def _index(*rows: dict[str, Any]) -> VerdictIndex:
    full = [
        {"image_uri": URI, "image_etag": "0a", "verdict": "good", "at": datetime(2026, 11, 2, tzinfo=UTC)} | row
        for row in rows
    ]
    return VerdictIndex(pa.Table.from_pylist(full, schema=VERDICTS))


def test_the_newest_verdict_on_these_bytes_holds() -> None:
    newer = {"verdict": "defect", "at": datetime(2026, 11, 3, tzinfo=UTC)}
    assert _index(newer, {}).find(URI, "0a", None) == "defect"
    assert _index({}, newer | {"image_etag": "0b"}).find(URI, "0a", None) == "good"


def test_of_two_verdicts_of_one_moment_a_defect_holds() -> None:
    assert _index({}, {"verdict": "defect"}).find(URI, "0a", None) == "defect"
    assert _index({"verdict": "defect"}, {}).find(URI, "0a", None) == "defect"


def test_rows_of_other_programs_may_lack_time_and_verdict() -> None:
    index = _index(
        {"at": None, "verdict": "defect"}, {}, {"at": None, "verdict": None}, {"at": None, "verdict": "good"}
    )
    assert index.find(URI, "0a", None) == "good"
    assert _index({"verdict": None}).find(URI, "0a", None) == "unsure"


def test_other_bytes_and_other_boxes_have_no_verdict() -> None:
    index = _index({"box": "1,2,3,4"})
    assert index.find(URI, "0a", "1,2,3,4") == "good"
    assert index.find(URI, "0a", None) is None
    assert index.find(URI, "0b", "1,2,3,4") is None


def test_a_verdict_without_entity_tag_is_about_whatever_lies_there() -> None:
    assert _index({"image_etag": None, "verdict": "defect"}).find(URI, "0b", None) == "defect"
    assert _index({"verdict": "defect"}).find(URI, None, None) == "defect"


def _photo(uri: str = URI, etag: str | None = "0a", box: str | None = None) -> pa.Table:
    return pa.table({"image_uri": [uri], "image_etag": [etag], "box": pa.array([box], pa.string())})


def test_a_photo_is_defective_where_a_box_of_it_is_and_a_box_where_the_photo_is() -> None:
    assert _index({"verdict": "defect", "box": "1,2,3,4"}).find_defects(_photo()) == [True]
    assert _index({"verdict": "defect"}).find_defects(_photo(box="1,2,3,4")) == [True]
    called_good = {"verdict": "good", "box": "1,2,3,4"}
    assert _index({"verdict": "defect"}, called_good).find_defects(_photo(box="1,2,3,4")) == [False]
    assert _index({"verdict": "defect", "box": "1,2,3,4"}).find_defects(_photo(box="5,6,7,8")) == [False]


def test_a_copy_of_a_defective_photo_is_defective_where_its_tag_names_the_content() -> None:
    tag = "0123456789abcdef" * 2
    assert _index({"verdict": "defect", "image_etag": tag}).find_defects(_photo("s3://train/b.jpg", tag)) == [True]
    assert _index({"verdict": "defect", "image_etag": "9-1"}).find_defects(_photo("file:///b.jpg", "9-1")) == [False]
    assert _index({"image_etag": tag}).find_defects(_photo("s3://train/b.jpg", tag)) == [False]
