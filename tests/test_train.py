"""Training as a job: from photos to a registered, calibrated champion."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TINY, tiny_training
from scipy.stats import binom, kstest

from jobs import evaluate, registry, storage, training
from jobs.config import TrainConfig
from jobs.demo_archive import draw_photo
from jobs.errors import RequestError
from jobs.fetch import FetchDecode
from model.artifact import load_artifact
from model.image import decode_image


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
    assert metrics["versions"]["torch"] == torch.__version__
    assert not [info for info in storage.list_objects(detectors) if "/.train/" in info.uri]


def test_the_same_seed_on_one_worker_gives_the_same_detector(drawn: Path, detectors: str, tmp_path: Path) -> None:
    training.run(_config(drawn, tmp_path))
    assert _champion(f"file://{tmp_path}").detector_id == _champion(detectors).detector_id


def test_two_workers_train_what_one_worker_trains(drawn: Path, detectors: str, tmp_path: Path) -> None:
    training.run(_config(drawn, tmp_path, workers=2))
    one, two = _champion(detectors).calibration, _champion(f"file://{tmp_path}").calibration
    assert one is not None
    assert two is not None
    # The same gradients up to the order of a sum; Adam turns rounding of tiny gradients into differences near 1e-3.
    np.testing.assert_allclose(one.scores, two.scores, rtol=5e-3)


def test_unreadable_photos_are_left_out_and_named(
    cluster: str, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tmp_path / "data" / "insulator" / "train" / "good"
    good.mkdir(parents=True)
    for photo in sorted((drawn / "data" / "insulator" / "train" / "good").iterdir())[:10]:
        (good / photo.name).write_bytes(photo.read_bytes())
    (good / "broken.jpg").write_bytes(b"<html>")
    assert training.run(_config(drawn, tmp_path / "registry", data=str(tmp_path / "data"))) == 0
    said = capsys.readouterr().out
    assert f"warning: left out file://{good}/broken.jpg: not_an_image: " in said
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


def test_p_values_of_new_flawless_photos_are_uniform_and_the_false_alarm_rate_holds(
    cluster: str, tmp_path: Path
) -> None:
    """Photos from one generator are exchangeable, so the guarantee applies exactly."""
    rng = np.random.default_rng(20261121)
    good = tmp_path / "data" / "insulator" / "train" / "good"
    good.mkdir(parents=True)
    for number in range(240):
        draw_photo(rng, size_px=96, defect="good").save(good / f"{number:04d}.png")
    data = str(tmp_path / "data")
    training.run(_config(tmp_path, tmp_path / "registry", data=data, calibration_fraction=0.75))
    registered = f"file://{tmp_path}/registry"
    detector_id = registry.aliases(registered, "insulator")["champion"]
    artifact = load_artifact(registry.fetch(registered, "insulator", detector_id=detector_id))
    assert artifact.calibration is not None
    new = [draw_photo(rng, size_px=96, defect="good") for _ in range(300)]
    p_values = artifact.calibration.p_values(artifact.detector.score(_decoded(new)).numpy())
    # 180 calibration photos make p-values a ladder of 1/181: its step adds at most that to the KS distance.
    assert kstest(p_values, "uniform").pvalue > 0.01
    alarms = int((p_values <= 0.05).sum())
    low, high = binom.interval(0.99, 300, 0.05)
    assert low <= alarms <= high


def _decoded(photos: list[object]) -> object:
    import io

    import torch
    from PIL import Image

    images = []
    for photo in photos:
        assert isinstance(photo, Image.Image)
        buffer = io.BytesIO()
        photo.save(buffer, "PNG")
        images.append(decode_image(buffer.getvalue(), size=128))
    return torch.stack(images)


def test_evaluation_reports_auroc_per_category_and_their_mean(
    cluster: str, drawn: Path, detectors: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--data", str(drawn / "data"), "--detectors", detectors, "--output", str(tmp_path / "figures.json")]
    assert evaluate.main(argv) == 0
    (figures,) = json.loads((tmp_path / "figures.json").read_text())["categories"]
    assert (figures["flawless"], figures["defective"], figures["not_scored"]) == (20, 16, {})
    assert 0.5 < figures["auroc"] <= 1
    said = capsys.readouterr().out.splitlines()
    assert said[-1].split() == ["mean", f"{100 * figures['auroc']:.2f}"]


def test_evaluation_of_an_unknown_category_is_refused(drawn: Path, detectors: str) -> None:
    with pytest.raises(RequestError, match="no test photos of damper"):
        evaluate.main(["--data", str(drawn / "data"), "--detectors", detectors, "--categories", '["damper"]'])
