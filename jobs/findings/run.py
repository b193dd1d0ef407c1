"""The report command: reads what a run published, makes the page, writes it beside the results."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from jobs import storage
from jobs.errors import EXIT_DONE, RequestError
from jobs.findings.config import ReportConfig
from jobs.findings.digest import COLUMNS, RunDigest, collect_p_values
from jobs.findings.page import judge_categories, render_page
from jobs.findings.thumbnails import make_thumbnails
from jobs.results.known import stream_rows
from jobs.scoring.record import read_record, read_unfinished
from jobs.scoring.run_folder import RunFolder
from jobs.storage import uris


def report_run(config: ReportConfig) -> int:
    """Writes the page of a run, says where it is and returns the exit code.

    Raises:
        RequestError: no such run.
        StorageError: the table or the record is damaged, or storage refused.
    """
    output = write_report(config)
    print(f"page: {output.removeprefix('file://')}")
    return EXIT_DONE


def write_report(config: ReportConfig) -> str:
    """Writes the page of a run; returns its URI."""
    record = require_record(config.results, config.run_id)
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
    promises = record.get("promises", {})
    page = render_page(
        digest,
        record=record,
        judgements=judge_categories(
            digest, earlier, {name: promise["calibration_photos"] for name, promise in promises.items()}
        ),
        pictures=make_thumbnails(digest.top, side_px=config.thumbnail_px, max_pixels=config.max_pixels),
        compared=bool(earlier),
    )
    output = config.output or uris.join(config.results, "reports", f"{config.run_id}.html")
    storage.write(output, page.encode())
    return output


def require_record(results: str, run_id: str) -> dict[str, Any]:
    """Reads the record of a run, also of an unfinished one. Raises RequestError where there is none."""
    folder = RunFolder(results, run_id)
    record = read_record(folder) or read_unfinished(folder)
    if record is None:
        raise RequestError(f"{results} has no record of run {run_id}: expected one of {list_runs(results)}")
    return record


def list_runs(results: str, most: int = 5) -> str:
    """Names the newest runs that have a record."""
    infos = [info for info in storage.list_objects(uris.join(results, "runs")) if info.uri.endswith(".json")]
    names = sorted(info.uri.rpartition("/")[2].removesuffix(".json") for info in infos)
    return ", ".join(names[-most:]) or "none yet"
