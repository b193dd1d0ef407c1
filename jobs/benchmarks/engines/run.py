"""Engines in turns: each a process of its own, from its start to the written scores of all photos."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from scipy.stats import spearmanr

from jobs import storage
from jobs.benchmarks.engines.archive import CATEGORY, list_or_draw_photos, register_champion
from jobs.benchmarks.engines.config import EnginesBenchmarkConfig
from jobs.benchmarks.engines.request import EngineRequest
from jobs.benchmarks.process_tree import CpuSampler
from jobs.benchmarks.report import write_report
from jobs.cluster.connection import ADDRESS_VARIABLE
from jobs.errors import JobError, RequestError
from jobs.results.known import read_rows
from jobs.storage import uris
from jobs.tables.text import format_table
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.hardware import find_faster_precision
from model.presets import get_random_preset

TITLES = {
    "ours": "`jobs.score`",
    "ray_data": "Ray Data, `read_images` and `map_batches`",
    "daft": "Daft, a class as UDF",
    "dataloader": "DataLoader with fsspec",
    "loop": "bare processes",
}


_FOLDERS = ("ray_data", "daft")
"""Engines that write a folder of Parquet files."""
_MEDIANS = ("wall_s", "first_s", "images_per_s", "cpu_ms")
"""Fields of a run whose medians the table shows."""


@dataclass(frozen=True)
class EngineRun:
    """What one run cost.

    Attributes:
        wall_s: from the start of the process to its end, with all scores written.
        first_s: from the start to the first scored batch.
        images_per_s: from the first batch to the last, without the first's photos.
        cpu_ms: per photo, of all processes.
        scores: photo's name -> score.
    """

    wall_s: float
    first_s: float
    images_per_s: float
    cpu_ms: float
    scores: Mapping[str, float]


def measure_engines(config: EnginesBenchmarkConfig) -> None:
    """Measures each engine ``repeats`` times, in turns after one run that warms it up, and prints a table.

    Raises:
        RequestError: there are no photos, or an engine is not installed.
        JobError: an engine failed.
    """
    check_installed(config)
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as folder:
        scratch = uris.join(config.scratch or uris.normalize(folder), f"engines-{uuid.uuid4().hex[:8]}")
        write_archive(config, scratch, Path(folder))
        artifact = register_detector(config, scratch, Path(folder))
        runs: dict[str, list[EngineRun]] = {name: [] for name in config.engines}
        for repeat in range(config.repeats + 1):
            for name in config.engines:
                run = run_engine(name, config, scratch=scratch, artifact=artifact, number=repeat)
                print(f"turn {repeat}: {name} {run.wall_s:.1f} s, then {run.images_per_s:.1f} images/s", flush=True)
                runs[name] += [run] if repeat else []
    metrics = summarize_runs(runs)
    write_report({"engines": metrics}, output=config.output, config=config)
    print(format_engines(metrics))


def check_installed(config: EnginesBenchmarkConfig) -> None:
    """Raises RequestError where an engine, or what lets it read the scratch folder, is not installed."""
    on_s3 = (config.scratch or "").startswith("s3://")
    needed = {"daft": "daft"} | ({"dataloader": "s3fs"} if on_s3 else {})
    for engine, package in needed.items():
        if engine in config.engines and find_spec(package) is None:
            raise RequestError(
                f"engine {engine} needs {package}, which is not installed: run `make bench-engines`, "
                f"install the extra `engines`, or name others by --engines"
            )


def write_archive(config: EnginesBenchmarkConfig, scratch: str, folder: Path) -> None:
    """Writes the photos, as many as the configuration says, below ``<scratch>/archive``; see `list_or_draw_photos`.

    Two batches of them lie below ``<scratch>/warm-up`` as well.
    """
    photos = [storage.read(uri) for uri in list_or_draw_photos(config.photos, folder)]
    for name, count in (("archive", config.archive_photos), ("warm-up", config.warm_up_photos)):
        for number in range(count):
            storage.write(uris.join(scratch, name, CATEGORY, f"{number:06d}.jpg"), photos[number % len(photos)])


def register_detector(config: EnginesBenchmarkConfig, scratch: str, folder: Path) -> Path:
    """Makes AlexNet with random weights, one scale and one view, the champion; returns its artifact's local folder."""
    preset = get_random_preset("differnet_fast", precision=find_faster_precision("cpu"), views=1)
    smaller = preset.model_copy(update={"image_size": config.image_size, "scales": 1})
    detector = AttentDifferNet(DetectorConfig.model_validate(smaller.model_dump())).eval()
    register_champion(detector, detectors=uris.join(scratch, "detectors"), artifact=folder / "artifact")
    return folder / "artifact"


def run_engine(name: str, config: EnginesBenchmarkConfig, *, scratch: str, artifact: Path, number: int) -> EngineRun:
    """Runs an engine once, in a process of its own; run 0 warms it up on few photos.

    Raises:
        JobError: it failed, or left photos out.
    """
    archive = uris.join(scratch, "archive" if number else "warm-up")
    photos = config.archive_photos if number else config.warm_up_photos
    output = uris.join(scratch, f"{name}-{number}")
    if name == "ours":
        command = ["jobs.score", "--archive", archive, "--results", output, "--run-id", "bench"]
        command += ["--detectors", uris.join(scratch, "detectors"), "--top", "0"]
    else:
        request = EngineRequest(
            artifact=str(artifact),
            archive=archive,
            output=output if name in _FOLDERS else f"{output}.parquet",
            image_size=config.image_size,
            batch_photos=config.batch_photos,
            processes=os.cpu_count() or 1,
        )
        request.write(artifact.parent / "request.json")
        command = [f"jobs.benchmarks.engines.{name}", str(artifact.parent / "request.json")]
    started_at = time.time()
    with CpuSampler() as cpu:
        run_module(command)
        wall_s = time.time() - started_at
    rows = read_scores(name, output)
    if len(rows) != photos:
        raise JobError(f"{name} scored {len(rows)} of {photos} photos")
    return summarize_rows(rows, started_at=started_at, wall_s=wall_s, cpu_s=cpu.cpu_s)


def run_module(command: Sequence[str]) -> None:
    """Runs a module of ours as on a machine without a cluster: it starts a Ray of its own, if it wants one.

    Raises:
        JobError: it failed, with its last lines.
    """
    own = {name: value for name, value in os.environ.items() if name != ADDRESS_VARIABLE}
    done = subprocess.run(  # noqa: S603  # our own command
        [sys.executable, "-m", *command],
        env=own | storage.make_worker_environment() | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = " | ".join((done.stderr.strip() or done.stdout.strip()).splitlines()[-3:])
        raise JobError(f"{command[0]} ended with exit code {done.returncode}: {said}")


def read_scores(name: str, output: str) -> pa.Table:
    """Reads what an engine has written: photo (its file's name), score, scored_at (seconds since 1970)."""
    if name == "ours":
        rows = read_rows(output, ["image_uri", "score", "scored_at"])
        times = [moment.timestamp() for moment in rows.column("scored_at").to_pylist()]
    else:
        filesystem, path = storage.resolve_filesystem(output if name in _FOLDERS else f"{output}.parquet")
        rows = ds.dataset(path, filesystem=filesystem, format="parquet").to_table()
        times = rows.column("scored_at").to_pylist()
    photos = [uri.rsplit("/", 1)[-1] for uri in rows.column("image_uri").to_pylist()]
    return pa.table({"photo": photos, "score": rows.column("score"), "scored_at": times})


def summarize_rows(rows: pa.Table, *, started_at: float, wall_s: float, cpu_s: float) -> EngineRun:
    """Returns what a run cost, by the times at which its photos were scored."""
    times = np.asarray(rows.column("scored_at"))
    after = times > times.min()
    rate = after.sum() / (times.max() - times.min()) if after.any() else len(rows) / wall_s
    scores = dict(zip(rows.column("photo").to_pylist(), rows.column("score").to_pylist(), strict=True))
    return EngineRun(wall_s, times.min() - started_at, float(rate), 1000 * cpu_s / len(rows), scores)


def summarize_runs(runs: Mapping[str, Sequence[EngineRun]]) -> dict[str, dict[str, Any]]:
    """Returns medians over the runs of each engine, and how far its scores agree with those of the first."""
    reference = next(iter(runs.values()))[0].scores
    order = sorted(reference)
    found = {}
    for name, mine in runs.items():
        medians = {field: statistics.median(getattr(run, field) for run in mine) for field in _MEDIANS}
        theirs = [mine[0].scores[photo] for photo in order]
        alike = float(spearmanr([reference[photo] for photo in order], theirs).statistic)
        found[name] = medians | {"rank_correlation": alike, "walls_s": [run.wall_s for run in mine]}
    return found


def format_engines(metrics: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the table in Markdown, a row for each engine."""
    columns = [
        "engine",
        "start to written result, s",
        "to the first scored batch, s",
        "then images/s",
        "CPU ms an image",
        "rank correlation of its scores with the first row's",
    ]
    rows = [
        [TITLES[name], *(f"{one[field]:.1f}" for field in _MEDIANS), f"{one['rank_correlation']:.4f}"]
        for name, one in metrics.items()
    ]
    return format_table(columns, rows, markdown=True)
