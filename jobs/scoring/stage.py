"""Ray Data stage ScoreImages: pixels -> STAGED rows.

The driver names the stage, its actors import what it does: neither torch nor the networks are loaded here.
"""

from __future__ import annotations

import pyarrow as pa

from jobs.cluster.run_log import log_as_json
from jobs.cluster.telemetry import Telemetry, Workload
from jobs.scoring.plan import ScoringPlan


class ScoreImages:
    """DECODED rows to STAGED rows, in an actor that keeps some detectors loaded.

    Args:
        plan: the run's detectors by category.
        cache_bytes: memory for detectors.
        telemetry: told of rows by status, seconds and loads.
        device: where detectors live, "cpu" or "cuda".
        workload: what is to be done, to say how long it takes; None says nothing.
        is_worker: whether this process is an actor's, whose stderr is a log and takes every event.
    """

    def __init__(
        self,
        *,
        plan: ScoringPlan,
        cache_bytes: int,
        telemetry: Telemetry,
        device: str,
        workload: Workload | None = None,
        is_worker: bool = True,
    ) -> None:
        """Loads the first category's detector, while the first photos are fetched; others when they are needed."""
        # The network takes 3 s of CPU to import: the actors need it, the driver, which names this class, does not.
        from jobs.scoring.batch_scoring import BatchScorer

        if is_worker:
            log_as_json()
        self._scorer = BatchScorer(plan=plan, cache_bytes=cache_bytes, telemetry=telemetry, device=device)
        if workload is not None:
            self._scorer.announce_time(workload)

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Scores one batch."""
        return self._scorer.score_batch(rows)
