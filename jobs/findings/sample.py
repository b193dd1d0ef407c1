"""The sample command: draws photos of a run at random, as a list and as a page to mark them on."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from jobs import storage
from jobs.errors import EXIT_DONE, MissingObjectError, RequestError
from jobs.explanation.table import make_key
from jobs.findings.config import SampleConfig
from jobs.findings.page import describe_state, render_sample
from jobs.findings.run import require_record
from jobs.findings.thumbnails import make_thumbnails
from jobs.findings.verdicts import read_verdict_list
from jobs.results.known import stream_rows
from jobs.review.samples import PER_RUN, locate_sample, read_sample, write_sample
from jobs.tables.schema import SAMPLES, Status
from jobs.tables.text import format_csv, make_printable

COLUMNS = (
    "image_uri",
    "image_etag",
    "image_key",
    "box",
    "category",
    "site",
    "captured_at",
    "status",
    "is_anomaly",
    "run_id",
)
"""SCORES columns that are read; the score is none of them."""
LIST_COLUMNS = ("image_uri", "image_etag", "box", "verdict", "by", "at")


@dataclass
class Stratum:
    """Photos of which as many are drawn.

    Attributes:
        photos: scored ones.
        unreported: those of them that were not reported.
        drawn: hash -> row of those with the smallest hashes.
    """

    photos: int = 0
    unreported: int = 0
    drawn: dict[bytes, dict[str, Any]] = field(default_factory=dict)


def sample_run(config: SampleConfig) -> int:
    """Draws a sample, writes it three times (record, list, page), says where and returns the exit code.

    Raises:
        RequestError: no such run, or no scored photo in it, or somebody has filled in the list of another draw.
        StorageError: the table is damaged, or storage refused.
    """
    for line in describe_state(require_record(config.results, config.run_id)):
        print(f"warning: {line} Only those are drawn from: draw again once it is finished", file=sys.stderr)
    batches = stream_rows(config.results, COLUMNS, run_id=config.run_id)
    strata = draw_strata(batches, count=config.n, per=config.per, seed=config.seed)
    photos = sum(stratum.photos for stratum in strata.values())
    if not photos:
        raise RequestError(f"run {config.run_id} of {config.results} has no scored photo to draw from")
    drawn = order_drawn(strata)
    places = {
        ending: locate_sample(
            config.results, config.run_id, per=config.per, count=config.n, seed=config.seed, ending=ending
        )
        for ending in ("parquet", "csv", "html")
    }
    rows = [row for _, row in drawn]
    is_kept = check_filled_in(places, rows)
    write_sample(places["parquet"], make_sample(drawn, strata, per=config.per))
    if not is_kept:
        storage.write(places["csv"], make_list(rows))
    pictures = make_thumbnails(rows, side_px=config.thumbnail_px, max_pixels=config.max_pixels)
    storage.write(places["html"], render_sample(rows, run_id=config.run_id, photos=photos, pictures=pictures).encode())
    whole = "" if config.per == PER_RUN else f", up to {config.n} of each {config.per}"
    print(f"drew {len(rows)} of {photos} scored photos of run {config.run_id} at random{whole}")
    print(f"page: {places['html'].removeprefix('file://')}")
    print(
        f"list: {places['csv'].removeprefix('file://')}{' (it has verdicts and is left as it is)' if is_kept else ''}"
    )
    print(
        "mark them all, or from the first on in their order; then add the verdicts with `python -m jobs.verdicts add`"
    )
    return EXIT_DONE


def draw_strata(batches: Iterable[pa.RecordBatch], *, count: int, per: str, seed: int) -> dict[str, Stratum]:
    """Draws up to ``count`` photos of each stratum, every one with the same probability.

    The draw is by a hash of seed and name, so that it is the same in whatever order the rows come.
    """
    strata: dict[str, Stratum] = {}
    for batch in batches:
        for row in batch.to_pylist():
            if row["status"] != Status.SCORED:
                continue
            stratum = strata.setdefault("" if per == PER_RUN else row[per] or "", Stratum())
            stratum.photos += 1
            stratum.unreported += not row["is_anomaly"]
            stratum.drawn[hash_photo(row, seed)] = row
            if len(stratum.drawn) > 2 * count + 1000:
                keep_smallest(stratum, count)
    for stratum in strata.values():
        keep_smallest(stratum, count)
    return strata


def hash_photo(row: dict[str, Any], seed: int) -> bytes:
    """Returns what orders photos at random."""
    name = f"{seed}\0{row['image_uri']}\0{row['image_etag']}\0{row['box']}"
    return hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=16).digest()


def keep_smallest(stratum: Stratum, count: int) -> None:
    """Keeps the photos of the smallest hashes."""
    stratum.drawn = dict(sorted(stratum.drawn.items())[:count])


def order_drawn(strata: dict[str, Stratum]) -> list[tuple[str, dict[str, Any]]]:
    """Returns stratum and row of every drawn photo, all in random order, so that whoever stops early has drawn less."""
    drawn = [(key, name, row) for name, stratum in strata.items() for key, row in stratum.drawn.items()]
    return [(name, row) for _, name, row in sorted(drawn, key=lambda one: one[0])]


def make_sample(drawn: list[tuple[str, dict[str, Any]]], strata: dict[str, Stratum], *, per: str) -> pa.Table:
    """Makes SAMPLES rows."""
    rows = [
        {
            **row,
            "is_anomaly": bool(row["is_anomaly"]),
            "per": per,
            "stratum": name,
            "stratum_photos": strata[name].photos,
            "stratum_unreported": strata[name].unreported,
        }
        for name, row in drawn
    ]
    return pa.Table.from_pylist(rows, schema=SAMPLES)


def check_filled_in(places: Mapping[str, str], rows: list[dict[str, Any]]) -> bool:
    """Tells whether somebody has filled in the list of an earlier draw of the same photos, which must not be lost.

    Args:
        places: URI of each file of the sample, by its ending.
        rows: of the photos that are drawn now.

    Raises:
        RequestError: somebody has, and it is of other photos, as of a run that was not finished then.
    """
    try:
        before = read_sample(places["parquet"]).to_pylist()
        is_filled_in = has_verdicts(places["csv"])
    except MissingObjectError:
        return False
    if is_filled_in and list(map(make_key, before)) != list(map(make_key, rows)):
        raise RequestError(
            f"{make_printable(places['csv'])} has verdicts, and other photos are drawn now: add them with "
            "`python -m jobs.verdicts add` and move the list away, or take another --seed"
        )
    return is_filled_in


def has_verdicts(file: str) -> bool:
    """Tells whether somebody has written into a list. Raises MissingObjectError where there is none."""
    storage.read(file)
    try:
        verdicts, problems, _ = read_verdict_list(file, by=None)
    except RequestError:
        return True  # saved in a way that cannot be read; what it says is not known
    return bool(len(verdicts) or problems)


def make_list(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Makes a CSV of photos whose verdicts are still to be filled in; `jobs.verdicts` takes it."""
    return format_csv(LIST_COLUMNS, ([row.get(name) for name in LIST_COLUMNS] for row in rows))
