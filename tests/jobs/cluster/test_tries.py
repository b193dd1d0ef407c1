"""Stages say in one line why they end, and a batch that kills its process several times is given up."""

from __future__ import annotations

import os
import re
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
import ray

from jobs.cluster.datasets import decode_manifest, map_in_scoring_actors
from jobs.cluster.progress import Progress
from jobs.cluster.session import configure_ray_data, explain_error
from jobs.cluster.tries import MAX_TRIES, StageError, bound_tries, fail_rows
from jobs.config import ScoringResources
from jobs.decoding.fetch import DECODED
from jobs.errors import CredentialsError
from jobs.tables.schema import MANIFEST

ROWS = pa.Table.from_pylist([{"image_id": number, "image_uri": f"file:///{number}.jpg"} for number in (3, 4)], MANIFEST)


class Tries:
    """Counts tries as a Report does, without Ray."""

    def __init__(self, died: int = 0) -> None:
        self.open = Counter[str]()
        self.died = died

    def begin_try(self, work: str) -> int:
        self.open[work] += 1
        return self.died + self.open[work]

    def end_try(self, work: str) -> None:
        del self.open[work]


def test_a_batch_whose_process_died_too_often_is_not_tried_again() -> None:
    report: Any = Tries(died=MAX_TRIES)
    given_up = bound_tries(lambda rows: pytest.fail("it is tried again"), report)(ROWS)
    assert given_up.schema == DECODED
    assert given_up["status"].to_pylist() == ["failed", "failed"]
    assert (
        given_up["error"][0].as_py()
        == f"process_died: the process that worked on its batch of 2 died {MAX_TRIES} times"
    )


def test_the_last_try_is_a_try() -> None:
    report: Any = Tries(died=MAX_TRIES - 1)
    assert bound_tries(lambda rows: rows, report)(ROWS) == ROWS
    assert not report.open


def test_rows_that_are_final_keep_their_reason_when_their_batch_is_given_up() -> None:
    missing = (
        fail_rows(ROWS, "it died")
        .slice(0, 1)
        .set_column(ROWS.num_columns + 1, DECODED.field("error"), pa.array(["not_found: x"]))
    )
    open_row = missing.set_column(ROWS.num_columns, DECODED.field("status"), pa.array([None], pa.string()))
    both = fail_rows(pa.concat_tables([missing, open_row]), "it died")
    assert both["error"].to_pylist() == ["not_found: x", "process_died: it died"]


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (CredentialsError("the credentials have run out:\nlog in again"), "the credentials have run out: log in again"),
        (KeyError("what nobody thought of"), "KeyError: 'what nobody thought of'"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_what_a_stage_raises_is_one_line(raised: Exception, said: str) -> None:
    def stop(rows: pa.Table) -> pa.Table:
        raise raised

    with pytest.raises(StageError, match=f"^{re.escape(said)}$"):
        bound_tries(stop, None)(ROWS)


def stop_for_credentials(rows: pa.Table) -> pa.Table:
    """Ends as a stage does whose credentials have run out."""
    raise CredentialsError("the credentials have run out") from ValueError("ExpiredToken")


class EndProcess:
    """Ends its process at the photo 3, as one that the kernel kills for want of memory does."""

    def __init__(self, *, device: str) -> None:
        """Needs nothing."""

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Returns the rows of other photos, and of those that have a status."""
        open_rows = [row["image_id"] for row in rows.to_pylist() if row["status"] is None]
        if 3 in open_rows:
            os._exit(1)
        return rows.select(["image_id", "status", "error"])


class Unstartable:
    """Cannot start."""

    def __init__(self, *, device: str) -> None:
        raise CredentialsError(f"no detector for {device}")

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Is never reached."""
        return rows


@pytest.mark.usefixtures("cluster")
def test_the_reason_of_a_stage_arrives_through_ray() -> None:
    configure_ray_data()
    with pytest.raises(ray.exceptions.RayError, match="credentials") as stopped:
        decode_manifest(ray.data.from_arrow(ROWS), stop_for_credentials, tasks=1).materialize()
    assert explain_error(stopped.value) == "the credentials have run out"


@pytest.mark.usefixtures("cluster")
def test_the_reason_of_an_actor_that_cannot_start_arrives_through_ray() -> None:
    configure_ray_data()
    decoding = ray.data.from_arrow(ROWS)
    with pytest.raises(ray.exceptions.RayError, match="no detector") as stopped:
        map_in_scoring_actors(
            decoding, Unstartable, {}, batch_photos=2, resources=ScoringResources(actors=1)
        ).materialize()
    assert explain_error(stopped.value) == "no detector for cpu"


@pytest.mark.slow  # starts an actor six times
@pytest.mark.usefixtures("cluster")
def test_a_batch_that_kills_its_actor_ends_as_failed_rows_and_costs_no_other_batch() -> None:
    configure_ray_data()
    many = pa.Table.from_pylist([{"image_id": number, "image_uri": f"{number}"} for number in range(8)], MANIFEST)
    open_rows = pa.concat_tables([fail_rows(many, "").drop(["status"])]).append_column(
        DECODED.field("status"), pa.nulls(8, pa.string())
    )
    resources = ScoringResources(actors=1)
    with Progress(8, activity="scoring") as progress:
        found = map_in_scoring_actors(
            ray.data.from_arrow(open_rows), EndProcess, {}, batch_photos=2, resources=resources, report=progress.report
        ).take_all()
    failed = {row["image_id"] for row in found if row["status"] == "failed"}
    assert sorted(row["image_id"] for row in found) == list(range(8))
    assert failed == {2, 3}
