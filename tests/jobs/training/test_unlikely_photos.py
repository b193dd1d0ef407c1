"""The list of the least likely photos beside a detector, which --exclude takes as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa

from jobs.archive.exclusion import read_names
from jobs.tables.schema import MANIFEST
from jobs.training.config import TrainConfig
from jobs.training.photos import BlockPhotos, DecodedPhotos
from jobs.training.units import TrainingUnit
from jobs.training.unlikely_photos import save_unlikely_photos
from tests.support.training import request_tiny_training


def test_the_list_names_photos_by_uri_and_says_where_it_is(drawn: Path, tmp_path: Path) -> None:
    uris = [f"s3://b/insulator/train/good/{n}, a.jpg" for n in range(9)]
    manifest = pa.Table.from_pylist([{"image_uri": uri} for uri in uris], schema=MANIFEST)
    decoded = DecodedPhotos(BlockPhotos([], np.zeros((9, 2), np.int64), 64), manifest, [])
    unit = TrainingUnit(TrainConfig.model_validate(request_tiny_training(drawn, tmp_path)), manifest)
    unlikely = [
        {"index": 7, "times_median": 3.5, "p_value": 1 / 9},
        {"index": 2, "times_median": 2.0, "p_value": 2 / 9},
    ]
    said = save_unlikely_photos(unit, decoded, {"detector_id": "0" * 16, "unlikely": unlikely})
    place = f"file://{tmp_path}/insulator/{'0' * 16}/least_likely.csv"
    assert read_names(place) == [uris[7], uris[2]]
    assert place in said[-1]
    assert said[1].split(maxsplit=2) == ["0.1111", "3.5", uris[7]]


def test_nothing_is_said_where_nothing_was_looked_for(drawn: Path, tmp_path: Path) -> None:
    unit = TrainingUnit(TrainConfig.model_validate(request_tiny_training(drawn, tmp_path)), MANIFEST.empty_table())
    decoded = DecodedPhotos(BlockPhotos([], np.zeros((0, 2), np.int64), 64), MANIFEST.empty_table(), [])
    assert save_unlikely_photos(unit, decoded, {"detector_id": "0" * 16}) == []
