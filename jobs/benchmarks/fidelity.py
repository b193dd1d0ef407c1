"""Whether fast scores are DifferNet's: its own procedure and ours on the same labelled photos, same weights and views.

A detector is trained on a set's flawless photos; then each test photo is scored by DifferNet's procedure in float32
(jobs.benchmarks.differnet) and as a scoring actor does it, in turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from jobs import storage
from jobs.archive.mvtec import FLAWLESS, list_labelled
from jobs.benchmarks.config import FidelityBenchmarkConfig
from jobs.benchmarks.differnet import score_as_differnet
from jobs.benchmarks.report import print_metrics, write_report
from jobs.decoding.photos import decode_images
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.errors import RequestError
from jobs.storage import uris
from jobs.synthetic.archive import draw_archive
from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet, build_detector
from model.hardware import find_faster_precision
from model.inference.detector import build_scorer
from model.process import keep_freed_memory, prepare_process
from model.statistics.evaluation import compute_auroc
from model.training.loop import train
from model.training.photos import InMemory

_TRAINING_VIEWS = 8
"""Scoring angles that training draws from, spread over the circle: features of all 64 would take minutes."""


@dataclass(frozen=True)
class ScoredChunk:
    """Some test photos scored both ways."""

    labels: list[bool]
    theirs: list[float]
    ours: list[float]
    their_cpu_s: float
    our_cpu_s: float


def measure_fidelity(config: FidelityBenchmarkConfig) -> None:
    """Measures CPU seconds of DifferNet's procedure over ours (median over turns), Spearman and AUROC difference.

    Spearman and the AUROC difference are those of the worst set.

    Raises:
        RequestError: a set has too few photos.
    """
    prepare_process()
    keep_freed_memory()
    detector = DetectorConfig(
        variant="differnet",
        backbone=config.backbone,
        weights=config.weights,
        image_size=config.image_size,
        views=config.views,
        feature_scaling="channel",
    )
    weights = load_backbone_weights(detector, asked_as=f"--weights {config.weights}")
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as scratch:
        sets = config.data or [draw_photo_set(config, Path(scratch))]
        by_set = {uri: compare_set(config, detector, uri, weights) for uri in sets}
    metrics = summarize_sets(by_set)
    write_report(metrics, output=config.output, config=config)
    print_metrics(metrics, ("vs_differnet_cpu_ratio", "spearman_vs_differnet", "auroc_delta"))


def draw_photo_set(config: FidelityBenchmarkConfig, folder: Path) -> str:
    """Draws labelled photos below ``folder`` and returns the URI of the set."""
    half = config.test_photos // 2
    draw_archive(folder, size_px=448, train_good=config.train_photos, test_good=half, missing_cap=half, rust=0)
    return uris.normalize(str(folder / "data"))


def summarize_sets(by_set: Mapping[str, Sequence[ScoredChunk]]) -> dict[str, Any]:
    """Returns the CPU ratio and the agreement with DifferNet over all sets, and the agreement of each set."""
    chunks = [chunk for found in by_set.values() for chunk in found]
    ratios = [chunk.their_cpu_s / chunk.our_cpu_s for chunk in chunks]
    agreement = {uri.rsplit("/", 1)[-1]: measure_agreement(found) for uri, found in by_set.items()}
    photos = sum(len(chunk.labels) for chunk in chunks)
    return {
        "vs_differnet_cpu_ratio": statistics.median(ratios),
        "vs_differnet_cpu_ratios": ratios,
        "differnet_cpu_s_per_photo": sum(chunk.their_cpu_s for chunk in chunks) / photos,
        "our_cpu_s_per_photo": sum(chunk.our_cpu_s for chunk in chunks) / photos,
        "spearman_vs_differnet": min(found["spearman"] for found in agreement.values()),
        "auroc_delta": max((found["auroc_delta"] for found in agreement.values()), key=abs),
        "by_set": agreement,
    }


def measure_agreement(chunks: Sequence[ScoredChunk]) -> dict[str, float]:
    """Returns Spearman's correlation of both scores, and the AUROC of each, 0 to 1."""
    labels = np.concatenate([chunk.labels for chunk in chunks])
    theirs, ours = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("theirs", "ours"))
    by_theirs, by_ours = compute_auroc(labels, theirs), compute_auroc(labels, ours)
    return {
        "photos": len(labels),
        "spearman": float(spearmanr(theirs, ours).statistic),
        "auroc_differnet": by_theirs,
        "auroc_ours": by_ours,
        "auroc_delta": by_ours - by_theirs,
    }


def compare_set(
    config: FidelityBenchmarkConfig, detector: DetectorConfig, uri: str, weights: dict[str, torch.Tensor] | None
) -> list[ScoredChunk]:
    """Trains a detector on one set and scores the set's test photos both ways, chunk by chunk."""
    train_uris, tests = choose_labelled_photos(config, uri)
    exact = train_exact_detector(config, detector, train_uris, weights)
    fast = exact
    precision = find_faster_precision("cpu")
    if precision == "bf16":
        fast = AttentDifferNet(exact.config.model_copy(update={"precision": precision})).eval()
        fast.load_state_dict(exact.state_dict())
    scorer = build_scorer(fast)
    chunks = []
    for start in range(0, len(tests), config.repeat_photos):
        some = tests[start : start + config.repeat_photos]
        photos = [storage.read(photo) for photo, _ in some]
        began = time.process_time()
        theirs = [score_as_differnet(exact, data) for data in photos]
        between = time.process_time()
        images = decode_images(photos, size=exact.config.image_size)
        ours = scorer.score(images).tolist()
        ended = time.process_time()
        chunks.append(ScoredChunk([label for _, label in some], theirs, ours, between - began, ended - between))
        print(f"{uri}: DifferNet {between - began:.1f} s, ours {ended - between:.1f} s, {len(some)} photos", flush=True)
    return chunks


def choose_labelled_photos(config: FidelityBenchmarkConfig, uri: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """Returns training photos, and test photos with whether they are defective, classes in turns.

    Raises:
        RequestError: there are too few of a kind.
    """
    rows = list_labelled(uri).select(["image_uri", "split", "label"]).to_pylist()
    training = [row["image_uri"] for row in rows if row["split"] == "train"][: config.train_photos]
    good = [row["image_uri"] for row in rows if row["split"] == "test" and row["label"] == FLAWLESS]
    defective = [row["image_uri"] for row in rows if row["split"] == "test" and row["label"] != FLAWLESS]
    half = min(config.test_photos // 2, len(good), len(defective))
    if len(training) < 2 or half < 1:
        raise RequestError(f"{uri} needs photos in train/good, test/good and test/<defect>, got {len(rows)} photos")
    chosen = zip(spread_evenly(good, half), spread_evenly(defective, half), strict=True)
    return training, [labelled for pair in chosen for labelled in zip(pair, (False, True), strict=True)]


def spread_evenly(photos: Sequence[str], count: int) -> Sequence[str]:
    """Returns at most ``count`` photos, taken at equal distances."""
    return photos[:: max(1, len(photos) // count)][:count]


def train_exact_detector(
    config: FidelityBenchmarkConfig,
    detector: DetectorConfig,
    photos: Sequence[str],
    weights: dict[str, torch.Tensor] | None,
) -> AttentDifferNet:
    """Trains the detector in float32 on its scoring angles, every eighth of them."""
    images = decode_images((storage.read(uri) for uri in photos), size=detector.image_size)
    views = detector.views
    training = {"views": min(views, _TRAINING_VIEWS), "train_angles": "scoring", "train_views": min(views, 4)}
    teacher = build_detector(DetectorConfig.model_validate(detector.model_dump() | training), weights)
    settings = OptimizerConfig(epochs=config.epochs)
    train(teacher, InMemory(images), optimizer=settings, on_epoch=lambda *_: None)
    exact = AttentDifferNet(detector.model_copy(update={"precision": "fp32"})).eval()
    exact.load_state_dict(teacher.state_dict())
    return exact
