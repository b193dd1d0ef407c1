"""Whether fast scores are DifferNet's: its own procedure and ours on the same labelled photos, same weights and views.

A detector is trained on a set's flawless photos; then each test photo is scored by DifferNet's procedure in float32
(jobs.benchmarks.differnet) and as a scoring actor does it, in turns.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr

from jobs import storage
from jobs.archive.manifest import list_archive
from jobs.benchmarks.differnet import score_as_differnet
from jobs.errors import RequestError
from model.config import DetectorConfig, OptimizerConfig, Precision
from model.detector import AttentDifferNet, build_detector
from model.hardware import has_fast_bf16
from model.image import decode_image
from model.packed.detector import build_scorer
from model.statistics.evaluation import auroc
from model.training.loop import train
from model.training.photos import InMemory

_LABELLED = "(?P<category>[^/]+)/(?P<site>train/good|test/[^/]+)/"
_TRAINING_VIEWS = 8
"""Scoring angles that training draws from, spread over the circle: features of all 64 would take minutes."""


@dataclass(frozen=True)
class _Chunk:
    """Some test photos scored both ways."""

    labels: list[bool]
    theirs: list[float]
    ours: list[float]
    their_cpu_s: float
    our_cpu_s: float


@dataclass(frozen=True)
class FidelityRequest:
    """What is compared.

    Attributes:
        sets: folders in MVTec layout, each with one category.
        detector: trained on each set; a plain variant.
        train_photos: flawless photos to train on, of each set.
        test_photos: photos scored, of each set, half of them defective.
        repeat_photos: photos in one turn of each procedure.
        epochs: of training.
    """

    sets: Sequence[str]
    detector: DetectorConfig
    train_photos: int
    test_photos: int
    repeat_photos: int
    epochs: int


def measure_fidelity(request: FidelityRequest, *, weights: dict[str, torch.Tensor] | None) -> dict[str, Any]:
    """CPU seconds of DifferNet's procedure over ours (median over turns), Spearman and AUROC difference, worst set.

    Raises:
        RequestError: a set without enough photos.
    """
    by_set = {uri: _compare(request, uri, weights) for uri in request.sets}
    chunks = [chunk for found in by_set.values() for chunk in found]
    ratios = [chunk.their_cpu_s / chunk.our_cpu_s for chunk in chunks]
    agreement = {uri.rsplit("/", 1)[-1]: _agreement(found) for uri, found in by_set.items()}
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


def _agreement(chunks: Sequence[_Chunk]) -> dict[str, float]:
    labels = np.concatenate([chunk.labels for chunk in chunks])
    theirs, ours = (np.concatenate([getattr(chunk, name) for chunk in chunks]) for name in ("theirs", "ours"))
    by_theirs, by_ours = auroc(labels, theirs), auroc(labels, ours)
    return {
        "photos": len(labels),
        "spearman": float(spearmanr(theirs, ours).statistic),
        "auroc_differnet": by_theirs,
        "auroc_ours": by_ours,
        "auroc_delta": by_ours - by_theirs,
    }


def _compare(request: FidelityRequest, uri: str, weights: dict[str, torch.Tensor] | None) -> list[_Chunk]:
    train_uris, tests = _photos(request, uri)
    exact = _train_exact(request, train_uris, weights)
    fast = exact
    precision: Precision = "bf16" if has_fast_bf16("cpu") else "fp32"
    if precision == "bf16":
        fast = AttentDifferNet(exact.config.model_copy(update={"precision": precision})).eval()
        fast.load_state_dict(exact.state_dict())
    scorer = build_scorer(fast)
    chunks = []
    for start in range(0, len(tests), request.repeat_photos):
        some = tests[start : start + request.repeat_photos]
        photos = [storage.read(photo) for photo, _ in some]
        began = time.process_time()
        theirs = [score_as_differnet(exact, data) for data in photos]
        between = time.process_time()
        images = torch.stack([decode_image(data, size=exact.config.image_size) for data in photos])
        ours = scorer.score(images).tolist()
        ended = time.process_time()
        chunks.append(_Chunk([label for _, label in some], theirs, ours, between - began, ended - between))
        print(f"{uri}: DifferNet {between - began:.1f} s, ours {ended - between:.1f} s, {len(some)} photos", flush=True)
    return chunks


def _photos(request: FidelityRequest, uri: str) -> tuple[list[str], list[tuple[str, bool]]]:
    """Training photos, and test photos with whether they are defective, classes in turns."""
    rows = list_archive(uri, key_pattern=_LABELLED).select(["image_uri", "site"]).to_pylist()
    training = [row["image_uri"] for row in rows if row["site"] == "train/good"][: request.train_photos]
    good = [row["image_uri"] for row in rows if row["site"] == "test/good"]
    defective = [row["image_uri"] for row in rows if row["site"] not in (None, "train/good", "test/good")]
    half = min(request.test_photos // 2, len(good), len(defective))
    if len(training) < 2 or half < 1:
        raise RequestError(f"{uri} needs photos in train/good, test/good and test/<defect>, got {len(rows)} photos")
    chosen = zip(_spread(good, half), _spread(defective, half), strict=True)
    return training, [labelled for pair in chosen for labelled in zip(pair, (False, True), strict=True)]


def _spread(photos: Sequence[str], count: int) -> Sequence[str]:
    return photos[:: max(1, len(photos) // count)][:count]


def _train_exact(
    request: FidelityRequest, uris: Sequence[str], weights: dict[str, torch.Tensor] | None
) -> AttentDifferNet:
    """The detector in float32, trained on its scoring angles, every eighth of them."""
    images = torch.stack([decode_image(storage.read(uri), size=request.detector.image_size) for uri in uris])
    views = request.detector.views
    training = {"views": min(views, _TRAINING_VIEWS), "train_angles": "scoring", "train_views": min(views, 4)}
    teacher = build_detector(DetectorConfig.model_validate(request.detector.model_dump() | training), weights)
    settings = OptimizerConfig(epochs=request.epochs)
    train(teacher, InMemory(images), optimizer=settings, on_epoch=lambda *_: None)
    exact = AttentDifferNet(request.detector.model_copy(update={"precision": "fp32"})).eval()
    exact.load_state_dict(teacher.state_dict())
    return exact
