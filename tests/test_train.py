"""Training as a job: from photos to a registered, calibrated champion."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_training
from scipy.stats import binom, kstest

from jobs import registry, storage, training
from jobs.config import TrainConfig
from jobs.demo_archive import draw_photo
from jobs.errors import RequestError
from jobs.fetch import FetchDecode
from model.calibration import Calibration
from model.config import DetectorConfig, OptimiserConfig
from model.detector import AttentDifferNet
from model.image import decode_image
from model.photos import InMemory
from model.training import train


def _config(drawn: Path, registry_folder: Path, **more: object) -> TrainConfig:
    return TrainConfig.model_validate(tiny_training(drawn, registry_folder) | more)


def _champion(detectors: str) -> registry.RegisteredDetector:
    found = registry.resolve(detectors, "insulator", alias="champion")
    assert found is not None
    return found


def test_training_registers_a_calibrated_champion_with_its_lineage(detectors: str) -> None:
    found = _champion(detectors)
    assert found.config.variant == "attentdiffernet_se"
    assert found.calibration is not None
    assert len(found.calibration.scores) == 12  # a fifth of 60
    folder = Path(detectors.removeprefix("file://"))
    metrics = json.loads((folder / "insulator" / found.detector_id / "metrics.json").read_text())
    assert metrics["photos"] == {"train": 48, "calibration": 12}
    assert len(metrics["manifest_hash"]) == 64
    assert len(metrics["loss_by_epoch"]) == 20
    assert metrics["loss_by_epoch"][-1] < metrics["loss_by_epoch"][0]
    assert torch.__version__.startswith(metrics["versions"]["torch"])
    assert not [info for info in storage.list_objects(detectors) if "/.train/" in info.uri]


def test_two_workers_train_what_one_worker_trains(drawn: Path, detectors: str, tmp_path: Path) -> None:
    training.run(_config(drawn, tmp_path, workers=2))
    one, two = _champion(detectors).calibration, _champion(f"file://{tmp_path}").calibration
    assert one is not None
    assert two is not None
    # The same gradients up to the order of a sum; Adam turns rounding of tiny gradients into differences near 1e-3.
    np.testing.assert_allclose(one.scores, two.scores, rtol=5e-3)


def test_an_unreadable_photo_is_named_and_changes_nothing_and_the_same_seed_gives_the_same_detector(
    drawn: Path, detectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(drawn / "data" / "insulator" / "train", tmp_path / "data" / "insulator" / "train")
    broken = tmp_path / "data" / "insulator" / "train" / "good" / "zz.jpg"
    broken.write_bytes(b"<html>")
    assert training.run(_config(drawn, tmp_path / "registry", data=str(tmp_path / "data"))) == 0
    assert _champion(f"file://{tmp_path}/registry").detector_id == _champion(detectors).detector_id
    said = capsys.readouterr().out
    assert f"warning: left out file://{broken}: not_an_image: " in said
    assert "cannot support a false-alarm rate of 0.05: 19 are needed" in said


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
        training.run(_config(drawn, tmp_path, detector=detector))


def test_a_category_without_photos_is_refused(drawn: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is empty"):
        training.run(_config(drawn, tmp_path, category="damper"))


def test_training_and_scoring_see_identical_tensors(drawn: Path) -> None:
    """Both go through FetchDecode; it gives what model.image gives."""
    from jobs.fetch import as_images
    from jobs.manifest import list_archive

    folder = drawn / "data" / "insulator" / "train" / "good"
    listing = list_archive(f"file://{folder}", key_pattern="(?P<category>)").slice(0, 5)
    training = FetchDecode(image_sizes={"": 128}, max_pixels=10**9, concurrency=2)(listing)
    scoring = FetchDecode(image_sizes={"": 128, "other": 64}, max_pixels=10**8, concurrency=32)(listing)
    images = as_images(training["pixels"], size=128)
    np.testing.assert_array_equal(images, as_images(scoring["pixels"], size=128))
    direct = [decode_image(storage.read(uri), size=128).numpy() for uri in listing["uri"].to_pylist()]
    np.testing.assert_array_equal(images, np.stack(direct))


def test_p_values_of_new_flawless_photos_are_uniform_and_the_false_alarm_rate_holds() -> None:
    """Photos from one generator are exchangeable, so the guarantee applies exactly; no Ray is needed to see it."""
    rng = np.random.default_rng(20261121)
    photos = torch.stack([_photo(rng) for _ in range(540)])
    detector = AttentDifferNet(DetectorConfig.model_validate(TINY))
    train(
        detector,
        InMemory(photos[:60]),
        optimiser=OptimiserConfig(epochs=5, learning_rate=1e-3),
        on_epoch=lambda _metrics, _snapshot: None,
    )
    scores = detector.score(photos[60:]).numpy()
    p_values = Calibration(scores=tuple(scores[:180])).p_values(scores[180:])
    # 180 calibration photos make p-values a ladder of steps of 1/181, far finer than the KS test of 300 can tell.
    assert kstest(p_values, "uniform").pvalue > 0.01
    alarms = int((p_values <= 0.05).sum())
    low, high = binom.interval(0.99, 300, 0.05)
    assert low <= alarms <= high


def _photo(rng: np.random.Generator) -> torch.Tensor:
    buffer = io.BytesIO()
    draw_photo(rng, size_px=96, defect="good").save(buffer, "PNG")
    return decode_image(buffer.getvalue(), size=128)
