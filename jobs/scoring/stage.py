"""The stages of scoring, made from a plan: photos -> pixels (FetchDecode) -> STAGED rows (ScoreImages).

Who names the stages loads neither torch nor networks nor Ray Data: the processes that run them import what they do.
"""

from __future__ import annotations

import pyarrow as pa

from jobs.cluster.run_log import log_as_json
from jobs.cluster.telemetry import Telemetry, Workload
from jobs.config import ScoringResources
from jobs.decoding.decoder import make_decode_limits
from jobs.decoding.fetch import FetchDecode, Measure
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


def make_fetch_decode(
    plan: ScoringPlan, resources: ScoringResources, *, measure: Measure, decoders: int = 1
) -> FetchDecode:
    """Makes the stage that turns a plan's photos into the pixels that its detectors see, by so many processes."""
    return FetchDecode(
        image_sizes={category: detector.image_size for category, detector in plan.by_category.items()},
        max_pixels=plan.max_pixels,
        concurrency=resources.fetch_concurrency,
        limits=make_decode_limits(resources),
        decoders=decoders,
        measure=measure,
        rules={category: detector.rules for category, detector in plan.by_category.items()},
    )
