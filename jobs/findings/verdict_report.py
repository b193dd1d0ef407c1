"""What verdicts say of a run: how many alarms are right, where they are false, and what random samples show missed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
from scipy.stats import binomtest

from jobs.errors import EXIT_DONE, RequestError
from jobs.results.known import stream_rows
from jobs.review.matching import VerdictIndex
from jobs.review.samples import read_samples
from jobs.review.verdicts import DEFECT, GOOD, UNSURE, read_latest_verdicts
from jobs.tables.schema import Status
from jobs.tables.text import format_table

COLUMNS = ("image_uri", "image_etag", "box", "site", "status", "p_value", "tail_rank", "is_anomaly")
"""SCORES columns that are read."""
TOPS = (10, 20, 50, 100)
"""Sizes of the top whose precision is given."""
LAST = float("inf")


class JudgedRun:
    """The rows of a run that a reader of verdicts needs.

    Attributes:
        alarms: reported rows, with their verdict or None.
        top: the most anomalous rows, as many as the largest of ``TOPS``, with their verdict or None.
        scored: scored photos by site.
    """

    def __init__(self, verdicts: VerdictIndex) -> None:
        """Starts without rows."""
        self._verdicts = verdicts
        self.alarms: list[dict[str, Any]] = []
        self.top: list[dict[str, Any]] = []
        self.scored: dict[str, int] = {}

    def read(self, batches: Iterable[pa.RecordBatch]) -> None:
        """Takes in all rows of the run, batches of COLUMNS."""
        for batch in batches:
            rows = [row for row in batch.to_pylist() if row["status"] == Status.SCORED]
            for row in rows:
                self.scored[row["site"] or ""] = self.scored.get(row["site"] or "", 0) + 1
            self.alarms += [row for row in rows if row["is_anomaly"]]
            self.top = sorted([*self.top, *rows], key=rank_row)[: max(TOPS)]
        for some in (self.alarms, self.top):
            for row, verdict in zip(some, self._verdicts.find_each(some), strict=True):
                row["verdict"] = verdict


def rank_row(row: Mapping[str, Any]) -> tuple[float, float, str]:
    """Returns what orders rows as the page does, the most anomalous first."""
    rank, p_value = row["tail_rank"], row["p_value"]
    return (LAST if rank is None else rank, LAST if p_value is None else p_value, row["image_uri"])


def report_verdicts(results: str, run_id: str) -> int:
    """Prints what the verdicts say of a run and returns the exit code.

    Raises:
        RequestError: no verdicts, or no such run.
    """
    verdicts = VerdictIndex(read_latest_verdicts(results))
    run = JudgedRun(verdicts)
    run.read(stream_rows(results, COLUMNS, run_id=run_id))
    if not run.scored:
        raise RequestError(f"{results} has no scored photo of run {run_id}: correct --run-id or --verdicts")
    print(f"Verdicts on run {run_id}; shares with their 95 % interval (Clopper-Pearson)\n")
    print(format_precision(run))
    print(f"\n{format_sites(run)}")
    print(f"\n{format_misses(read_samples(results, run_id=run_id), verdicts)}")
    return EXIT_DONE


def format_precision(run: JudgedRun) -> str:
    """Formats how many alarms, and how many of the top, are defects."""
    parts = {"alarms": run.alarms} | {f"top {count}": run.top[:count] for count in TOPS if count <= len(run.top)}
    rows = []
    for name, photos in parts.items():
        found = [row["verdict"] for row in photos]
        defects, judged = found.count(DEFECT), found.count(DEFECT) + found.count(GOOD)
        rows.append((name, len(photos), judged, found.count(UNSURE), defects, format_share(defects, judged)))
    table = format_table(("what", "photos", "judged", "unsure", "defects", "precision"), rows)
    unjudged = any(row[2] + row[3] < row[1] for row in rows)
    return table + (
        "\nOf photos without a verdict nothing is known: where only the first were judged, precision is lower"
        if unjudged
        else ""
    )


def format_sites(run: JudgedRun) -> str:
    """Formats the false alarms of each site, those with most first."""
    sites: dict[str, list[str]] = {}
    for row in run.alarms:
        if row["verdict"] in (GOOD, DEFECT):
            sites.setdefault(row["site"] or "", []).append(row["verdict"])
    ranked = sorted(sites.items(), key=lambda one: (-one[1].count(GOOD), one[0]))
    rows = [
        (
            site or "no site",
            run.scored[site],
            len(found),
            found.count(GOOD),
            format_share(found.count(GOOD), len(found)),
        )
        for site, found in ranked
    ]
    if not rows:
        return "False alarms: no alarm has a verdict"
    return format_table(("site", "scored", "alarms judged", "false alarms", "share"), rows)


def format_misses(samples: pa.Table, verdicts: VerdictIndex) -> str:
    """Formats what random samples show of the photos that were not reported, and of false alarms.

    Args:
        samples: SAMPLES rows of the run.
        verdicts: newest ones.
    """
    if not len(samples):
        return (
            "Misses: not known. Photos that were chosen by their score say nothing of the others: draw some with "
            "`python -m jobs.sample`"
        )
    strata = group_sampled(samples, verdicts)
    rows = [make_miss_row(name, found) for name, found in sorted(strata.items())]
    headings = ("random sample of", "drawn", "judged", "not reported", "defects there", "missed", "false-alarm rate")
    return "\n".join(
        [
            format_table(headings, rows),
            "missed: share of the photos that were not reported, and how many of them that would be. false-alarm rate: "
            "share of the flawless photos that were reported",
            *describe_gaps(strata),
        ]
    )


def group_sampled(samples: pa.Table, verdicts: VerdictIndex) -> dict[str, list[dict[str, Any]]]:
    """Groups drawn photos by what they were drawn of, each photo once, with its verdict."""
    strata: dict[str, dict[tuple[str, str | None, str | None], dict[str, Any]]] = {}
    for row, verdict in zip(samples.to_pylist(), verdicts.find_each(samples), strict=True):
        name = "the run" if row["per"] == "run" else f"{row['per']} {row['stratum'] or '(none)'}"
        # Two samples of a run with different seeds may have a photo in common.
        key = (row["image_uri"], row["image_etag"], row["box"])
        strata.setdefault(name, {})[key] = {**row, "verdict": verdict}
    return {name: list(found.values()) for name, found in strata.items()}


def make_miss_row(name: str, found: Sequence[Mapping[str, Any]]) -> tuple[object, ...]:
    """Returns the numbers of one stratum."""
    judged = [row for row in found if row["verdict"] in (GOOD, DEFECT)]
    unreported = [row["verdict"] for row in judged if not row["is_anomaly"]]
    good = [row["is_anomaly"] for row in judged if row["verdict"] == GOOD]
    missed = unreported.count(DEFECT)
    said = format_share(missed, len(unreported))
    if unreported:
        low, high = find_interval(missed, len(unreported))
        # Of a sample that was drawn before the run was finished it is less.
        whole = max(row["stratum_unreported"] for row in found)
        said += f", {missed / len(unreported) * whole:,.0f} ({low * whole:,.0f} to {high * whole:,.0f}) of {whole:,}"
    return name, len(found), len(judged), len(unreported), missed, said, format_share(sum(good), len(good))


def describe_gaps(strata: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Says which drawn photos have no verdict, or none that is sure, for they may be the difficult ones."""
    found = [row["verdict"] for rows in strata.values() for row in rows]
    lines = []
    if unsure := found.count(UNSURE):
        lines.append(f"{unsure} drawn photos are unsure and left out: were they defects, more would be missed")
    if unjudged := found.count(None):
        lines.append(
            f"{unjudged} drawn photos have no verdict: no harm if one stopped in the page's order, but the figures are "
            "wrong if the difficult ones were left"
        )
    return lines


def find_interval(count: int, whole: int) -> tuple[float, float]:
    """Returns the 95 % interval of a share, by Clopper and Pearson."""
    interval = binomtest(count, whole).proportion_ci(0.95, method="exact")
    return float(interval.low), float(interval.high)


def format_share(count: int, whole: int) -> str:
    """Formats a share with its interval; a dash of nothing."""
    if not whole:
        return "-"
    low, high = find_interval(count, whole)
    return f"{count / whole:.1%} ({low:.1%} to {high:.1%})"
