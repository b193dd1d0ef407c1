"""The Ray job against a bare loop on the same cores, the parts of its start, and its memory.

As nightly jobs are run: each goes to a running head, which has scored before. The head is gone while the loop runs.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import ray

from jobs import storage
from jobs.benchmarks.config import JobBenchmarkConfig
from jobs.benchmarks.engines.archive import CATEGORY, list_or_draw_photos, register_champion
from jobs.benchmarks.loop import measure_loop
from jobs.benchmarks.process_tree import list_processes, measure_private_bytes
from jobs.benchmarks.report import print_metrics, write_report
from jobs.cluster.session import start_own_ray
from jobs.errors import JobError, RequestError
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.storage import uris
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.hardware import find_faster_precision

_WARM_UP = "warm-up"
_SAMPLE_S = 1.0


@dataclass(frozen=True)
class JobBench:
    """Where the jobs run.

    Attributes:
        config: what is measured.
        scratch: URI of the folder for archives, detectors and results.
        artifact: local folder of the detector that scores.
        photos: JPEG files' bytes, repeated as needed.
    """

    config: JobBenchmarkConfig
    scratch: str
    artifact: Path
    photos: Sequence[bytes]


def measure_job(config: JobBenchmarkConfig) -> None:
    """Measures the job against the bare loop: ``ray_vs_loop_ratio`` (median over turns) and the seconds of its start.

    Raises:
        RequestError: there are no photos, or too few for a rate.
        JobError: a job or a loop ended early.
    """
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as folder:
        scratch = config.scratch or uris.normalize(str(Path(folder) / "job"))
        bench = JobBench(config, scratch, Path(folder) / "artifact", read_or_draw_photos(config, Path(folder)))
        register_random_detector(bench)
        write_archive(bench, name=_WARM_UP, count=1)
        turns = take_turns(bench, write_archive(bench, name="archive", count=config.job_photos))
        memory = compare_memory(bench)
    middle = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    metrics = {
        "ray_vs_loop_ratio": middle["ratio"],
        "ray_images_per_s": middle["ray"],
        "loop_images_per_s": middle["loop"],
        "submission_to_first_batch_s": middle["submission_to_first_batch_s"],
        "turns": turns,
        **memory,
    }
    write_report(metrics, output=config.output, config=config)
    print_metrics(metrics, ("ray_vs_loop_ratio", "submission_to_first_batch_s"))


def read_or_draw_photos(config: JobBenchmarkConfig, folder: Path) -> list[bytes]:
    """Reads the photos of the configuration, or draws 24 where it names none."""
    return [storage.read(uri) for uri in list_or_draw_photos(config.photos, folder)]


def take_turns(bench: JobBench, photos: Sequence[str]) -> list[dict[str, float]]:
    """Runs loop and job in turns: photos per second of both, their ratio, and the seconds of the job's start.

    Raises:
        RequestError: too few photos to know the job's pace.
        JobError: a process failed.
    """
    turns = []
    for number in range(bench.config.repeats):
        loop = measure_loop(bench.artifact, photos, processes=os.cpu_count() or 1)
        run = run_job(bench, archive="archive", run_id=f"speed-{number}")
        rate = run.record["images_per_s"]
        if rate is None:
            raise RequestError(f"needed photos for several batches of every scoring actor, got {len(photos)}")
        turns.append({"loop": loop, "ray": rate, "ratio": rate / loop, **run.start})
        print(f"turn {number + 1}: loop {loop:.1f}, Ray job {rate:.1f} images/s", flush=True)
    return turns


@dataclass(frozen=True)
class MeasuredJob:
    """A finished job: its record, the seconds of its start, and the most memory of each kind of process."""

    record: dict[str, Any]
    start: dict[str, float]
    peaks_mib: Mapping[str, float]


def run_job(bench: JobBench, *, archive: str, run_id: str) -> MeasuredJob:
    """Runs the job as an operator does, in a process of its own, on a head that is new and warmed up."""
    new_id = f"{run_id}-{uuid.uuid4().hex[:8]}"  # an earlier benchmark may have left runs in the same scratch folder
    with start_head() as address:
        submit_job(bench, address, archive=_WARM_UP, run_id=f"{new_id}-warm-up")
        return submit_job(bench, address, archive=archive, run_id=new_id)


@contextmanager
def start_head() -> Iterator[str]:
    """Starts a local head and yields its address."""
    start_own_ray()
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


def submit_job(bench: JobBench, address: str, *, archive: str, run_id: str) -> MeasuredJob:
    """Runs one job on the head of ``address`` and watches it.

    Raises:
        JobError: it failed.
    """
    places = {name: uris.join(bench.scratch, name) for name in ("detectors", "results")}
    argv = ["--archive", uris.join(bench.scratch, archive), "--run-id", run_id, "--rescore", "--top", "0"]
    argv += [part for name, place in places.items() for part in (f"--{name}", place)]
    argv += ["--scoring.use-gpu"] if bench.config.use_gpu else []
    submitted, peaks = time.time(), defaultdict[str, float](float)
    job = subprocess.Popen(  # noqa: S603  # our own command
        [sys.executable, "-m", "jobs.score", *argv],
        env=os.environ | {"RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while job.poll() is None:
        for kind, size_mib in measure_memory(driver=job.pid).items():
            peaks[kind] = max(peaks[kind], size_mib)
        time.sleep(_SAMPLE_S)
    record = read_record(RunFolder(places["results"], run_id))
    if record is None:
        raise JobError(f"the job to measure ended with {job.returncode}: {job.communicate()[0][-500:]}")
    started, first = (datetime.fromisoformat(record[name]).timestamp() for name in ("started_at", "first_scored_at"))
    parts = {
        "imports_s": started - submitted,
        "listing_s": record["timings_s"]["listing"],
        "ray_joined_s": record["timings_s"]["ray_start"],
        "actors_and_first_batch_s": record["timings_s"]["to_first_batch"],
        "submission_to_first_batch_s": first - submitted,
    }
    return MeasuredJob(record, parts, peaks)


def compare_memory(bench: JobBench) -> dict[str, Any]:
    """Measures the peak private memory of driver and workers in runs of two sizes."""
    found = {}
    for count in bench.config.memory_photos:
        write_archive(bench, name=f"archive-{count}", count=count)
        run = run_job(bench, archive=f"archive-{count}", run_id=f"memory-{count}")
        found[str(count)] = {kind: round(peak) for kind, peak in run.peaks_mib.items()}
        print(f"{count} photos: {found[str(count)]} MiB", flush=True)
    if len(found) < 2:
        return {}
    first, *_, last = found.values()
    growth = {kind: last[kind] / first[kind] for kind in ("driver", "scoring", "decoding")}
    return {"peak_memory_mib": found, "memory_growth": growth}


def measure_memory(*, driver: int) -> dict[str, float]:
    """Returns MiB that are a process's own, the largest of each kind among this one's descendants."""
    found: dict[str, float] = {}
    for process in list_processes(os.getpid())[1:]:
        try:
            title = " ".join(process.cmdline())
        except psutil.NoSuchProcess:
            continue
        kind = "driver" if process.pid == driver else name_process_kind(title)
        found[kind] = max(found.get(kind, 0), measure_private_bytes(process) / 2**20)
    return found


def name_process_kind(title: str) -> str:
    """Returns the kind of process that a command line stands for."""
    kinds = {"ScoreImages": "scoring", "decoder_child": "decoding", "ray::": "other workers"}
    return next((kind for part, kind in kinds.items() if part in title), "Ray itself")


def write_archive(bench: JobBench, *, name: str, count: int) -> list[str]:
    """Copies the photos to numbered keys and returns their URIs."""
    listed = [uris.join(bench.scratch, name, CATEGORY, f"{number:06d}.jpg") for number in range(count)]
    for number, uri in enumerate(listed):
        storage.write(uri, bench.photos[number % len(bench.photos)])
    return listed


def register_random_detector(bench: JobBench) -> None:
    """Saves a detector with random weights and makes it the champion."""
    precision = find_faster_precision("cpu")
    config = DetectorConfig(variant="differnet", weights="random", views=bench.config.views, precision=precision)
    place = uris.join(bench.scratch, "detectors")
    register_champion(AttentDifferNet(config), detectors=place, artifact=bench.artifact)
