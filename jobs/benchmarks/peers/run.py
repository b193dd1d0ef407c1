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

from jobs import storage
from jobs.archive.mvtec import FLAWLESS, list_labelled, select_split
from jobs.benchmarks.peers.config import PEERS, PeersBenchmarkConfig
from jobs.benchmarks.peers.measurement import Contestant, LabelledFolder, find_defects, fit_first, time_all
from jobs.benchmarks.peers.models import WIDE_RESNET, PeerBackbone, share_backbone
from jobs.benchmarks.peers.ours import OurDetector, read_comparison
from jobs.benchmarks.peers.picture import draw_picture, list_points
from jobs.benchmarks.peers.report import summarize_passes
from jobs.benchmarks.peers.theirs import AnomalibPeer
from jobs.benchmarks.report import write_report
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.errors import RequestError, explain_missing_extra
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.storage import uris
from jobs.synthetic.archive import draw_archive
from model.config import DetectorConfig
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
            metrics = summarize_passes(
                contestants,
                fitted,
                passes,
                photos=len(list(timed.iterdir())),
                labels={one.name: one.is_defective for one in categories},
                confirm=config.confirm,
            )
            found = metrics | {"timed_on": categories[0].name, "left_out": left_out}
            peers = {"anomalib": version("anomalib"), "torch": torch.__version__}
            write_report(found, output=config.output, config=config, more_versions=peers)
    print_ratios(metrics)
    write_picture(metrics, config)


def write_picture(found: dict[str, Any], config: PeersBenchmarkConfig) -> None:
    """Draws AUROC against speed beside the output, or says what is missing for it."""
    if not list_points(found["contestants"], config.confirm):
        return
    try:
        picture = draw_picture(found["contestants"], confirm=config.confirm)
    except ImportError as error:
        print(f"warning: no picture, {explain_missing_extra(error, extra='report')}")
        return
    path = Path(config.output).with_suffix(".svg")
    path.write_bytes(picture)
    print(f"picture: {path}")


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
    return [*ours, *list_peers(config, comparison.detector, scratch / "anomalib")]


def list_peers(config: PeersBenchmarkConfig, detector: DetectorConfig, scratch: Path) -> list[AnomalibPeer]:
    """Returns anomalib's models on timm's wide ResNet-50 or on the backbone of ``detector``, with the same weights.

    Raises:
        RequestError: one is to have another backbone, or weights cannot be had.
    """
    timms = PeerBackbone(WIDE_RESNET, config.anomalib.wide_resnet_weights)
    shared = share_backbone(detector, load_backbone_weights(detector, asked_as="--weights"))
    kind = detector.backbone.split("_")[0]  # alexnet_caffe is an AlexNet
    backbones = {"wide_resnet50": timms, kind: shared}
    for name in config.peers:
        if name.split("_", 1)[1] not in backbones:
            fitting = ",".join(one for one in PEERS if one.split("_", 1)[1] in backbones)
            raise RequestError(
                f"--peers {name} needs settings of its backbone, --settings {config.settings} has {detector.backbone}: "
                f"take --peers {fitting}, or other settings"
            )
    return [
        AnomalibPeer(
            name,
            config.anomalib,
            backbones[name.split("_", 1)[1]],
            batch_photos=config.batch_photos,
            scratch=scratch,
        )
        for name in config.peers
    ]


def print_ratios(found: dict[str, Any]) -> None:
    """Prints a line for each pair of ours and a peer: the ratios of speed and the difference of AUROC."""
    for row in found["ratios"]:
        difference = row["auroc_difference"]
        accuracy = "AUROC not comparable" if difference is None else describe_auroc(row)
        apart = "".join(f"; {name}: {describe_auroc(one)}" for name, one in row["confirmed"].items())
        print(
            f"{row['ours']} against {row['peer']}: {row['cpu_ratio']:.1f} times as fast in CPU seconds, "
            f"{row['wall_ratio']:.1f} on the clock, {accuracy}{apart}"
        )


def describe_auroc(found: dict[str, Any]) -> str:
    """Says a difference of AUROC in points, with its interval where there is one."""
    said = f"AUROC {100 * found['auroc_difference']:+.2f} points"
    if found["auroc_interval"] is None:
        return said
    low, high = found["auroc_interval"]
    return f"{said} [{100 * low:+.2f}, {100 * high:+.2f}]"
