"""Manifests: one row per object, and what a later run may leave out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs import manifest as manifest_command
from jobs.archive import manifest
from jobs.archive.ordering import Ordering
from jobs.archive.settled import KNOWN, DetectorIds, RetryPolicy
from jobs.errors import RequestError
from jobs.tables.schema import MANIFEST, Status
from jobs.tables.scratch import Scratch

RETRIES = RetryPolicy(max_attempts=4, retry_hours=20)
NOW = datetime(2026, 11, 30, tzinfo=UTC)
_TOLD = ("image_uri", "image_etag", "detector_id", "status", "error")


def _listing(*rows: tuple[str, str, str | None]) -> pa.Table:
    found = [
        {"image_id": number, "image_uri": uri, "image_etag": etag, "image_bytes": 1, "category": category}
        for number, (uri, etag, category) in enumerate(rows)
    ]
    return pa.Table.from_pylist(found, schema=MANIFEST)


def _unscored(
    listing: pa.Table, *, earlier: pa.Table, detector_ids: dict[str, str], is_live: bool = True, now: datetime = NOW
) -> pa.Table:
    wanted = {
        category: DetectorIds(detector_id, f"weights of {detector_id}")
        for category, detector_id in detector_ids.items()
    }
    with Scratch() as scratch:
        known = Ordering(scratch)
        known.add_batches(listing.drop_columns(["image_id", "attempt"]).to_batches())
        known.drop_duplicates()
        known.drop_settled(earlier.to_batches(), wanted, retries=RETRIES, is_live=is_live, now=now)
        return pa.Table.from_batches(known.stream_rows(), schema=MANIFEST)


def _earlier(*rows: tuple[str, str, str | None, str, str | None]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(_TOLD, row, strict=True)) for row in rows], schema=KNOWN)


def test_every_object_below_the_prefix_is_a_row(tmp_path: Path) -> None:
    for name in ("b/x.jpg", "a/y.jpg", "a/deep/z.png", "root.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"1234")
    listing = manifest.list_archive(f"file://{tmp_path}")
    keys = [uri.removeprefix(f"file://{tmp_path}/") for uri in listing["image_uri"].to_pylist()]
    assert list(zip(listing["image_id"].to_pylist(), listing["category"].to_pylist(), keys, strict=True)) == [
        (0, None, "root.txt"),
        (1, "a", "a/deep/z.png"),
        (2, "a", "a/y.jpg"),
        (3, "b", "b/x.jpg"),
    ]
    assert listing["image_bytes"].to_pylist() == [4] * 4


def test_the_key_pattern_gives_category_site_and_capture_time(tmp_path: Path) -> None:
    for name in ("n/s1/2026-03-02T10:00/i.jpg", "n/s2/someday/i.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"")
    pattern = r"(?P<category>[^/]+)/(?P<site>[^/]+)/(?P<captured_at>[^/]+)/"
    rows = manifest.list_archive(f"file://{tmp_path}", key_pattern=pattern).to_pylist()
    assert [(row["site"], row["captured_at"]) for row in rows] == [
        ("s1", datetime(2026, 3, 2, 10, tzinfo=UTC)),
        ("s2", None),
    ]


def test_an_empty_archive_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is empty"):
        manifest.list_archive(f"file://{tmp_path}")


def test_what_was_scored_with_the_same_detector_is_left_out() -> None:
    listing = _listing(
        ("u1", "e1", "c"), ("u2", "e2", "c"), ("u3", "e3-new", "c"), ("u4", "e4", "c"), ("u5", "e5", "c")
    )
    earlier = _earlier(
        ("u1", "e1", "d1", Status.SCORED, None),
        ("u2", "e2", "d0", Status.SCORED, None),  # another detector
        ("u3", "e3", "d1", Status.SCORED, None),  # other bytes
        ("u4", "e4", "d1", Status.UNREADABLE, "truncated: half a photo"),
    )
    left = _unscored(listing, earlier=earlier, detector_ids={"c": "d1"})
    assert left["image_uri"].to_pylist() == ["u2", "u3", "u5"]
    assert left["image_id"].to_pylist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (Status.MISSING, "deleted: gone"),
        (Status.FAILED, "lost: no result"),
        (Status.UNREADABLE, "access_denied: no: permission"),
        (Status.UNREADABLE, "storage: timeout"),
    ],
)
def test_what_says_nothing_about_the_bytes_is_tried_again(status: Status, error: str) -> None:
    earlier = _earlier(("u1", "e1", "d1", status, error))
    left = _unscored(_listing(("u1", "e1", "c")), earlier=earlier, detector_ids={"c": "d1"})
    assert left["image_uri"].to_pylist() == ["u1"]


def test_a_photo_without_a_detector_is_settled_until_its_category_has_one() -> None:
    listing, earlier = (
        _listing(("u1", "e1", "c")),
        _earlier(("u1", "e1", None, Status.NO_DETECTOR, "no_detector: none")),
    )
    assert len(_unscored(listing, earlier=earlier, detector_ids={"other": "d1"})) == 0
    assert len(_unscored(listing, earlier=earlier, detector_ids={"c": "d1"})) == 1


def test_a_missing_photo_is_marked_once_where_the_listing_may_be_old() -> None:
    listing = _listing(("u1", "e1", "c"), ("u2", "e2", "c"))
    earlier = _earlier(
        ("u1", "e1", "d1", Status.MISSING, "deleted: gone"), ("u2", "e2", "d1", Status.MISSING, "changed: replaced")
    )
    left = _unscored(listing, earlier=earlier, detector_ids={"c": "d1"}, is_live=False)
    assert left["image_uri"].to_pylist() == ["u2"]
    assert len(_unscored(listing, earlier=earlier, detector_ids={"c": "d1"}, is_live=True)) == 2


def test_a_photo_that_came_back_after_its_deletion_is_scored_again() -> None:
    rows = [
        {"image_uri": "u1", "image_etag": "e1", "detector_id": detector, "status": status, "scored_at": at}
        for detector, status, at in (
            ("d1", Status.SCORED, datetime(2026, 11, 1, tzinfo=UTC)),
            (None, Status.DELETED, datetime(2026, 11, 2, tzinfo=UTC)),
            ("d1", Status.SCORED, datetime(2026, 11, 3, tzinfo=UTC)),
        )
    ]
    lengths = [
        len(_unscored(_listing(("u1", "e1", "c")), earlier=pa.Table.from_pylist(some, KNOWN), detector_ids={"c": "d1"}))
        for some in (rows[:1], rows[:2], rows)
    ]
    assert lengths == [0, 1, 0]


def test_bytes_that_these_weights_could_not_read_stay_settled_after_a_recalibration() -> None:
    row = {
        "image_uri": "u1",
        "image_etag": "e1",
        "detector_id": "d0",
        "status": Status.UNREADABLE,
        "error": "corrupt: x",
    }
    lengths = [
        len(
            _unscored(
                _listing(("u1", "e1", "c")),
                earlier=pa.Table.from_pylist([row | {"weights_id": weights_id}], KNOWN),
                detector_ids={"c": "d1"},
            )
        )
        for weights_id in ("weights of d1", "weights of d0")
    ]
    assert lengths == [0, 1]


@pytest.mark.parametrize(
    ("attempts", "hours_ago", "attempt"),
    [
        (1, 0, 2),
        (2, 19, None),
        (2, 21, 3),
        (3, 39, None),
        (3, 41, 4),
        (4, 10_000, None),
    ],
)
def test_what_failed_is_tried_again_after_growing_pauses_and_not_for_ever(
    attempts: int, hours_ago: float, attempt: int | None
) -> None:
    failed = {"image_uri": "u1", "image_etag": "e1", "detector_id": "d1", "status": Status.FAILED, "error": "lost: x"}
    rows = [
        failed | {"attempt": number, "scored_at": NOW - timedelta(hours=hours_ago, days=attempts - number)}
        for number in range(1, attempts + 1)
    ]
    earlier = pa.Table.from_pylist(rows, KNOWN)
    left = _unscored(_listing(("u1", "e1", "c")), earlier=earlier, detector_ids={"c": "d1"})
    assert left["attempt"].to_pylist() == ([] if attempt is None else [attempt])
    another = _unscored(_listing(("u1", "e1", "c")), earlier=earlier, detector_ids={"c": "d2"})
    assert another["attempt"].to_pylist() == [1]


_NAMES = st.sampled_from(["u1", "u2", "u3", "u10", "é", "Z"])
_TAGS = st.sampled_from(["e1", "e2"])
_DETECTORS = st.sampled_from(["d1", "d2", None])
_CATEGORIES = st.sampled_from(["c1", "c2", "c3", None])
_ENDS = st.sampled_from(
    [
        (Status.SCORED, None),
        (Status.UNREADABLE, "truncated: half"),
        (Status.UNREADABLE, "storage: timeout"),
        (Status.FAILED, "lost: no result"),
    ]
)


@settings(max_examples=40, deadline=None)
@given(
    listed=st.lists(st.tuples(_NAMES, _TAGS, _CATEGORIES), max_size=12),
    known=st.lists(st.tuples(_NAMES, _TAGS, _DETECTORS, _ENDS), max_size=12),
)
@pytest.mark.slow
def test_what_is_left_is_what_the_plain_definition_says(
    listed: list[tuple[str, str, str | None]], known: list[tuple[str, str, str | None, tuple[Status, str | None]]]
) -> None:
    detector_ids = {"c1": "d1", "c2": "d2"}
    earlier = _earlier(*((uri, etag, detector, *end) for uri, etag, detector, end in known))
    left = _unscored(_listing(*listed), earlier=earlier, detector_ids=detector_ids)

    about_bytes = {(Status.SCORED, None), (Status.UNREADABLE, "truncated: half")}
    unchanged = {(uri, etag, detector) for uri, etag, detector, end in known if detector and end in about_bytes}
    first = {uri: (uri, etag, category) for uri, etag, category in reversed(listed)}
    expected = [row for row in first.values() if (row[0], row[1], detector_ids.get(row[2] or "")) not in unchanged]
    rows = left.to_pylist()
    assert [(row["image_uri"], row["image_etag"], row["category"]) for row in rows] == sorted(
        expected, key=lambda row: (row[2] or "", row[0])
    )
    assert [row["image_id"] for row in rows] == list(range(len(expected)))


@pytest.mark.parametrize(
    ("size_bytes", "modified", "is_left"),
    [
        (None, None, False),
        (7, None, False),
        (8, None, True),
        (None, datetime(2026, 11, 1, tzinfo=UTC), False),
        (None, datetime(2026, 11, 3, tzinfo=UTC), True),
    ],
)
def test_without_etag_an_object_counts_as_unchanged_unless_size_or_time_says_otherwise(
    size_bytes: int | None, modified: datetime | None, is_left: bool
) -> None:
    row = {"image_id": 0, "image_uri": "u1", "image_bytes": size_bytes, "last_modified": modified, "category": "c"}
    listing = pa.Table.from_pylist([row], schema=MANIFEST)
    scored = {"image_uri": "u1", "image_etag": "e1", "image_bytes": 7, "detector_id": "d1", "status": Status.SCORED}
    times = {"fetched_at": datetime(2026, 11, 2, tzinfo=UTC), "scored_at": datetime(2026, 11, 5, tzinfo=UTC)}
    for earlier in (scored | times, scored | {"scored_at": times["fetched_at"]}):  # older rows have no fetched_at
        known = pa.Table.from_pylist([earlier], schema=KNOWN)
        assert len(_unscored(listing, earlier=known, detector_ids={"c": "d1"})) == is_left
        assert len(_unscored(listing, earlier=known, detector_ids={"c": "d2"})) == 1


def test_the_command_writes_the_manifest_and_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "archive" / "a").mkdir(parents=True)
    (tmp_path / "archive" / "a" / "x.jpg").write_bytes(b"12")
    output = tmp_path / "manifest.parquet"
    assert manifest_command.main(["--archive", str(tmp_path / "archive"), "--output", str(output)]) == 0
    assert pq.read_table(output).schema.names == MANIFEST.names
    assert "a: 1 objects" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("promoted_on", "statuses", "left"),
    [
        (3, ("scored", "scored"), ["a"]),
        (1, ("scored", "scored"), []),
        (None, ("scored", "scored"), []),
        (3, ("scored", "unreadable"), ["a"]),
        (3, ("scored", "failed"), ["a"]),
        (3, ("unreadable", "scored"), ["a"]),
        (3, ("unreadable", "unreadable"), []),
    ],
)
def test_a_detector_that_came_back_takes_the_newest_row_again(
    promoted_on: int | None, statuses: tuple[str, str], left: list[str]
) -> None:
    listing = _listing(("a", "e", "cap"), ("b", "e", "cap"), ("b", "e", "cap"))
    told = [("a", "old", statuses[0]), ("a", "new", statuses[1]), ("b", "old", "scored")]
    names = ("image_uri", "detector_id", "status")
    earlier = [
        {**dict(zip(names, row, strict=True)), "image_etag": "e", "scored_at": datetime(2026, 11, day, tzinfo=UTC)}
        for day, row in enumerate(told, start=1)
    ]
    promoted_at = promoted_on and datetime(2026, 11, promoted_on, tzinfo=UTC)
    wanted = {"cap": DetectorIds("old", "weights of old", promoted_at=promoted_at or None)}
    with Scratch() as scratch:
        known = Ordering(scratch)
        known.add_batches(listing.drop_columns(["image_id", "attempt"]).to_batches())
        known.drop_duplicates()
        known.drop_settled(
            pa.Table.from_pylist(earlier, schema=KNOWN).to_batches(), wanted, retries=RETRIES, is_live=True, now=NOW
        )
        assert [uri for batch in known.stream_rows() for uri in batch["image_uri"].to_pylist()] == left
