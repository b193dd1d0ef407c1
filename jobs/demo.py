"""Command: the whole product on this machine with nothing to configure.

``python -m jobs.demo`` draws a small archive of power-line photos, trains a detector on its flawless part, scores the
archive and queries the result table.
"""

from __future__ import annotations

import csv
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import Field

from jobs.cli import parse_config, run_command
from jobs.config import JobConfig
from jobs.errors import EXIT_DONE
from jobs.scoring import run as scoring
from jobs.scoring.config import ScoreConfig
from jobs.scoring.record import read_published
from jobs.storage import uris
from jobs.synthetic.archive import CATEGORY, draw_archive
from jobs.training import run as training
from jobs.training.config import TrainConfig
from model.network.weights import WeightsUnavailableError, fetch_imagenet_weights
from model.statistics.evaluation import compute_auroc

DOWNLOAD_SILENCE_S = 5.0
DOWNLOAD_S = 30.0
_QUERY = """
SELECT site, count(*) AS photos, count(*) FILTER (is_anomaly) AS anomalies, round(min(p_value), 3) AS smallest_p,
       count(*) FILTER (status = 'unreadable') AS unreadable
FROM read_parquet('{scores}/**/*.parquet') GROUP BY site ORDER BY anomalies DESC, site
"""


class DemoConfig(JobConfig):
    """Draw, train, score and query on this machine; needs no data and no configuration."""

    folder: str = Field("", description="where to keep everything; default: a new temporary folder")
    seed: int = Field(0, ge=0, description="seed of the drawing and of the detector")


def main(argv: Sequence[str]) -> int:
    """Runs the demo and prints what it finds."""
    import duckdb

    config = parse_config(DemoConfig, argv, prog="python -m jobs.demo")
    began = time.monotonic()
    folder = Path(config.folder or tempfile.mkdtemp(prefix="attentdiffernet-demo-")).absolute()
    counts = draw_archive(folder, seed=config.seed)
    print(f"drew {counts.train_good} flawless photos to train on and an archive to score, in {folder}\n")
    training.train_detectors(_training(folder, seed=config.seed))
    scoring.score_archive(
        ScoreConfig(
            archive=str(folder / "archive"),
            detectors=str(folder / "detectors"),
            results=str(folder / "results"),
            run_id="demo",
            key_pattern=r"(?P<category>[^/]+)/(?P<site>[^/]+)/(?P<captured_at>[0-9-]+)/",
            max_error_rate=0.1,
        )
    )
    print(f"\nAUROC of the archive, defective against flawless: {100 * _auroc(folder):.1f} %")
    query = _QUERY.format(scores=folder / "results" / "scores")
    print(f"\nthe table is plain Parquet; a query in DuckDB:\n{query}\n{duckdb.sql(query)}")
    print(f"done in {time.monotonic() - began:.0f} s; everything is in {folder}")
    return EXIT_DONE


def _training(folder: Path, *, seed: int) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "data": str(folder / "data"),
            "category": CATEGORY,
            "detectors": str(folder / "detectors"),
            "variant": "attentdiffernet_se",
            "calibration_fraction": 0.3,
            "optimizer": {"epochs": 40},
            "detector": {
                "weights": _weights(),
                "seed": seed,
                "image_size": 128,
                "scales": 2,
                "views": 4,
                "train_angles": "scoring",
                "feature_scaling": "global",
                "pretext": {"steps": 40},
                "flow": {"blocks": 4, "hidden_width": 256, "hidden_layers": 2},
            },
        }
    )


def _weights() -> str:
    try:
        fetch_imagenet_weights("alexnet", timeout_s=DOWNLOAD_SILENCE_S, total_s=DOWNLOAD_S)
    except WeightsUnavailableError:
        print("features: seeded random AlexNet, because ImageNet weights are neither cached nor quickly downloaded")
        return "random"
    print("features: AlexNet trained on ImageNet")
    return "imagenet"


def _auroc(folder: Path) -> float:
    """AUROC over the archive's readable photos, by the labels that the drawing kept aside."""
    with (folder / "archive_labels.csv").open() as file:
        labels = {uris.normalize(str(folder / "archive" / row["path"])): row["label"] for row in csv.DictReader(file)}
    rows = read_published(uris.normalize(str(folder / "results")), ["image_uri", "score"]).drop_null()
    truth = np.array([labels[uri] != "good" for uri in rows["image_uri"].to_pylist()])
    return compute_auroc(truth, rows["score"].to_numpy())


if __name__ == "__main__":
    run_command(main)
