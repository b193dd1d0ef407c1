"""A fleet without photos, to measure what scoring costs around them: registry, list of URIs, an earlier run's rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from jobs import storage
from jobs.detectors import registry
from jobs.results.commit import commit_slice
from jobs.storage import uris
from jobs.tables.schema import LISTED, SCHEMA_VERSION, SCORES, Status
from model.artifact.files import CALIBRATION, CONFIG, FORMAT_VERSION, WEIGHTS_HASH, compute_weights_id
from model.config import DetectorConfig
from model.statistics.calibration import Calibration, choose_false_alarm_rate

DETECTOR_ID = "0" * 15 + "1"
CATEGORIES = 200
CALIBRATION_PHOTOS = 200
_CHUNK_ROWS = 100_000
_WHEN = datetime(2026, 11, 1, tzinfo=UTC)


def register_null_detectors(detectors: str) -> None:
    """Registers a detector without weights for each category: enough to plan with, nothing to load."""
    config = json.dumps(make_config()).encode()
    calibration = Calibration(scores=tuple(map(float, range(CALIBRATION_PHOTOS)))).model_dump_json().encode()
    for number in range(CATEGORIES):
        folder = uris.join(detectors, name_category(number), DETECTOR_ID)
        storage.write(uris.join(folder, CONFIG), config)
        storage.write(uris.join(folder, CALIBRATION), calibration)
        registry.set_alias(detectors, name_category(number), alias="champion", detector_id=DETECTOR_ID)


def make_config() -> dict[str, object]:
    """Makes the content of config.json of a detector whose weights nobody reads."""
    detector = DetectorConfig(variant="differnet", weights="random", views=1).model_dump(mode="json")
    return {"format_version": FORMAT_VERSION, "detector": detector, WEIGHTS_HASH: "0" * 64}


def write_list(path: Path, rows: int) -> None:
    """Writes the archive: a Parquet list of URIs with entity tags, in an order far from the manifest's."""
    with pq.ParquetWriter(path, LISTED, compression="zstd") as writer:
        for numbers in split_numbers(rows, rows):
            writer.write_table(pa.table(make_objects(numbers), schema=LISTED))


def publish_earlier_run(results: str, rows: int, *, settled: int) -> None:
    """Commits a run that has scored ``settled`` of the ``rows`` objects with the same detectors."""
    tables = (make_scores(numbers) for numbers in split_numbers(rows, settled))
    batches = (batch for table in tables for batch in table.to_batches())
    if settled:
        commit_slice(results, batches, run_id="earlier", slice_number=0, run_date=_WHEN.date(), known_since=-1)


def split_numbers(rows: int, some: int) -> Iterator[np.ndarray]:
    """Yields numbers of objects, ``some`` of 0 to rows - 1, each once and spread over all categories."""
    for start in range(0, some, _CHUNK_ROWS):
        # 7,919 is prime and no size measured is a multiple of it, so this is a permutation.
        yield np.arange(start, min(some, start + _CHUNK_ROWS), dtype=np.int64) * 7919 % rows


def name_category(number: int) -> str:
    """Returns the category of a number, such as ``category-007``."""
    return f"category-{number:03d}"


def make_objects(numbers: np.ndarray) -> dict[str, pa.Array]:
    """Returns the columns of listed objects, a row for each of N numbers."""
    names = [name_category(number % CATEGORIES) for number in numbers.tolist()]
    sites = [f"line-{number % 37:02d}" for number in numbers.tolist()]
    places = [f"s3://archive/{name}/{site}/2026-11-01" for name, site in zip(names, sites, strict=True)]
    uris = [f"{place}/{number:09d}.jpg" for place, number in zip(places, numbers.tolist(), strict=True)]
    return {
        "image_uri": pa.array(uris),
        "image_etag": pa.array([f"{number * 0x9E3779B97F4A7C15 % 2**128:032x}" for number in numbers.tolist()]),
        "image_bytes": pa.array(numbers % 5_000_000 + 100_000),
        "last_modified": pa.array([_WHEN] * len(numbers), LISTED.field("last_modified").type),
        "category": pa.array(names),
        "site": pa.array(sites),
        "captured_at": pa.nulls(len(numbers), LISTED.field("captured_at").type),
        "box": pa.nulls(len(numbers), LISTED.field("box").type),
    }


def make_scores(numbers: np.ndarray) -> pa.Table:
    """Returns SCORES rows of an earlier run, a row for each of N numbers."""
    objects, count = make_objects(numbers), len(numbers)
    constant: dict[str, object] = {
        "status": Status.SCORED,
        "detector_id": DETECTOR_ID,
        "weights_id": compute_weights_id(make_config()),
        "false_alarm_rate": choose_false_alarm_rate(CALIBRATION_PHOTOS),
        "detector_variant": "differnet",
        "views": 1,
        "precision": "fp32",
        "run_id": "earlier",
        "scored_at": _WHEN,
        "schema_version": SCHEMA_VERSION,
    }
    columns = [
        objects[field.name].cast(field.type)
        if field.name in objects
        else pa.repeat(pa.scalar(constant.get(field.name), field.type), count)
        for field in SCORES
    ]
    return pa.Table.from_arrays(columns, schema=SCORES)
