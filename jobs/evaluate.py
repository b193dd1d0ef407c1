"""Command: score labelled photos (MVTec layout) with registered detectors; AUROC per category and their mean.

``python -m jobs.evaluate --data URI --detectors URI``, or ``--verdicts RESULTS --run-id ID`` for what people said
"""

from __future__ import annotations

from collections.abc import Sequence

from jobs.cli import parse_config, run_command
from jobs.evaluation.config import EvaluateConfig


def main(argv: Sequence[str]) -> int:
    """Reads the command line, evaluates detectors or reports verdicts, and returns the exit code."""
    config = parse_config(EvaluateConfig, argv, prog="python -m jobs.evaluate")
    if config.verdicts is not None and config.run_id is not None:
        # No Ray and no network for this one.
        from jobs.findings.verdict_report import report_verdicts

        return report_verdicts(config.verdicts, config.run_id)
    # Imported once the request is right: Ray and the network take 5 to 7 s of CPU, --help and a typo take 0.3 s.
    from jobs.evaluation.run import evaluate_detectors

    return evaluate_detectors(config)


if __name__ == "__main__":
    run_command(main)
