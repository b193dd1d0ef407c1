"""Command: score an archive of inspection photos into a Parquet result table (the main job).

``python -m jobs.score --archive URI --detectors URI --results URI --run-id ID``
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.scoring.config import ScoreConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, runs `jobs.scoring.run.score_archive` and returns the exit code."""
    config = parse_config(ScoreConfig, argv, prog="python -m jobs.score")
    # Imported once the request is right: 2 s of CPU: Ray and DuckDB, --help and a typo take 0.3 s.
    from jobs.scoring.run import score_archive

    code = score_archive(config)
    if not (config.report or config.fail_on_drift or config.log_format == "json"):
        return code
    # 4 s of CPU that a run without a page or drift check does not need.
    from jobs.findings.run import conclude_run

    return max(code, conclude_run(config))


if __name__ == "__main__":
    run_command(main)
