"""Training as a job: from photos to a registered, calibrated champion."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from jobs import storage
from jobs.archive.exclusion import read_names
from jobs.archive.manifest import list_archive
from jobs.decoding.fetch import FetchDecode, stack_images
from jobs.detectors import node_cache, registry
from jobs.errors import RequestError
from jobs.synthetic.archive import draw_photo
from jobs.training import run as training
from jobs.training.config import TrainConfig
from model.artifact import load_artifact
from model.config import DetectorConfig, OptimizerConfig
from model.detector import AttentDifferNet
from model.image import decode_image
from model.statistics.calibration import Calibration
from model.training.loop import train
from model.training.photos import InMemory
from tests.support.detectors import TINY
from tests.support.training import request_tiny_training, train_plainly


def _config(drawn: Path, registry_folder: Path, **more: object) -> TrainConfig:
    return TrainConfig.model_validate(request_tiny_training(drawn, registry_folder) | more)


def _champion(detectors: str) -> registry.RegisteredDetector:
    found = registry.resolve(detectors, "insulator", alias="champion")
    assert found is not None
    return found


def test_training_registers_a_calibrated_champion_with_its_lineage(detectors: str) -> None:
    found = _champion(detectors)
    assert found.config.variant == "attentdiffernet_se"
    assert found.calibration is not None
    assert len(found.calibration.scores) == 12  # a fifth of 60
    metrics = registry.read_metrics(detectors, "insulator", detector_id=found.detector_id)
    assert metrics["photos"] == {"train": 48, "validation": 0, "calibration": 12}
    assert len(metrics["lineage"]["manifest_hash"]) == 64
    assert len(metrics["training_photos"]) == 48 * 2  # names and etags
    assert len(metrics["training_pixels"]) == 48
    assert metrics["groups"] == {"train": 48, "validation": 0, "calibration": 12}  # all photos differ
    assert metrics["resumed_after_epoch"] is None
    assert not [info for info in storage.list_objects(detectors) if "/.train/" in info.uri]


def test_training_ends_with_the_least_likely_photos_and_where_they_are(detectors: str) -> None:
    found = _champion(detectors)
    place = f"{detectors}/insulator/{found.detector_id}/least_likely.csv"
    names = read_names(place)
    assert len(names) == len(set(names)) == 50
    assert all("/insulator/train/good/" in name for name in names)
    assert registry.read_metrics(detectors, "insulator", detector_id=found.detector_id)["promise"] == {
        "false_alarm_rate": 0.05,
        "confidence": None,
    }


def test_what_ray_train_trains_is_what_plain_torch_trains(drawn: Path, detectors: str, tmp_path: Path) -> None:
    detector_id, _, history = train_plainly(_config(drawn, tmp_path), tmp_path / "artifact")
    found = _champion(detectors).detector_id
    assert found == detector_id
    losses = registry.read_metrics(detectors, "insulator", detector_id=found)["loss_by_epoch"]
    assert losses == [epoch.loss for epoch in history if epoch.epoch > 0]
    assert len(losses) == 20


def test_two_workers_train_what_one_worker_trains(cluster: str, drawn: Path, tmp_path: Path) -> None:
    """Three steps: weights by their sums' order, losses and scores with them; validation is shared out as well."""
    more = {"optimizer": {"epochs": 3, "batch_size": 48, "learning_rate": 1e-3, "patience": 3}}
    _, one, history = train_plainly(_config(drawn, tmp_path, **more), tmp_path / "artifact")
    training.train_detectors(_config(drawn, tmp_path, workers=2, **more))
    found = _champion(f"file://{tmp_path}")
    node_cache.download(f"file://{tmp_path}", "insulator", detector_id=found.detector_id, folder=tmp_path / "two")
    two = load_artifact(tmp_path / "two").detector.flow.state_dict()
    # The same gradients up to the order of a sum, 1e-7 of their size. Adam divides by that size, so a gradient near its
    # eps of 1e-4 moves a weight by 1e-3 of a step of 1e-3, three times: 3e-6, where a wrong gradient moves it by 3e-3.
    for name, weight in one.flow.state_dict().items():
        torch.testing.assert_close(two[name], weight, rtol=0, atol=3e-6)
    metrics = registry.read_metrics(f"file://{tmp_path}", "insulator", detector_id=found.detector_id)
    plain = [epoch.validation_loss for epoch in history if epoch.epoch > 0]
    assert metrics["validation_loss_by_epoch"] == pytest.approx(plain, rel=1e-5)
    assert metrics["photos"] == {"train": 42, "validation": 6, "calibration": 12}


@pytest.mark.parametrize(
    ("detector", "said"),
    [
        (TINY | {"weights": "/nowhere/weights.pth"}, "does not exist"),
        (TINY | {"backbone": "alexnet_caffe", "weights": "imagenet"}, "no ImageNet weights of alexnet_caffe"),
    ],
)
def test_weights_that_cannot_be_had_are_refused_before_any_cluster_work(
    drawn: Path, tmp_path: Path, detector: dict[str, object], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        training.train_detectors(_config(drawn, tmp_path, detector=detector))


def test_a_category_without_photos_is_refused(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no flawless photos of damper: .* has no folder damper"):
        training.train_detectors(_config(drawn, tmp_path, category="damper"))


def test_training_and_scoring_see_identical_tensors(drawn: Path) -> None:
    """Both go through FetchDecode; it gives what model.image gives."""
    folder = drawn / "data" / "insulator" / "train" / "good"
    listing = list_archive(f"file://{folder}", key_pattern="(?P<category>)").slice(0, 5)
    training = FetchDecode(image_sizes={"": 128}, max_pixels=10**9, concurrency=2)(listing)
    scoring = FetchDecode(image_sizes={"": 128, "other": 64}, max_pixels=10**8, concurrency=32)(listing)
    images = stack_images(training["pixels"], size=128)
    np.testing.assert_array_equal(images, stack_images(scoring["pixels"], size=128))
    direct = [decode_image(storage.read(uri), size=128).numpy() for uri in listing["image_uri"].to_pylist()]
    np.testing.assert_array_equal(images, np.stack(direct))


@pytest.mark.slow
def test_p_values_of_new_flawless_photos_are_uniform_and_the_false_alarm_rate_holds() -> None:
    """Photos from one generator are exchangeable, so the guarantee applies exactly; no Ray is needed to see it."""
    rng = np.random.default_rng(20261121)
    photos = torch.stack([_photo(rng) for _ in range(540)])
    detector = AttentDifferNet(DetectorConfig.model_validate(TINY))
    train(
        detector,
        InMemory(photos[:60]),
        optimizer=OptimizerConfig(epochs=5, learning_rate=1e-3),
        on_epoch=lambda _metrics, _snapshot: None,
    )
    scores = detector.score(photos[60:]).numpy()
    p_values = Calibration(scores=tuple(scores[:180])).compute_p_values(scores[180:])
    # 180 calibration photos make p-values a ladder of steps of 1/181, far finer than the KS test of 300 can tell.
    assert kstest(p_values, "uniform").pvalue > 0.01
    alarms = int((p_values <= 0.05).sum())
    low, high = binom.interval(0.99, 300, 0.05)
    assert low <= alarms <= high


def _photo(rng: np.random.Generator) -> torch.Tensor:
    buffer = io.BytesIO()
    draw_photo(rng, size_px=96, defect="good").save(buffer, "PNG")
    return decode_image(buffer.getvalue(), size=128)
