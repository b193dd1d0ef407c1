"""The report command: reads what a run published, makes the page, writes it beside the results."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from jobs import storage
from jobs.cluster.run_log import RunLog
from jobs.errors import EXIT_DONE, EXIT_TOO_MANY_UNREADABLE, RequestError, StorageError
from jobs.findings.config import ReportConfig
from jobs.findings.digest import COLUMNS, RunDigest, collect_p_values
from jobs.findings.page import judge_categories, render_page
from jobs.findings.pictures import make_pictures
from jobs.results.known import stream_rows
from jobs.results.maintenance import require_table
from jobs.results.runs import list_records
from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import read_record, read_unfinished
from jobs.scoring.run_folder import RunFolder
from jobs.storage import uris
from jobs.tables.text import make_printable
from model.statistics.drift import ALARMING, WORDS, NightJudgement


def report_run(config: ReportConfig) -> int:
    """Writes the page of a run, says where it is and returns the exit code.

    Raises:
        RequestError: no such run.
        StorageError: the table or the record is damaged, or storage refused.
    """
    output = write_report(config)
    print(f"page: {output.removeprefix('file://')}")
    return EXIT_DONE


def conclude_run(config: ScoreConfig) -> int:
    """Says after scoring which categories have changed, writes the page if asked for, and returns the exit code.

    Raises:
        StorageError: the table is damaged, or storage refused.
    """
    request = ReportConfig(results=config.results, run_id=config.run_id)
    findings = read_findings(request)
    changed = {name: found for name, found in sorted(findings.judgements.items()) if found.kind in ALARMING}
    for name, found in changed.items():
        RunLog(config.run_id).event(
            "drifted",
            {
                "category": name,
                "kind": found.kind,
                "distance": round(found.shift.distance, 4),
                "significance": found.shift.significance,
                "tail_share": round(found.tail_share, 4),
                "tail_share_before": round(found.tail_share_before, 4),
            },
        )
    if config.report:
        print(f"page: {write_page(request, findings).removeprefix('file://')}")
    moved = [make_printable(name) or "no category" for name, found in changed.items() if found.kind == "new_photos"]
    if not (moved and config.fail_on_drift):
        return EXIT_DONE
    print(
        f"alarm: {', '.join(moved[:8])}{' and others' if len(moved) > 8 else ''}: {WORDS['new_photos']}, so that "
        f"alarms cannot be trusted; see jobs.report, then recalibrate; exit code {EXIT_TOO_MANY_UNREADABLE}",
        file=sys.stderr,
        flush=True,
    )
    return EXIT_TOO_MANY_UNREADABLE


@dataclass(frozen=True)
class Findings:
    """What a page is made of.

    Attributes:
        record: of the run.
        digest: of its rows.
        judgements: of its categories.
        compared: whether there were earlier nights to compare with.
    """

    record: Mapping[str, Any]
    digest: RunDigest
    judgements: Mapping[str, NightJudgement]
    compared: bool


def write_report(config: ReportConfig) -> str:
    """Writes the page of a run; returns its URI."""
    return write_page(config, read_findings(config))


def read_findings(config: ReportConfig) -> Findings:
    """Reads the rows of a run and judges its categories. Raises RequestError where there is no such run."""
    record = require_record(config.results, config.run_id)
    if any((record.get("counts") or {}).values()):
        require_table(config.results)
    digest = RunDigest(top=config.top)
    digest.read(stream_rows(config.results, COLUMNS, run_id=config.run_id))
    detector_ids = {name: numbers.detector_ids for name, numbers in digest.categories.items()}
    began = datetime.fromisoformat(record["started_at"]).date()
    earlier = collect_p_values(
        stream_rows(
            config.results,
            ["category", "detector_id", "p_value"],
            days=(began - timedelta(days=config.history_days), began - timedelta(days=1)),
        ),
        detector_ids,
    )
    photos = {name: promise["calibration_photos"] for name, promise in record.get("promises", {}).items()}
    return Findings(record, digest, judge_categories(digest, earlier, photos), compared=bool(earlier))


def write_page(config: ReportConfig, findings: Findings) -> str:
    """Fetches the photos to show and writes the page; returns its URI."""
    page = render_page(
        findings.digest,
        record=findings.record,
        judgements=findings.judgements,
        pictures=make_pictures(findings.digest.top, config),
        compared=findings.compared,
    )
    output = config.output or uris.join(config.results, "reports", f"{config.run_id}.html")
    storage.write(output, page.encode())
    return output


def require_record(results: str, run_id: str) -> dict[str, Any]:
    """Reads the record of a run, also of an unfinished one.

    Raises:
        RequestError: there is none.
        StorageError: it is damaged.
    """
    folder = RunFolder(results, run_id)
    record = read_record(folder)
    if record is None:
        record = read_unfinished(folder)
    if record is None:
        raise RequestError(f"{results} has no record of run {run_id}: {list_runs(results)}")
    if missing := {"run_id", "started_at"} - record.keys():
        raise StorageError(
            f"the record of run {run_id} in {results} is damaged, it has no {' and no '.join(sorted(missing))}: "
            "restore it, or delete it"
        )
    return record


def list_runs(results: str, most: int = 5) -> str:
    """Says which runs have a record, by the newest of them."""
    names = sorted(uri.rpartition("/")[2].removesuffix(".json") for uri in list_records(results))
    return f"expected one of {', '.join(names[-most:])}" if names else "it has none yet, or correct --results"
