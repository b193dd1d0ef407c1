"""Boxes of photos through the whole job: a row each, every photo fetched once, known boxes left out."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from jobs.archive.manifest import list_archive
from jobs.results.known import read_latest
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import read_record
from jobs.scoring.run_folder import RunFolder
from jobs.tables.schema import SCORES
from model.artifact import load_artifact

BOXES = ["0,0,60,40", "3,9,50,50", "20,10,64,64", "-5,0,40,40", "40,40,48,33"]


def write_list(folder: Path, rows: list[tuple[Path, str]]) -> str:
    """Writes a list of boxes and returns its path."""
    lines = "\n".join(f'{path},"{box}"' for path, box in rows)
    (folder / "boxes.csv").write_text(f"image_uri,box\n{lines}\n")
    return str(folder / "boxes.csv")


def read_record_of(config: ScoreConfig) -> dict[str, dict[str, float]]:
    return read_record(RunFolder(config.results, config.run_id)) or {}


def test_a_box_is_scored_as_its_crop_in_a_file_and_only_once(local_config: ScoreConfig, tmp_path: Path) -> None:
    photos = sorted((tmp_path / "flat").glob("[0-9].jpg"))
    good = [(photo, box) for photo in photos for box in BOXES]
    archive = write_list(
        tmp_path, [*good, (photos[0], "900,900,9,9"), (photos[0], "x"), (tmp_path / "no.jpg", BOXES[0])]
    )
    config = local_config.model_copy(update={"archive": f"file://{archive}", "max_error_rate": 1.0})
    assert scoring.score_archive(config) == 0
    rows = read_latest(config.results, SCORES.names).to_pylist()
    assert len(rows) == len(good) + 3
    detector = load_artifact(tmp_path / "registry" / "pole", alias="champion")
    for row in rows:
        if row["status"] == "scored":
            x, y, width, height = map(int, row["box"].split(","))
            with Image.open(row["image_uri"].removeprefix("file://")) as photo:
                crop = photo.crop((max(x, 0), max(y, 0), x + width, y + height))
            crop.save(file := io.BytesIO(), "PNG")
            (tmp_path / "crop.png").write_bytes(file.getvalue())
            assert detector.score_file(tmp_path / "crop.png").score == pytest.approx(row["score"], rel=1e-6)
    codes = sorted((row["error"] or "").split(":")[0] for row in rows if row["status"] != "scored")
    assert codes == ["bad_box", "box_outside", "deleted"]
    assert read_record_of(config)["measures"]["fetched_bytes"] == sum(photo.stat().st_size for photo in photos)
    again = config.model_copy(update={"run_id": "again", "local": True})
    assert scoring.score_archive(again) == 0
    assert sum(read_record_of(again)["counts"].values()) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
def test_on_a_cluster_each_photo_is_fetched_once(local_config: ScoreConfig, tmp_path: Path) -> None:
    photos = []
    for number in range(40):
        photos.append(tmp_path / "flat" / f"photo-{number:02d}.png")
        Image.effect_noise((96, 80), 9 + number).convert("RGB").save(photos[-1])
    coco = {
        "images": [{"id": number, "file_name": photo.name} for number, photo in enumerate(photos)],
        "annotations": [
            {"image_id": number, "bbox": [float(part) for part in box.split(",")]}
            for box in BOXES
            for number in range(len(photos))
        ],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(coco))
    asked = {"boxes": f"file://{tmp_path}/boxes.json", "local": False, "run_id": "boxes"}
    config = local_config.model_copy(update=asked)
    assert len(list_archive(config.archive, boxes=config.boxes)) == len(photos) * len(BOXES)
    assert scoring.score_archive(config) == 0
    record = read_record_of(config)
    assert record["counts"]["scored"] == sum(record["counts"].values()) == len(photos) * len(BOXES)
    assert record["measures"]["fetched_bytes"] == sum(photo.stat().st_size for photo in photos)
