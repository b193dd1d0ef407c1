"""Shows the epochs of a training while it runs, and keeps one in a checkpoint now and then."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import ray.train
import ray.train.collective

from jobs.cluster.progress import format_duration
from jobs.training.config import TrainConfig
from jobs.training.history import format_epoch
from jobs.training.units import TrainingTask
from model.training.checkpoint import TrainingState, load_state, save_state
from model.training.loop import Snapshot
from model.training.metrics import EpochMetrics

MAX_CHECKPOINT_SHARE = 0.05
"""Of a training's time."""


@dataclass
class EpochLog:
    """What `model.training.loop.train` calls after each epoch, on every worker.

    Attributes:
        task: of the unit.
        config: of the unit.
        rank: of this worker.
        is_alone: whether there is no other worker.
        kept_at_s: when the last checkpoint was kept, in seconds of the monotonic clock.
        cost_s: how long keeping it took.
    """

    task: TrainingTask
    config: TrainConfig
    rank: int
    is_alone: bool
    kept_at_s: float = field(default_factory=time.monotonic)
    cost_s: float = 0.0

    def load_state(self) -> TrainingState | None:
        """Returns the state in the run's last checkpoint, or None before the first; shows the epochs done before."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is None:
            return None
        with checkpoint.as_directory() as folder:
            state = load_state(Path(folder))
        self._show(state.epoch, f"resumed after epoch {state.epoch}" if state.epoch else "resumed after the pretext")
        return state

    def tell(self, remark: str) -> None:
        """Shows a remark; it stays until the next one."""
        self._show(0, remark)

    def keep_pretext(self, state: TrainingState) -> None:
        """Keeps the state right after attention's pretext, whatever it takes: minutes were spent on it."""
        self._report({"epoch": state.epoch}, lambda: state)

    def __call__(self, metrics: EpochMetrics, snapshot: Snapshot) -> None:
        """Shows an epoch, and how long the others will take, and keeps it if a checkpoint is due."""
        left = self.config.optimizer.epochs - metrics.epoch
        more = f", about {format_duration(metrics.seconds * left)} left" if metrics.epoch and left else ""
        self._show(metrics.epoch, format_epoch(metrics) + more)
        if self.rank == 0 and self.config.trackers:
            self.task.report.record(self.task.name, metrics.to_json())
        if self.is_due():
            self.keep(metrics, snapshot)

    def _show(self, epoch: int, note: str) -> None:
        if self.rank == 0:
            self.task.report.reach(self.task.name, epoch, f"{self.task.name}: {note}")

    def is_due(self) -> bool:
        """Returns whether a checkpoint is due; the same on all workers.

        `ray.train.report` waits until every worker has called it. Reporting every epoch would do as well, but Ray
        Train's controller takes one report in two seconds.
        """
        every_s = self.config.checkpoint_every_s
        passed_s = time.monotonic() - self.kept_at_s
        is_due = passed_s >= every_s and (every_s == 0 or passed_s * MAX_CHECKPOINT_SHARE >= self.cost_s)
        return is_due if self.is_alone else ray.train.collective.broadcast_from_rank_zero(is_due)

    def keep(self, metrics: EpochMetrics, snapshot: Snapshot) -> None:
        """Hands Ray Train the state after an epoch, from the first worker."""
        self._report(metrics.to_json(), snapshot)

    def _report(self, metrics: dict[str, object], snapshot: Snapshot) -> None:
        started_s = time.monotonic()
        with tempfile.TemporaryDirectory() as scratch:
            checkpoint = None
            if self.rank == 0:
                save_state(Path(scratch), snapshot())
                checkpoint = ray.train.Checkpoint.from_directory(scratch)
            ray.train.report(metrics, checkpoint=checkpoint)
        self.kept_at_s = time.monotonic()
        self.cost_s = self.kept_at_s - started_s
