"""A first pass over an archive that takes five nights, each cut off by a deadline: none costs more than another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from jobs.benchmarks.null_pipeline import score_with_null
from jobs.benchmarks.process_tree import measure_cpu_s
from jobs.benchmarks.synthetic_fleet import register_null_detectors, write_list
from jobs.cluster.tally import Reported
from jobs.errors import JobError
from jobs.results.known import read_rows
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.plan import ScoringPlan
from jobs.scoring.publication.committer import SliceCommitter
from jobs.scoring.staged_rows import assemble_staged

NIGHTS, SLICES = 5, 2
"""Nights, and slices that are in the table when a night's deadline comes."""
MAX_GROWTH = 1.2
MAX_KNOWN_US = 30.0
"""CPU microseconds that a night may take for each photo that is known already; to score one takes milliseconds."""


class NullScorer:
    """Takes the place of LocalScorer: makes scores up, fetches nothing."""

    def __init__(self, rows: int, *, plan: ScoringPlan, resources: object) -> None:
        self._plan, self.reported = plan, Reported()

    def score_rows(self, manifest: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in manifest:
            rows, count = pa.Table.from_batches([batch]), len(batch)
            scores = np.linspace(0, 300, count)
            yield from assemble_staged(
                rows, plan=self._plan, statuses=["scored"] * count, errors=[None] * count, scores=scores
            ).to_batches()


def run_nights(
    tmp_path: Path, slice_photos: int, monkeypatch: pytest.MonkeyPatch, *, local: bool = True
) -> list[float]:
    """Runs NIGHTS nights under a deadline; returns the CPU seconds of each and checks that the archive is done."""
    register_null_detectors(f"file://{tmp_path}/detectors")
    write_list(tmp_path / "archive.parquet", NIGHTS * SLICES * slice_photos)
    monkeypatch.setattr(scoring, "LocalScorer", NullScorer)
    commit, done = SliceCommitter.commit_next, list[int]()

    def commit_until_deadline(self: SliceCommitter, staged: Iterable[pa.RecordBatch]) -> None:
        if len(done) == SLICES:
            raise JobError("the deadline")
        commit(self, staged)
        done.append(1)

    monkeypatch.setattr(SliceCommitter, "commit_next", commit_until_deadline)
    spent = []
    for night in range(NIGHTS):
        request = {
            "archive": str(tmp_path / "archive.parquet"),
            "detectors": str(tmp_path / "detectors"),
            "results": str(tmp_path / "results"),
            "run_id": f"night-{night}",
            "slice_photos": slice_photos,
            "local": local,
            "top": 0,
        }
        began = measure_cpu_s(os.getpid())
        done.clear()
        try:
            scoring.score_archive(ScoreConfig.model_validate(request), pipeline=score_with_null)
        except JobError as error:
            assert str(error) == "the deadline"  # noqa: PT017  # the last night ends before it
        spent.append(measure_cpu_s(os.getpid()) - began)
    uris = read_rows(f"file://{tmp_path}/results", ["image_uri"])["image_uri"].to_pylist()
    assert len(uris) == len(set(uris)) == NIGHTS * SLICES * slice_photos
    return spent


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_five_nights_are_enough_for_five_nights_of_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_nights(tmp_path, 300, monkeypatch)


@pytest.mark.nightly
@pytest.mark.timeout(1200)
def test_what_is_known_costs_a_night_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = 20_000
    spent = run_nights(tmp_path, photos, monkeypatch)
    known_us = [1e6 * (cpu_s - spent[0]) / (night * SLICES * photos) for night, cpu_s in enumerate(spent) if night]
    print("CPU seconds of each night:", spent, "microseconds for each known photo:", known_us)
    assert max(known_us) <= MAX_KNOWN_US


@pytest.mark.nightly
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_no_night_costs_more_than_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spent = run_nights(tmp_path, 20_000, monkeypatch, local=False)
    print("CPU seconds of each night:", spent)
    assert max(spent[1:]) <= MAX_GROWTH * spent[0]
