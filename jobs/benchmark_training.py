"""Verb: how fast training is, as ratios measured side by side in one run, written to build/bench-train.json.

Against DifferNet's own training loop (jobs.benchmarks.differnet): same network, same flow, same batch, CPU seconds per
photo and view. Ours decodes a photo once, and where training takes its rotations from the scoring angles, computes
their features once; that part is measured on its own and spread over the epochs of a whole training.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from jobs.benchmarks.differnet import differnet_optimizer, train_step_as_differnet
from jobs.cli import parse_config, run_command
from jobs.config import JobConfig
from jobs.errors import EXIT_DONE
from jobs.synthetic.archive import draw_archive
from model.config import DetectorConfig, OptimizerConfig, get_preset
from model.detector import AttentDifferNet
from model.image import decode_image
from model.training.loop import Snapshot, train
from model.training.metrics import EpochMetrics
from model.training.photos import InMemory
from model.versions import read_versions

_OURS: dict[str, dict[str, object]] = {
    "uniform_fp32": {"train_angles": "uniform"},
    "uniform_bf16": {"train_angles": "uniform", "precision": "bf16"},
    "scoring_fp32": {"train_angles": "scoring", "views": 4},
    "scoring_bf16": {"train_angles": "scoring", "views": 4, "precision": "bf16"},
}
"""What is measured of ours: the paper's rotations, anew in every epoch, and rotations whose features are kept."""


class TrainingBenchmarkConfig(JobConfig):
    """Measure training speed as ratios and write them to a JSON file."""

    output: str = Field("build/bench-train.json", description="file to write")
    batch_photos: int = Field(24, ge=1, description="photos per step, also the number of photos")
    image_size: int = Field(448, ge=64, description="side in pixels of the network's input")
    repeats: int = Field(2, ge=1, description="interleaved repeats")
    kept_epochs: int = Field(4, ge=2, description="epochs measured where features are kept")
    whole_epochs: int = Field(192, ge=1, description="epochs that the one pass over the photos is spread over")


def main(argv: Sequence[str]) -> int:
    """Runs the comparison and writes the figures."""
    config = parse_config(TrainingBenchmarkConfig, argv, prog="python -m jobs.benchmark_training")
    torch.set_num_threads(1)
    photos = _photos(config.batch_photos)
    repeats = [_repeat(config, photos, number) for number in range(1, config.repeats + 1)]
    best = {name: min(repeat[name] for repeat in repeats) for name in repeats[0]}
    ratios = {f"{name}_ratio": best["differnet"] / best[name] for name in _OURS}
    charitable = {f"{name}_ratio_without_conv_gradients": best["differnet_no_grad"] / best[name] for name in _OURS}
    figures = ratios | charitable
    for name, ratio in figures.items():
        print(f"{name}: {ratio:.3g}")
    _write(config, {"figures": figures, "cpu_s_per_photo_and_view": best, "repeats": repeats})
    return EXIT_DONE


def _write(config: TrainingBenchmarkConfig, found: dict[str, Any]) -> None:
    about = {"config": config.model_dump(mode="json"), "cores": os.cpu_count(), "versions": read_versions()}
    Path(config.output).parent.mkdir(parents=True, exist_ok=True)
    Path(config.output).write_text(json.dumps(found | about, indent=2))
    print(f"written to {config.output}")


def _photos(count: int) -> list[bytes]:
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as scratch:
        draw_archive(Path(scratch), size_px=448, train_good=count, test_good=0, missing_cap=0, rust=0)
        return [path.read_bytes() for path in sorted((Path(scratch) / "data").rglob("*.jpg"))][:count]


def _repeat(config: TrainingBenchmarkConfig, photos: Sequence[bytes], number: int) -> dict[str, float]:
    """CPU seconds per photo and view of each procedure."""
    found = {
        "differnet": _differnet(config, photos, conv_gradients=True),
        "differnet_no_grad": _differnet(config, photos, conv_gradients=False),
    }
    found |= {name: _ours(config, photos, changes) for name, changes in _OURS.items()}
    print(
        f"repeat {number}: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in found.items()), flush=True
    )
    return found


def _detector(config: TrainingBenchmarkConfig, changes: dict[str, object]) -> AttentDifferNet:
    base = get_preset("differnet").model_dump()
    changes = {"weights": "random", "image_size": config.image_size, "feature_scaling": "global"} | changes
    return AttentDifferNet(DetectorConfig.model_validate(base | changes))


def _differnet(config: TrainingBenchmarkConfig, photos: Sequence[bytes], *, conv_gradients: bool) -> float:
    detector = _detector(config, {})
    detector.backbone.layers.requires_grad_(conv_gradients)
    adam = differnet_optimizer(detector)
    began = time.process_time()
    train_step_as_differnet(detector, adam, photos, conv_gradients=conv_gradients)
    return (time.process_time() - began) / (len(photos) * detector.config.train_views)


def _ours(config: TrainingBenchmarkConfig, photos: Sequence[bytes], changes: dict[str, object]) -> float:
    """CPU seconds of an epoch, and of what comes before the epochs spread over a whole training."""
    detector = _detector(config, changes)
    epochs = config.kept_epochs if changes["train_angles"] == "scoring" else 2
    ends_s: list[float] = []

    def on_epoch(_metrics: EpochMetrics, _snapshot: Snapshot) -> None:
        ends_s.append(time.process_time())

    began_s = time.process_time()
    images = torch.stack([decode_image(data, size=config.image_size) for data in photos])
    optimizer = OptimizerConfig(epochs=epochs, batch_size=config.batch_photos)
    train(detector, InMemory(images), optimizer=optimizer, on_epoch=on_epoch)
    # All epochs are alike; what the first one's end has more is decoding, scaling and, where kept, all features.
    epoch_s = (ends_s[-1] - ends_s[0]) / (epochs - 1)
    once_s = ends_s[0] - began_s - epoch_s
    per_epoch_s = epoch_s + once_s / config.whole_epochs
    return per_epoch_s / (len(photos) * detector.config.train_views)


if __name__ == "__main__":
    run_command(main)
