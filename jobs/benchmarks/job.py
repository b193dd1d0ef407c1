"""The Ray job against a bare loop on the same cores, the parts of its start, and its memory.

As nightly jobs are run: each goes to a running head, which has scored before. The head is gone while the loop runs.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import ray

from jobs import storage
from jobs.benchmarks.loop import loop_images_per_s
from jobs.benchmarks.process_tree import private_bytes, process_ids
from jobs.cluster.session import start_own_ray
from jobs.detectors import registry
from jobs.errors import JobError, RequestError
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.storage import uris
from model.artifact import save_artifact
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration

_CATEGORY = "insulator"
_WARM_UP = "warm-up"
_SAMPLE_S = 1.0


@dataclass(frozen=True)
class JobRequest:
    """What is measured.

    Attributes:
        photos: JPEG files' bytes, repeated as needed.
        scratch: URI of a folder for archive, detectors and results.
        folder: a local one.
        job_photos: photos of a run.
        detector: what scores them, with random weights.
        repeats: of loop and job in turns.
        memory_photos: sizes of two more runs whose memory is watched; none skips that.
    """

    photos: Sequence[bytes]
    scratch: str
    folder: Path
    job_photos: int
    detector: DetectorConfig
    repeats: int
    memory_photos: Sequence[int]


def job_figures(request: JobRequest) -> dict[str, Any]:
    """``ray_vs_loop_ratio`` (median over turns), seconds from submission to the first scored batch, peak memory."""
    detectors = uris.join(request.scratch, "detectors")
    folder = _registered(detectors, request.folder / "artifact", request.detector)
    _archive(request, name=_WARM_UP, count=1)
    listed = _archive(request, name="archive", count=request.job_photos)
    cores = os.cpu_count() or 1
    turns = []
    for number in range(request.repeats):
        loop = loop_images_per_s(folder, listed, processes=cores)
        run = _run(request, archive="archive", run_id=f"speed-{number}")
        rate = run.record["images_per_s"]
        if rate is None:
            raise RequestError(f"needed photos for several batches of every scoring actor, got {request.job_photos}")
        turns.append({"loop": loop, "ray": rate, "ratio": rate / loop, **run.start})
        print(f"turn {number + 1}: loop {loop:.1f}, Ray job {turns[-1]['ray']:.1f} images/s", flush=True)
    middle = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    return {
        "ray_vs_loop_ratio": middle["ratio"],
        "ray_images_per_s": middle["ray"],
        "loop_images_per_s": middle["loop"],
        "submission_to_first_batch_s": middle["submission_to_first_batch_s"],
        "turns": turns,
        **_memory(request),
    }


@dataclass(frozen=True)
class _Run:
    """A finished job: its record, the seconds of its start, and the most memory of each kind of process."""

    record: dict[str, Any]
    start: dict[str, float]
    peaks_mib: Mapping[str, float]


def _run(request: JobRequest, *, archive: str, run_id: str) -> _Run:
    """Runs the job as an operator does, in a process of its own, on a head that is new and warmed up."""
    new_id = f"{run_id}-{uuid.uuid4().hex[:8]}"  # an earlier benchmark may have left runs in the same scratch folder
    with _head() as address:
        _submitted(request, address, archive=_WARM_UP, run_id=f"{new_id}-warm-up")
        return _submitted(request, address, archive=archive, run_id=new_id)


@contextmanager
def _head() -> Iterator[str]:
    """A local head of `jobs.cluster.session.start_own_ray`; its address."""
    start_own_ray()
    try:
        yield str(ray.get_runtime_context().gcs_address)
    finally:
        ray.shutdown()


def _submitted(request: JobRequest, address: str, *, archive: str, run_id: str) -> _Run:
    """Runs one job on the head of ``address`` and watches it."""
    places = {name: uris.join(request.scratch, name) for name in ("detectors", "results")}
    argv = ["--archive", uris.join(request.scratch, archive), "--run-id", run_id, "--rescore", "--top", "0"]
    argv += [part for name, place in places.items() for part in (f"--{name}", place)]
    submitted, peaks = time.time(), defaultdict[str, float](float)
    job = subprocess.Popen(  # noqa: S603  # our own verb
        [sys.executable, "-m", "jobs.score", *argv],
        env=os.environ | {"RAY_ADDRESS": address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while job.poll() is None:
        for kind, size_mib in _memory_by_kind(driver=job.pid).items():
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
    return _Run(record, parts, peaks)


def _memory(request: JobRequest) -> dict[str, Any]:
    """Peak private memory of driver and workers in runs of two sizes."""
    found = {}
    for count in request.memory_photos:
        _archive(request, name=f"archive-{count}", count=count)
        run = _run(request, archive=f"archive-{count}", run_id=f"memory-{count}")
        found[str(count)] = {kind: round(peak) for kind, peak in run.peaks_mib.items()}
        print(f"{count} photos: {found[str(count)]} MiB", flush=True)
    if len(found) < 2:
        return {}
    first, *_, last = found.values()
    growth = {kind: last[kind] / first[kind] for kind in ("driver", "scoring", "decoding")}
    return {"peak_memory_mib": found, "memory_growth": growth}


def _memory_by_kind(*, driver: int) -> dict[str, float]:
    """MiB that are a process's own, the largest of each kind among this one's descendants."""
    found: dict[str, float] = {}
    for process in process_ids(os.getpid())[1:]:
        try:
            title = Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue  # it has ended
        kind = "driver" if process == driver else _kind(title)
        found[kind] = max(found.get(kind, 0), private_bytes(process) / 2**20)
    return found


def _kind(title: str) -> str:
    kinds = {"ScoreImages": "scoring", "decoder_child": "decoding", "ray::": "other workers"}
    return next((kind for part, kind in kinds.items() if part in title), "Ray itself")


def _archive(request: JobRequest, *, name: str, count: int) -> list[str]:
    """Copies of the photos under other keys; their URIs."""
    listed = [uris.join(request.scratch, name, _CATEGORY, f"{number:06d}.jpg") for number in range(count)]
    for number, uri in enumerate(listed):
        storage.write(uri, request.photos[number % len(request.photos)])
    return listed


def _registered(detectors: str, folder: Path, config: DetectorConfig) -> Path:
    """A detector with random weights, registered as champion; the folder of its artifact."""
    shutil.rmtree(folder, ignore_errors=True)
    save_artifact(folder, AttentDifferNet(config), calibration=Calibration(scores=(0.0, 1.0)), metrics={})
    detector_id = registry.put(detectors, _CATEGORY, folder=folder)
    registry.set_alias(detectors, _CATEGORY, alias="champion", detector_id=detector_id)
    return folder
