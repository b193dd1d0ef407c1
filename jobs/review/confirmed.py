"""Photos that people found good in random samples: the only verdicts that may calibrate a detector."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from jobs.errors import RequestError
from jobs.review.matching import VerdictIndex
from jobs.review.samples import PER_SITE, read_samples
from jobs.review.verdicts import GOOD, UNSURE, read_latest_verdicts
from jobs.tables.manifest import make_manifest


def list_confirmed_photos(results: str, category: str) -> pa.Table:
    """Lists the drawn photos of a category that people found good, as MANIFEST rows; says what is left out and why.

    Raises:
        RequestError: there is none.
        StorageError: a table is damaged, or storage refused.
    """
    latest = read_latest_verdicts(results)
    verdicts, samples = VerdictIndex(latest), read_samples(results)
    found: dict[str, dict[tuple[str, str | None, str | None], dict[str, Any]]] = {}
    of_sites = set()
    for row, verdict in zip(samples.to_pylist(), verdicts.find_each(samples), strict=True):
        key = (row["image_uri"], row["image_etag"], row["box"])
        if row["category"] == category and row["per"] != PER_SITE:
            found.setdefault(verdict or "", {})[key] = row
        elif row["category"] == category and verdict == GOOD:
            of_sites.add(key)
    good = list(found.get(GOOD, {}).values())
    if not good:
        raise RequestError(
            f"{results} has no photo of {category} that was drawn at random and found good: photos that were chosen by "
            "their score must not calibrate; draw some with `python -m jobs.sample` (not --per site), and mark them"
        )
    drawn = {row["image_uri"] for row in samples.to_pylist()}
    chosen = sum(row["verdict"] == GOOD and row["image_uri"] not in drawn for row in latest.to_pylist())
    left = {"unsure": len(found.get(UNSURE, {})), "unjudged": len(found.get("", {}))}
    print(describe_left_out(len(good), chosen=chosen, of_sites=len(of_sites - set(found[GOOD])), **left))
    return make_manifest(good, category=category)


def describe_left_out(good: int, *, chosen: int, of_sites: int, unsure: int, unjudged: int) -> str:
    """Says in lines how many photos calibrate, which do not, and what that does to the guarantee.

    Args:
        good: found good in a random sample.
        chosen: found good, of any category, without being drawn.
        of_sites: found good, drawn of their site alone.
        unsure: drawn, and nobody is sure.
        unjudged: drawn, without a verdict.
    """
    lines = [f"{good} photos were drawn at random and found good"]
    if chosen:
        lines.append(
            f"left out {chosen} good photos that no sample drew: they were looked at for their high score; with them "
            "the threshold would rise until defects pass"
        )
    if of_sites:
        lines.append(
            f"left out {of_sites} good photos that were drawn --per site: their sites have other shares in the archive"
        )
    if unsure:
        share = unsure / (good + unsure)
        lines.append(
            f"left out {unsure} unsure photos: were they flawless, false alarms could be up to {share:.1%} more"
        )
    if unjudged:
        lines.append(
            f"{unjudged} drawn photos have no verdict: no harm if one stopped in the order of the page; no promise "
            "holds if the difficult ones were left"
        )
    return "\n".join(lines)
