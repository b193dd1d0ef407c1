"""The units of a comparison: one detector or anchor on one category. Each is trained and tested in one Ray task.

A finished unit is one JSON object, ``<output>/units/<category>.<variant>.seed<k>.<hash>.json``, where the hash names
everything that was asked for: settings and photos. A rerun that asks for the same finds it.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from jobs import storage
from jobs.decoding.fetch import FetchDecode, as_images
from jobs.detectors.lineage import read_git_commit
from jobs.errors import JobError, MissingObjectError, one_line
from jobs.evaluation.metrics import Seed
from jobs.storage import uris
from jobs.tables.schema import Status
from model.baselines import score_baseline
from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.packed.detector import build_scorer
from model.process import prepare_process
from model.training.attention_pretext import pretrain_attention
from model.training.loop import train
from model.training.photos import InMemory

_FETCH_CONCURRENCY = 32


@dataclass(frozen=True)
class Unit:
    """What one task does.

    Attributes:
        category: ``<data set>/<category>``.
        variant: name in tables; an anchor's name for an anchor.
        seed: None where chance plays no part.
        detector: of the variant; for an anchor, whose backbone and image size it shares.
        optimizer: None for an anchor, which trains nothing.
        photos_hash: names the photos of the category, and those of the pretext if they are others.
    """

    category: str
    variant: str
    seed: Seed
    detector: DetectorConfig
    optimizer: OptimizerConfig | None
    photos_hash: str

    @property
    def weights(self) -> tuple[str, str]:
        """What names the backbone's weights: its architecture and their source."""
        return self.detector.backbone, self.detector.weights

    def __str__(self) -> str:
        """For messages."""
        return f"{self.variant} on {self.category}" + ("" if self.seed is None else f", seed {self.seed}")

    def uri(self, output: str) -> str:
        """Where its outcome is kept."""
        asked = {
            "detector": self.detector.model_dump(mode="json"),
            "optimizer": self.optimizer and self.optimizer.model_dump(mode="json"),
            "photos": self.photos_hash,
        }
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
        seed = "" if self.seed is None else f".seed{self.seed}"
        return uris.join(output, "units", f"{self.category.replace('/', '-')}.{self.variant}{seed}.{digest}.json")


@dataclass(frozen=True)
class DecodedPhotos:
    """Photos of one category, decoded to one size.

    Attributes:
        train: (N, 3, S, S) uint8, flawless.
        test: (M, 3, S, S) uint8.
        test_uris: their M URIs.
        lost: URI -> why it could not be decoded, of train and test photos.
    """

    train: npt.NDArray[np.uint8]
    test: npt.NDArray[np.uint8]
    test_uris: Sequence[str]
    lost: Mapping[str, str]


def decode(manifest: pa.Table, size: int, max_pixels: int) -> DecodedPhotos:
    """A Ray task: fetches and decodes the photos of one category by the same stage as training and scoring.

    Args:
        manifest: MANIFEST rows whose site is ``train/good`` or ``test/<label>``.
        size: side S in pixels.
        max_pixels: largest photo decoded.
    """
    categories = set(manifest["category"].to_pylist())
    fetch = FetchDecode(
        image_sizes=dict.fromkeys(categories, size), max_pixels=max_pixels, concurrency=_FETCH_CONCURRENCY
    )
    rows = fetch(manifest)
    readable = rows.filter(pc.is_null(rows["error"]))
    lost = rows.filter(pc.is_valid(rows["error"]))
    is_train = pc.equal(readable["site"], "train/good")
    train_rows, test_rows = readable.filter(is_train), readable.filter(pc.invert(is_train))
    return DecodedPhotos(
        train=as_images(train_rows["pixels"], size=size),
        test=as_images(test_rows["pixels"], size=size),
        test_uris=test_rows["uri"].to_pylist(),
        lost=dict(zip(lost["uri"].to_pylist(), lost["error"].to_pylist(), strict=True)),
    )


def learn_attention(
    config: DetectorConfig, weights: Mapping[str, Tensor] | None, *categories: DecodedPhotos
) -> dict[str, Tensor]:
    """A Ray task: attention that has learnt its pretext from the flawless training photos of all categories.

    Args:
        config: of one of the detectors that will have it.
        weights: the backbone's, by name; None for random ones.
        categories: their photos, in one order.

    Raises:
        JobError: it cannot be trained; one line.
    """
    prepare_process()
    try:
        detector = _untrained(config, weights)
        return pretrain_attention(detector, [InMemory(torch.tensor(photos.train)) for photos in categories])
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(one_line(error)) from None


def run_unit(
    unit: Unit,
    uri: str,
    photos: DecodedPhotos,
    weights: Mapping[str, Tensor] | None,
    attention: Mapping[str, Tensor] | None,
) -> dict[str, Any]:
    """A Ray task: trains and tests one unit and keeps its outcome, which it also returns.

    Args:
        unit: what to do.
        uri: where its outcome goes.
        photos: of the unit's category.
        weights: the backbone's, by name; None for random ones.
        attention: what `learn_attention` gave; None learns a pretext, if any, from ``photos``.

    Raises:
        JobError: the unit cannot be trained or scored; one line.
    """
    prepare_process()
    began = time.monotonic()
    try:
        history, scores = _tested(unit, photos, weights, attention)
    except (RuntimeError, ValueError) as error:  # training's own do not survive the way to another process
        raise JobError(one_line(error)) from None
    if not np.isfinite(scores).all():
        raise JobError(f"{int((~np.isfinite(scores)).sum())} of {len(scores)} scores are not finite")
    outcome = {
        "category": unit.category,
        "variant": unit.variant,
        "seed": unit.seed,
        "scores": dict(zip(photos.test_uris, scores.tolist(), strict=True)),
        "lost": dict(photos.lost),
        "history": history,
        "seconds": time.monotonic() - began,
        "git_commit": read_git_commit(),
    }
    storage.write(uri, json.dumps(outcome).encode())
    return outcome


def _tested(
    unit: Unit,
    photos: DecodedPhotos,
    weights: Mapping[str, Tensor] | None,
    attention: Mapping[str, Tensor] | None,
) -> tuple[list[dict[str, Any]], npt.NDArray[np.float64]]:
    """Epochs as JSON, none for an anchor, and the scores of the test photos."""
    train_images, test_images = torch.tensor(photos.train), torch.tensor(photos.test)
    if unit.optimizer is not None:
        detector = _untrained(unit.detector, weights)
        epochs = train(
            detector,
            InMemory(train_images),
            optimizer=unit.optimizer,
            on_epoch=lambda metrics, snapshot: None,
            attention=attention,
        )
        return [epoch.to_json() for epoch in epochs], build_scorer(detector).score(test_images).numpy()
    scores = score_baseline(
        unit.variant, unit.detector, weights=weights, train=train_images, test=test_images, seed=unit.seed or 0
    )
    return [], scores


def _untrained(config: DetectorConfig, weights: Mapping[str, Tensor] | None) -> AttentDifferNet:
    detector = AttentDifferNet(config)
    if weights is not None:
        detector.backbone.load_features(weights)
    return detector


def tested_photo(photo: Mapping[str, Any], outcome: Mapping[str, Any]) -> dict[str, Any]:
    """What an EVALUATED row says of one test photo.

    Args:
        photo: uri, and site ``test/<label>``.
        outcome: ``scores`` and ``lost`` of a detector, by URI.
    """
    uri = photo["uri"]
    return {
        "label": photo["site"].removeprefix("test/"),
        "image_uri": uri,
        "status": Status.SCORED if uri in outcome["scores"] else Status.UNREADABLE,
        "error": outcome["lost"].get(uri),
        "score": outcome["scores"].get(uri),
    }


def finished(uri: str) -> dict[str, Any] | None:
    """The outcome kept at ``uri``, or None if the unit has to be done."""
    try:
        found = json.loads(storage.read(uri))
    except MissingObjectError:
        return None
    except ValueError as error:
        raise JobError(f"{uri} is damaged: expected JSON; delete it") from error
    return dict(found)
