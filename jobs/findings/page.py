"""The page of a run: one HTML file with everything inside, for whoever was not there."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime, time
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from jobs.findings.digest import GroupNumbers, RunDigest
from jobs.scoring.record import UNFINISHED
from jobs.tables.schema import Status
from jobs.tables.text import make_printable
from model.statistics.drift import ALARMING, MIN_PHOTOS, WORDS, NightJudgement, PValues, judge_night

HERE = Path(__file__).parent
BARS = 20
BAR_HEIGHT = 50
"""Of the viewBox of a histogram."""
LEVEL_SHARE = 0.4
"""Height of the dashed line, where p-values are uniform, in a histogram none of whose bars is higher than 1 / this."""


def judge_categories(
    digest: RunDigest, earlier: Mapping[str, PValues], calibration_photos: Mapping[str, int]
) -> dict[str, NightJudgement]:
    """Judges every category that has p-values.

    Args:
        digest: of the run.
        earlier: p-values of earlier nights by category.
        calibration_photos: by category, for rows that do not carry it themselves.
    """
    found = {}
    for name, numbers in digest.categories.items():
        photos = numbers.calibration_photos or calibration_photos.get(name)
        if len(numbers.p_values) and photos:
            found[name] = judge_night(numbers.p_values, calibration_photos=photos, earlier=earlier.get(name))
    return found


def render_page(
    digest: RunDigest,
    *,
    record: Mapping[str, Any],
    judgements: Mapping[str, NightJudgement],
    pictures: Sequence[tuple[str, str]],
    compared: bool,
) -> str:
    """Renders the page as HTML; every text is escaped, for keys and reasons come from storage and may be hostile.

    Args:
        digest: of the run's rows.
        record: the run record.
        judgements: of categories.
        pictures: for each photo of ``digest.top``, a data URI and why there is none, one of them empty.
        compared: whether earlier nights were there to compare with.
    """
    return render_template(
        "page.html.j2",
        title=make_title(digest),
        run_id=record["run_id"],
        archive=make_printable(str(record.get("config", {}).get("archive", ""))),
        published_at=str(record.get("published_at", ""))[:16].replace("T", " "),
        summary=[
            *describe_state(record),
            *(
                summarize_night(digest, judgements, compared=compared)
                if any(digest.counts.values())
                else describe_nothing(record)
            ),
        ],
        tiles=make_tiles(digest),
        cards=[make_card(row, picture) for row, picture in zip(digest.top, pictures, strict=True)],
        nothing="None is shown: --top is 0." if digest.counts[Status.SCORED] else "No photo has a score.",
        categories=[
            make_category_row(name, numbers, judgements.get(name))
            for name, numbers in sorted(digest.categories.items())
        ],
        sites=[make_site_row(name, numbers) for name, numbers in rank_sites(digest.sites)],
        reasons=[
            {"status": status, "code": make_printable(code), "count": count}
            for (status, code), count in digest.reasons.most_common()
        ],
        record=json.dumps(record, indent=2, ensure_ascii=True),
    )


def render_sample(
    rows: Sequence[Mapping[str, Any]], *, run_id: str, photos: int, pictures: Sequence[tuple[str, str]]
) -> str:
    """Renders the page of a random sample, which does not show what the photos scored.

    Args:
        rows: image_uri, image_etag, image_key, box, category, site and captured_at of each photo, in their order.
        run_id: the run they are of.
        photos: scored photos that they were drawn from.
        pictures: of each photo, as for `render_page`.
    """
    return render_template(
        "sample.html.j2",
        title=f"Sample of {len(rows):,} of {photos:,} photos",
        run_id=run_id,
        cards=[make_card(row, picture) for row, picture in zip(rows, pictures, strict=True)],
    )


def render_template(name: str, **values: Any) -> str:
    """Renders a template of this folder with its style and script; every value is escaped but for those two."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, loader=FileSystemLoader(HERE))
    script, style = (HERE / "review.js").read_text(), (HERE / "page.css").read_text()
    # The only script that may run on the page is this one: a key that became one would be refused by the browser.
    script_hash = "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    own = {"script": Markup(script), "style": Markup(style)}  # noqa: S704  # our own files
    return environment.get_template(name).render(values, script_hash=script_hash, **own)


def describe_state(record: Mapping[str, Any]) -> list[str]:
    """Says of a run that is not finished that it is not."""
    if record.get("status") != UNFINISHED:
        return []
    done = f"{record['committed_slices']} of {record['slices']} slices are in the table"
    return [f"This run is not finished: it is under way, or was killed and not continued. {done}."]


def describe_nothing(record: Mapping[str, Any]) -> list[str]:
    """Says why a run has no rows, as a second one over the same archive; nothing of one that is not finished."""
    if record.get("status") == UNFINISHED:
        return []
    listed, known = record.get("listed", 0), record.get("already_scored", 0)
    said = f"{known:,} of {listed:,} photos listed are known from earlier runs" if listed else "none was listed"
    return [f"This run has no photo of its own: {said}."]


def make_title(digest: RunDigest) -> str:
    """Returns the headline: anomalies of how many photos."""
    anomalies = sum(numbers.anomalies for numbers in digest.categories.values())
    return f"{anomalies:,} anomalies in {digest.counts[Status.SCORED]:,} photos"


def summarize_night(digest: RunDigest, judgements: Mapping[str, NightJudgement], *, compared: bool) -> list[str]:
    """Returns a few sentences: what changed, how many alarms a flawless night would have, and what was not scored."""
    before = "earlier nights" if compared else "the calibration photos; there are no earlier nights of these detectors"
    lines = [f"Compared with {before}:"] if judgements else []
    for kind, words in WORDS.items():
        names = [make_printable(name) for name, found in sorted(judgements.items()) if found.kind == kind]
        if names:
            lines.append(f"{', '.join(names[:8])}{' and others' if len(names) > 8 else ''}: {words}.")
    anomalies = sum(numbers.anomalies for numbers in digest.categories.values())
    expected = sum(numbers.expected_false_alarms for numbers in digest.categories.values())
    lines.append(
        f"Were all photos flawless, about {expected:.1f} anomalies would be reported; there are {anomalies:,}."
    )
    mute = [name for name, numbers in sorted(digest.categories.items()) if numbers.scored > numbers.reportable]
    if mute:
        named = f"{', '.join(map(make_printable, mute[:8]))}{' and others' if len(mute) > 8 else ''}"
        lines.append(f"{named}: no anomaly was possible, too few calibration photos for the false-alarm rate.")
    return lines


def make_tiles(digest: RunDigest) -> list[dict[str, Any]]:
    """Returns the numbers at the top: rows by status, those that are not 0."""
    return [
        {
            "name": status.value.replace("_", " "),
            "value": f"{digest.counts[status]:,}",
            "alarming": status in (Status.UNREADABLE, Status.FAILED),
        }
        for status in Status
        if digest.counts[status]
    ]


def make_card(row: Mapping[str, Any], picture: tuple[str, str]) -> dict[str, Any]:
    """Returns what the page shows of one photo; of a sample's there is no p-value."""
    data, reason = picture
    captured_at, p_value, tail_rank = row["captured_at"], row.get("p_value"), row.get("tail_rank")
    return {
        # As stored, for the verdicts must name the photo; what is shown is made printable.
        **{name: row[name] for name in ("image_uri", "image_etag", "box")},
        **{name: make_printable(row[name] or "") for name in ("category", "site")},
        "image_key": make_printable(row["image_key"] or row["image_uri"]),
        "is_anomaly": p_value is not None and bool(row["is_anomaly"]),
        "p_value": "" if p_value is None else f"{p_value:.4g}",
        "tail_rank": "" if tail_rank is None else f"{tail_rank:.2g}",
        "captured_at": "" if captured_at is None else format_time(captured_at),
        "picture": data,
        "reason": make_printable(reason),
    }


def format_time(moment: datetime) -> str:
    """Formats when a photo was taken, to the minute; midnight is what a date without a time became, so a date."""
    return f"{moment:%Y-%m-%d}" if moment.time() == time.min else f"{moment:%Y-%m-%d %H:%M}"


def make_category_row(name: str, numbers: GroupNumbers, judgement: NightJudgement | None) -> dict[str, Any]:
    """Returns the row of one category, with its histogram."""
    distance, said, alarming = "", "no p-values", False
    if judgement is not None:
        shift, said = judgement.shift, WORDS[judgement.kind]
        distance = f"{shift.distance:.2f} ({shift.low:.2f} to {shift.high:.2f})"
        alarming = judgement.kind in ALARMING
    if judgement is not None and judgement.kind == "too_few":
        said = f"{said}: {numbers.scored} of {MIN_PHOTOS} needed"
    return {
        "name": make_printable(name) or "no category",
        "bars": draw_bars(numbers.p_values),
        "level": LEVEL_SHARE * BAR_HEIGHT,
        "said": said,
        "alarming": alarming,
        "distance": distance,
        "scored": f"{numbers.scored:,}",
        "anomalies": f"{numbers.anomalies:,}",
        "expected": f"{numbers.expected_false_alarms:.1f}",
        "not_scored": f"{numbers.not_scored:,}",
    }


def draw_bars(p_values: PValues) -> list[float]:
    """Returns the heights of a histogram of p-values in (0, 1]; the level of uniform ones is ``LEVEL_SHARE``."""
    if not len(p_values):
        return []
    # Bins closed above, as "p-value <= rate" is.
    places = np.clip(np.ceil(p_values.astype(np.float64) * BARS - 1e-6), 1, BARS).astype(int) - 1
    shares = np.bincount(places, minlength=BARS) / len(p_values)
    return [round(min(1.0, LEVEL_SHARE * share * BARS) * BAR_HEIGHT, 1) for share in shares.tolist()]


def make_site_row(name: str, numbers: GroupNumbers) -> dict[str, str]:
    """Returns the row of one site."""
    return {
        "name": make_printable(name) or "no site",
        "scored": f"{numbers.scored:,}",
        "anomalies": f"{numbers.anomalies:,}",
        "share": f"{numbers.anomalies / numbers.scored:.1%}" if numbers.scored else "",
        "not_scored": f"{numbers.not_scored:,}",
    }


def rank_sites(sites: Mapping[str, GroupNumbers], most: int = 100) -> list[tuple[str, GroupNumbers]]:
    """Returns the sites with most anomalies first, at most ``most``; none where no photo has a site."""
    ranked = sorted(sites.items(), key=lambda item: (-item[1].anomalies, item[0]))
    return ranked[:most] if any(sites) else []
