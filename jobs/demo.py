"""Command: the whole product on this machine with nothing to configure.

``python -m jobs.demo`` draws a small archive of power-line photos, trains a detector on its flawless part, scores the
archive, queries the result table and writes the page of what was found.
"""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import Field

from jobs import report, score, train
from jobs.cli import parse_config, run_command
from jobs.config import JobConfig, LocalPath
from jobs.errors import EXIT_DONE, RequestError
from jobs.storage import uris

_MARKER = ".attentdiffernet-demo"
"""File that says that a folder was made by the demo, and so may be emptied by it."""
_KEY_PATTERN = "(?P<category>[^/]+)/(?P<site>[^/]+)/(?P<captured_at>[0-9-]+)/"
_QUICK = (
    "--variant attentdiffernet_se --calibration-fraction 0.3 --optimizer.epochs 40 --detector.image-size 128 "
    "--detector.scales 2 --detector.views 4 --detector.train-angles scoring --detector.feature-scaling global "
    "--detector.pretext.steps 40 --detector.flow.blocks 4 --detector.flow.hidden-width 256 "
    "--detector.flow.hidden-layers 2"
)
"""Settings that train within a minute on two cores."""
_QUERY = """
SELECT site, count(*) AS photos, count(*) FILTER (is_anomaly) AS anomalies, round(min(p_value), 3) AS smallest_p,
       count(*) FILTER (status = 'unreadable') AS unreadable
FROM read_parquet('{table}/**/*.parquet', hive_partitioning = false) GROUP BY site ORDER BY anomalies DESC, site
"""


class DemoConfig(JobConfig):
    """Draw, train, score and query on this machine; needs no data and no configuration.

    ImageNet weights of AlexNet are taken from the file that DEMO_WEIGHTS names, or from torch's cache.
    """

    folder: LocalPath = Field("build/demo", description="where everything is kept; an earlier demo there is deleted")
    seed: int = Field(0, ge=0, description="seed of the drawing and of the detector")


def main(argv: Sequence[str]) -> int:
    """Runs the demo and prints what it finds."""
    config = parse_config(DemoConfig, argv, prog="python -m jobs.demo")
    # numpy, torch, Ray and DuckDB take seconds to import, which --help need not wait for.
    import duckdb

    from jobs.synthetic.archive import CATEGORY, draw_archive

    os.environ["RAY_ADDRESS"] = "local"  # never a cluster of somebody else's that runs on this machine
    began = time.monotonic()
    folder = empty_folder(Path(config.folder))
    counts = draw_archive(folder, seed=config.seed)
    print(f"drew {counts.train_good} flawless photos to train on and an archive to score, in {folder}")
    detectors, results = ["--detectors", str(folder / "detectors")], folder / "results"
    quick = [*shlex.split(_QUICK), "--detector.seed", str(config.seed), "--detector.weights", find_weights()]
    call(train.main, ["--data", str(folder / "data"), "--category", CATEGORY, *detectors, *quick])
    request = ["--archive", str(folder / "archive"), *detectors, "--results", str(results), "--run-id", "demo"]
    call(score.main, [*request, "--key-pattern", _KEY_PATTERN, "--max-error-rate", "0.1"])
    print(f"\nAUROC of the archive, defective against flawless: {100 * measure_auroc(folder):.1f} %")
    query = _QUERY.format(table=results / "scores")
    print(f"\nthe table is plain Parquet; a query in DuckDB:\n{query}\n{duckdb.sql(query)}")
    call(report.main, ["--results", str(results), "--run-id", "demo"])
    print(f"done in {time.monotonic() - began:.0f} s; open the page in a browser; the table is in {results / 'scores'}")
    return EXIT_DONE


def empty_folder(folder: Path) -> Path:
    """Makes the folder of a demo, without what an earlier demo left in it; returns it.

    Raises:
        RequestError: it holds something else.
    """
    if (folder / _MARKER).exists():
        shutil.rmtree(folder)
    elif folder.exists() and any(folder.iterdir()):
        raise RequestError(f"expected an empty folder or an earlier demo's, got {folder}: take another --folder")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _MARKER).touch()
    return folder


def find_weights() -> str:
    """Returns the backbone weights that are at hand without a download, and says which they are.

    Raises:
        RequestError: DEMO_WEIGHTS names no file.
    """
    given = os.environ.get("DEMO_WEIGHTS")
    if given and not Path(given).expanduser().is_file():
        raise RequestError(f"expected DEMO_WEIGHTS to be a file of AlexNet's weights, got {given}")
    if given:
        print(f"features: AlexNet with the weights of {given}")
        return str(Path(given).expanduser().absolute())
    import torch.hub  # seconds, see above

    if any((Path(torch.hub.get_dir()) / "checkpoints").glob("alexnet-*.pth")):
        print("features: AlexNet trained on ImageNet, from torch's cache")
        return "imagenet"
    print("features: AlexNet with seeded random weights; ImageNet weights are better: name a file in DEMO_WEIGHTS")
    return "random"


def call(command: Callable[[Sequence[str]], int], argv: list[str]) -> None:
    """Prints a command as one could type it and runs it; its errors pass through."""
    print(f"\n$ python -m {command.__module__} {shlex.join(argv)}", flush=True)
    command(argv)


def measure_auroc(folder: Path) -> float:
    """Measures the AUROC over the archive's readable photos, by the labels that the drawing kept aside."""
    # Seconds as well: scikit-learn and DuckDB.
    import numpy as np

    from jobs.results.known import read_rows
    from model.statistics.evaluation import compute_auroc

    with (folder / "archive_labels.csv").open() as file:
        labels = {uris.normalize(str(folder / "archive" / row["path"])): row["label"] for row in csv.DictReader(file)}
    rows = read_rows(uris.normalize(str(folder / "results")), ["image_uri", "score"]).drop_null()
    truth = np.array([labels[uri] != "good" for uri in rows["image_uri"].to_pylist()])
    return compute_auroc(truth, rows["score"].to_numpy())


if __name__ == "__main__":
    run_command(main)
