"""The benchmark against peers: photos are copied to the local disk, both sides are fitted and timed."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import yaml
from pydantic import ValidationError

from jobs import storage
from jobs.archive.mvtec import FLAWLESS, list_labelled, select_split
from jobs.benchmarks.peers.config import PeersBenchmarkConfig
from jobs.benchmarks.peers.measurement import Contestant, LabelledFolder, find_defects, fit_first, time_all
from jobs.benchmarks.peers.ours import OurDetector
from jobs.benchmarks.peers.report import summarize_passes
from jobs.benchmarks.peers.theirs import AnomalibPeer
from jobs.benchmarks.report import write_report
from jobs.config import merge
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.errors import RequestError, one_line
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.storage import uris
from jobs.synthetic.archive import draw_archive
from model.network.backbone import Backbone
from model.process import keep_freed_memory, prepare_process


def measure_peers(config: PeersBenchmarkConfig) -> None:
    """Fits both sides, times them in turns, finds the AUROC of each, and writes after each AUROC: they can take hours.

    Raises:
        RequestError: settings or photos do not fit.
    """
    comparison = read_comparison(config)
    prepare_process()
    keep_freed_memory()
    torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-peers-") as scratch:
        categories = stage_photos(config, Path(scratch))
        timed = copy_evenly(categories[0], Path(scratch) / "timed", count=config.photos)
        asked = list_contestants(config, comparison, categories, Path(scratch))
        fitted, left_out = fit_first(asked, categories[0])
        contestants = [one for one in asked if one.name in fitted]
        torch.set_num_threads(config.threads)
        passes = time_all({name: one.score for name, one in fitted.items()}, timed, repeats=config.repeats)
        metrics: dict[str, Any] = {}
        kept = Path(config.output).with_suffix(".kept")
        for _ in chain([None], find_defects(contestants, fitted, categories, seeds=config.seeds, kept=kept)):
            metrics = summarize_passes(contestants, fitted, passes, photos=len(list(timed.iterdir())))
            found = metrics | {"timed_on": categories[0].name, "left_out": left_out}
            peers = {"anomalib": version("anomalib"), "torch": torch.__version__}
            write_report(found, output=config.output, config=config, more_versions=peers)
    print_ratios(metrics)


def read_comparison(config: PeersBenchmarkConfig) -> ComparisonConfig:
    """Reads the settings of our detectors: from a comparison's YAML with this benchmark's data and weights.

    Raises:
        RequestError: the file is not there or does not fit.
    """
    try:
        given = yaml.safe_load(Path(config.settings).read_text())
        own = {"data": config.data or ["drawn"], "output": "unused", "detector": {"weights": config.weights}}
        if config.weights == "imagenet":
            own["detector"] = {"weights": "imagenet", "backbone": "alexnet"}
        return ComparisonConfig.model_validate(merge(given, {**own, "variants": config.variants}))
    except (OSError, yaml.YAMLError, ValidationError, ValueError) as error:
        raise RequestError(f"--settings {config.settings}: {one_line(error)}") from error


def stage_photos(config: PeersBenchmarkConfig, scratch: Path) -> list[LabelledFolder]:
    """Copies the labelled photos of all data sets onto the local disk, so that both sides read the same files.

    Raises:
        RequestError: a data set has no training photos, or not both kinds of test photos.
    """
    roots = list(config.data)
    if not roots:
        draw_archive(scratch / "drawn")
        roots = [uris.normalize(str(scratch / "drawn" / "data"))]
    return [folder for root in roots for folder in stage_set(root, scratch / "staged")]


def stage_set(root: str, scratch: Path) -> list[LabelledFolder]:
    """Copies a data set's photos below ``scratch``, category by category. Raises RequestError where there is none."""
    rows = list_labelled(root)
    if not len(rows):
        raise RequestError(
            f"needed <category>/train/good and <category>/test/<label> under {root}, found no such photo"
        )
    data_set = root.rsplit("/", 1)[-1]
    found = {name: rows.filter(pc.equal(rows["category"], name)) for name in sorted(set(rows["category"].to_pylist()))}
    return [stage_category(f"{data_set}/{name}", photos, scratch / data_set / name) for name, photos in found.items()]


def stage_category(name: str, rows: pa.Table, folder: Path) -> LabelledFolder:
    """Copies a category's photos to ``folder``. Raises RequestError unless it has training photos and both labels."""
    train = select_split(rows, "train")["image_uri"].to_pylist()
    test = select_split(rows, "test")
    is_defective = pc.not_equal(test["label"], FLAWLESS).to_numpy()
    if not train or is_defective.all() or not is_defective.any():
        raise RequestError(
            f"{name} needs training photos and test photos of both kinds, got {len(train)} training photos and "
            f"{int(is_defective.sum())} defective of {len(test)} test photos"
        )
    copy_photos(train, folder / "train")
    copy_photos(test["image_uri"].to_pylist(), folder / "test")
    return LabelledFolder(name, folder / "train", folder / "test", is_defective)


def copy_photos(sources: Sequence[str], folder: Path) -> None:
    """Copies photos into a new folder, numbered in their order."""
    folder.mkdir(parents=True)
    for number, uri in enumerate(sources):
        (folder / f"{number:04d}.jpg").write_bytes(storage.read(uri))


def copy_evenly(category: LabelledFolder, folder: Path, *, count: int) -> Path:
    """Copies test photos spread evenly over the category, flawless and defective ones."""
    files = sorted(category.test.iterdir())
    folder.mkdir()
    for number in np.linspace(0, len(files) - 1, min(count, len(files))).round().astype(int):
        (folder / files[number].name).write_bytes(files[number].read_bytes())
    return folder


def list_contestants(
    config: PeersBenchmarkConfig, comparison: ComparisonConfig, categories: Sequence[LabelledFolder], scratch: Path
) -> list[Contestant]:
    """Returns our variants, then anomalib's models, as the configuration names them."""
    training = [category.train for category in categories]
    ours = [
        OurDetector(variant, comparison, training=training, batch_photos=config.batch_photos)
        for variant in config.variants
    ]
    detector = comparison.detector
    alexnet = Backbone(detector)
    weights = load_backbone_weights(detector, asked_as="--weights")
    if weights is not None:
        alexnet.load_features(weights)
    peers = [
        AnomalibPeer(
            name,
            config.anomalib,
            alexnet=alexnet.eval(),
            alexnet_name=detector.backbone,
            alexnet_is_random=weights is None,
            batch_photos=config.batch_photos,
            scratch=scratch / "anomalib",
        )
        for name in config.peers
    ]
    return [*ours, *peers]


def print_ratios(found: dict[str, Any]) -> None:
    """Prints a line for each pair of ours and a peer: the ratios of speed and the difference of AUROC."""
    for row in found["ratios"]:
        difference = row["auroc_difference"]
        accuracy = "AUROC not comparable" if difference is None else f"AUROC {100 * difference:+.2f} points"
        print(
            f"{row['ours']} against {row['peer']}: {row['cpu_ratio']:.1f} times as fast in CPU seconds, "
            f"{row['wall_ratio']:.1f} on the clock, {accuracy}"
        )
