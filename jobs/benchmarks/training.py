"""How fast training is, as ratios measured side by side in one run.

Against DifferNet's own training loop (jobs.benchmarks.differnet): same network, same flow, same batch, CPU seconds per
photo and view. Ours decodes a photo once, and where training takes its rotations from the scoring angles, computes
their features once; that part is measured on its own and spread over the epochs of a whole training.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from jobs.benchmarks.config import TrainingBenchmarkConfig
from jobs.benchmarks.differnet import make_differnet_optimizer, train_step_as_differnet
from jobs.benchmarks.report import print_metrics, write_report
from jobs.decoding.photos import decode_images
from jobs.synthetic.archive import draw_archive
from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.presets import get_preset
from model.training.loop import Snapshot, train
from model.training.metrics import EpochMetrics
from model.training.photos import InMemory

_OURS: dict[str, dict[str, object]] = {
    "uniform_fp32": {"train_angles": "uniform"},
    "uniform_bf16": {"train_angles": "uniform", "precision": "bf16"},
    "scoring_fp32": {"train_angles": "scoring", "views": 4},
    "scoring_bf16": {"train_angles": "scoring", "views": 4, "precision": "bf16"},
}
"""What is measured of ours: the paper's rotations, anew in every epoch, and rotations whose features are kept."""


def measure_training(config: TrainingBenchmarkConfig) -> None:
    """Measures DifferNet's training loop and ours in turns, and writes the ratios of their CPU seconds."""
    torch.set_num_threads(1)
    photos = draw_training_photos(config.batch_photos)
    repeats = [measure_procedures(config, photos, number) for number in range(1, config.repeats + 1)]
    best = {name: min(repeat[name] for repeat in repeats) for name in repeats[0]}
    ratios = {f"{name}_ratio": best["differnet"] / best[name] for name in _OURS}
    charitable = {f"{name}_ratio_without_conv_gradients": best["differnet_no_grad"] / best[name] for name in _OURS}
    metrics = ratios | charitable
    found = {"metrics": metrics, "cpu_s_per_photo_and_view": best, "repeats": repeats}
    write_report(found, output=config.output, config=config)
    print_metrics(metrics, list(metrics))


def draw_training_photos(count: int) -> list[bytes]:
    """Draws flawless photos and returns their JPEG bytes."""
    with tempfile.TemporaryDirectory(prefix="attentdiffernet-bench-") as scratch:
        draw_archive(Path(scratch), size_px=448, train_good=count, test_good=0, missing_cap=0, rust=0)
        return [path.read_bytes() for path in sorted((Path(scratch) / "data").rglob("*.jpg"))][:count]


def measure_procedures(config: TrainingBenchmarkConfig, photos: Sequence[bytes], number: int) -> dict[str, float]:
    """Returns the CPU seconds per photo and view of each procedure."""
    found = {
        "differnet": measure_differnet(config, photos, conv_gradients=True),
        "differnet_no_grad": measure_differnet(config, photos, conv_gradients=False),
    }
    found |= {name: measure_ours(config, photos, changes) for name, changes in _OURS.items()}
    print(
        f"repeat {number}: " + ", ".join(f"{name} {1000 * value:.1f} ms" for name, value in found.items()), flush=True
    )
    return found


def build_random_detector(config: TrainingBenchmarkConfig, changes: dict[str, object]) -> AttentDifferNet:
    """Builds the plain variant with random weights and ``changes`` to its configuration."""
    base = get_preset("differnet").model_dump()
    changes = {"weights": "random", "image_size": config.image_size, "feature_scaling": "global"} | changes
    return AttentDifferNet(DetectorConfig.model_validate(base | changes))


def measure_differnet(config: TrainingBenchmarkConfig, photos: Sequence[bytes], *, conv_gradients: bool) -> float:
    """Returns the CPU seconds per photo and view of one training step of DifferNet."""
    detector = build_random_detector(config, {})
    detector.backbone.layers.requires_grad_(conv_gradients)
    adam = make_differnet_optimizer(detector)
    began = time.process_time()
    train_step_as_differnet(detector, adam, photos, conv_gradients=conv_gradients)
    return (time.process_time() - began) / (len(photos) * detector.config.train_views)


def measure_ours(config: TrainingBenchmarkConfig, photos: Sequence[bytes], changes: dict[str, object]) -> float:
    """Returns the CPU seconds per photo and view of an epoch, with its share of what comes before the epochs."""
    detector = build_random_detector(config, changes)
    epochs = config.kept_epochs if changes["train_angles"] == "scoring" else 2
    ends_s: list[float] = []

    def on_epoch(_metrics: EpochMetrics, _snapshot: Snapshot) -> None:
        ends_s.append(time.process_time())

    began_s = time.process_time()
    images = decode_images(photos, size=config.image_size)
    optimizer = OptimizerConfig(epochs=epochs, batch_size=config.batch_photos)
    train(detector, InMemory(images), optimizer=optimizer, on_epoch=on_epoch)
    # All epochs are alike; what the first one's end has more is decoding, scaling and, where kept, all features.
    epoch_s = (ends_s[-1] - ends_s[0]) / (epochs - 1)
    once_s = ends_s[0] - began_s - epoch_s
    per_epoch_s = epoch_s + once_s / config.whole_epochs
    return per_epoch_s / (len(photos) * detector.config.train_views)
