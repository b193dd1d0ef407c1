"""Recalibration: the same weights, a new calibration from photos that the detector was not trained on."""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from PIL import Image

from jobs import recalibrate, storage
from jobs.archive.manifest import list_archive
from jobs.cluster.telemetry import LocalTelemetry
from jobs.config import AskedPrecision
from jobs.decoding.fetch import FetchDecode
from jobs.decoding.photos import fingerprint_photos
from jobs.detectors import registry
from jobs.detectors.aliases import read_history
from jobs.detectors.config import RecalibrateConfig
from jobs.detectors.lineage import hash_manifest, hash_training_photos, list_training_pixels
from jobs.errors import ConflictError, JobError, RequestError
from jobs.scoring.plan import ScoringPlan, plan_detectors
from jobs.scoring.recalibration import scores
from jobs.scoring.stage import ScoreImages
from jobs.storage import uris
from model.artifact import save_artifact
from model.config import DetectorConfig
from model.detector import AttentDifferNet
from model.image import decode_image
from model.inference.detector import build_scorer
from model.statistics.calibration import Calibration
from tests.support.detectors import TINY

TRAINED = 35
"""Of the 60 flawless photos."""


@dataclass(frozen=True)
class _Place:
    """A data folder, and a registry whose champion of insulator records that it was trained on some of its photos."""

    data: Path
    detectors: str
    champion: str
    detector: AttentDifferNet

    @property
    def photos(self) -> Path:
        return self.data / "insulator" / "train" / "good"

    def argv(self, *more: str) -> list[str]:
        return ["--data", str(self.data), "--category", "insulator", "--detectors", self.detectors, *more]


def _place(
    drawn: Path, tmp_path: Path, *, calibration: Calibration | None = None, trained: int | None, pixels: bool = False
) -> _Place:
    data = tmp_path / "data"
    shutil.copytree(drawn / "data" / "insulator" / "train", data / "insulator" / "train")
    listing = list_archive(f"file://{data}/insulator/train/good")
    recorded = {} if trained is None else {"training_photos": hash_training_photos(listing.slice(0, trained))}
    if pixels:
        found = fingerprint_photos(listing.slice(0, trained), size=128, max_pixels=10**8)
        recorded["training_pixels"] = list_training_pixels(found["pixel_hash"].to_pylist())
    detector = AttentDifferNet(DetectorConfig.model_validate({"variant": "tiny", **TINY}))
    metrics = {"loss_by_epoch": [1.0], "lineage": {"git_commit": "c0ffee"}, **recorded}
    save_artifact(tmp_path / "artifact", detector, calibration=calibration, metrics=metrics)
    detectors = f"file://{tmp_path}/registry"
    champion = registry.put(detectors, "insulator", folder=tmp_path / "artifact")
    registry.set_alias(detectors, "insulator", alias="champion", detector_id=champion)
    return _Place(data, detectors, champion, detector.eval())


@pytest.fixture
def without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs the pipeline's stages in this process: a Ray job takes 15 s to start its actors."""

    def staged(manifest: pa.Table, config: RecalibrateConfig, *, plan: ScoringPlan) -> pa.Table:
        sizes = {category: detector.image_size for category, detector in plan.by_category.items()}
        photos = FetchDecode(image_sizes=sizes, max_pixels=plan.max_pixels, concurrency=4)(manifest)
        return ScoreImages(plan=plan, cache_bytes=1, telemetry=LocalTelemetry(), device="cpu")(photos)

    monkeypatch.setattr(scores, "score_manifest", staged)


def test_unseen_photos_recalibrate_and_the_weights_and_the_lineage_stay(
    cluster: str, drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = _place(drawn, tmp_path, calibration=Calibration(scores=(0.0,) * 19), trained=TRAINED)
    (place.photos / "zz.jpg").write_bytes(b"<html>")
    argv = place.argv("--promote", "--alias-to", "candidate", "--scoring.actors", "1")

    assert recalibrate.main(argv) == 0

    said = capsys.readouterr().out
    assert f"left out {TRAINED} of 61 photos: the detector was trained on them" in said
    assert f"warning: left out file://{place.photos}/zz.jpg: not_an_image: " in said
    assert (
        "the calibration before reports 25 of these 25 flawless photos (100.0%) at a false-alarm rate of 0.05" in said
    )
    new = registry.read_aliases(place.detectors, "insulator")["candidate"]
    assert registry.read_aliases(place.detectors, "insulator") == {"champion": new, "candidate": new}
    moved = read_history(place.detectors, "insulator")[-1]
    assert (moved.before, moved.after, moved.reason) == (place.champion, new, "recalibrated on 25 photos")

    unseen = list_archive(f"file://{place.photos}").slice(TRAINED, 25)
    images = torch.stack([decode_image(storage.read(uri), size=128) for uri in unseen["image_uri"].to_pylist()])
    found = registry.read_detector(place.detectors, "insulator", detector_id=new)
    assert found.calibration is not None
    # Batches of other sizes round differently; a wrong photo or view would be off by per cents.
    torch.testing.assert_close(
        torch.tensor(found.calibration.scores, dtype=torch.float64),
        place.detector.score(images).sort().values,
        rtol=1e-5,
        atol=0,
    )
    for name in ("detector.safetensors", "config.json"):
        before, after = (storage.read(uris.join(place.detectors, "insulator", i, name)) for i in (place.champion, new))
        assert before == after

    metrics = registry.read_metrics(place.detectors, "insulator", detector_id=new)
    assert metrics["lineage"]["parent"] == place.champion
    assert metrics["lineage"]["manifest_hash"] == hash_manifest(unseen)
    assert metrics["training_lineage"] == {"git_commit": "c0ffee"}
    assert (metrics["photos"], metrics["loss_by_epoch"]) == ({"calibration": 25}, [1.0])
    card = storage.read(uris.join(place.detectors, "insulator", new, "card.md")).decode()
    assert f"- made by recalibrating {place.champion}, whose weights it has" in card


@pytest.mark.slow
def test_the_same_photos_again_register_nothing(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], without_ray: None
) -> None:
    place = _place(drawn, tmp_path, trained=TRAINED)
    assert recalibrate.main(place.argv("--promote")) == 0
    new = registry.read_aliases(place.detectors, "insulator")["champion"]
    metrics = registry.read_metrics(place.detectors, "insulator", detector_id=new)
    assert (metrics["lineage"]["parent"], metrics["photos"]) == (place.champion, {"calibration": 60 - TRAINED})

    capsys.readouterr()
    assert recalibrate.main(place.argv("--promote")) == 0
    assert f"{new} has this very calibration already: nothing was registered" in capsys.readouterr().out
    assert registry.read_metrics(place.detectors, "insulator", detector_id=new) == metrics


@pytest.mark.slow
def test_an_alias_that_was_moved_while_photos_were_scored_stays_where_it_is(
    drawn: Path, tmp_path: Path, without_ray: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = _place(drawn, tmp_path, trained=TRAINED)
    put = registry.put

    def put_late(detectors: str, category: str, *, folder: Path) -> str:
        registry.set_alias(detectors, category, alias="champion", detector_id="0" * 16)
        return put(detectors, category, folder=folder)

    monkeypatch.setattr(registry, "put", put_late)
    with pytest.raises(ConflictError, match=f"champion of insulator is {'0' * 16}, not {place.champion}"):
        recalibrate.main(place.argv("--promote"))
    assert registry.read_aliases(place.detectors, "insulator") == {"champion": "0" * 16}
    assert len(registry.list_detector_ids(place.detectors)["insulator"]) == 2


def test_a_detector_without_calibration_gets_one_and_no_alias_moves_unasked(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], without_ray: None
) -> None:
    place = _place(drawn, tmp_path, trained=None)
    new_photos = place.data / "new" / "2026-11"
    new_photos.mkdir(parents=True)
    for photo in sorted(place.photos.iterdir())[:4]:
        shutil.copy(photo, new_photos)
    (new_photos / "notes.txt").write_text("seen at noon")
    asked = ["--folder", "new/2026-11", "--assume-unseen", "--exclude", "*.txt"]
    assert recalibrate.main(place.argv(*asked)) == 0
    said = capsys.readouterr().out
    assert "warning: 4 held-out photos cannot support a false-alarm rate of 0.05: 19 are needed" in said
    assert f"champion of insulator is still {place.champion}, and scoring takes that one: the same again with" in said
    (new,) = set(registry.list_detector_ids(place.detectors)["insulator"]) - {place.champion}
    found = registry.read_detector(place.detectors, "insulator", detector_id=new)
    assert found.calibration is not None
    assert len(found.calibration.scores) == 4
    assert registry.read_metrics(place.detectors, "insulator", detector_id=new)["lineage"]["config"]["exclude"] == [
        "*.txt"
    ]
    assert registry.read_aliases(place.detectors, "insulator") == {"champion": place.champion}


@pytest.mark.slow
def test_confidence_is_promised_by_the_new_card_and_needs_more_photos(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], without_ray: None
) -> None:
    place = _place(drawn, tmp_path, trained=TRAINED)
    assert recalibrate.main(place.argv("--promote", "--confidence", "0.9")) == 0
    said = capsys.readouterr().out
    assert "cannot support a false-alarm rate of 0.05 with 90% confidence: 45 are needed" in said
    new = registry.read_aliases(place.detectors, "insulator")["champion"]
    metrics = registry.read_metrics(place.detectors, "insulator", detector_id=new)
    assert metrics["promise"] == {"false_alarm_rate": 0.05, "confidence": 0.9}
    card = storage.read(uris.join(place.detectors, "insulator", new, "card.md")).decode()
    assert "Made for a false-alarm rate of 0.05: 25 held-out photos cannot support" in card


@pytest.mark.parametrize(("given", "mend"), [("--data", "--folder"), ("--good", "--good")])
def test_photos_that_the_detector_was_trained_on_do_not_calibrate_it(
    given: str, mend: str, drawn: Path, tmp_path: Path
) -> None:
    place = _place(drawn, tmp_path, trained=60)
    argv = [given, str(place.data if given == "--data" else place.photos), *place.argv("--assume-unseen")[2:]]
    with pytest.raises(RequestError, match=f"was trained on all 60 photos: give others with {mend}"):
        recalibrate.main(argv)


@pytest.mark.slow
def test_copies_of_training_photos_under_other_names_do_not_calibrate(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], without_ray: None
) -> None:
    """Five of them, without loss as PNG, beside ten photos that nobody has seen, two of which are there twice."""
    place = _place(drawn, tmp_path, trained=TRAINED, pixels=True)
    mixed = place.data / "mixed"
    mixed.mkdir()
    photos = sorted(place.photos.iterdir())
    for photo in (*photos[:5], *photos[TRAINED : TRAINED + 10]):
        Image.open(photo).save(mixed / f"again-{photo.stem}.png")
    for photo in photos[TRAINED : TRAINED + 2]:
        shutil.copy(mixed / f"again-{photo.stem}.png", mixed / f"and-again-{photo.stem}.png")
    assert recalibrate.main(place.argv("--folder", "mixed")) == 0
    said = capsys.readouterr().out
    assert "left out 5 of 17 photos: they have the pixels of training photos" in said
    assert "12 photos in 10 groups (equal pixels and near-duplicates together): one of each calibrates" in said
    assert "10 held-out photos cannot support a false-alarm rate of 0.05" in said
    (new,) = set(registry.list_detector_ids(place.detectors)["insulator"]) - {place.champion}
    found = registry.read_detector(place.detectors, "insulator", detector_id=new)
    assert found.calibration is not None
    assert len(set(found.calibration.scores)) == 10
    metrics = registry.read_metrics(place.detectors, "insulator", detector_id=new)
    assert (metrics["photos"]["calibration"], metrics["groups"]["calibration"]) == (10, 10)


def test_copies_of_training_photos_alone_are_refused(drawn: Path, tmp_path: Path) -> None:
    place = _place(drawn, tmp_path, trained=TRAINED, pixels=True)
    copies = place.data / "copies"
    copies.mkdir()
    for photo in sorted(place.photos.iterdir())[:3]:
        Image.open(photo).save(copies / f"{photo.stem}.png")
    with pytest.raises(RequestError, match=f"all 3 photos are copies of photos that detector {place.champion} was"):
        recalibrate.main(place.argv("--folder", "copies"))


@pytest.mark.slow
def test_an_older_detector_that_records_no_pixels_says_what_it_cannot_tell(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], without_ray: None
) -> None:
    place = _place(drawn, tmp_path, trained=TRAINED)
    assert recalibrate.main(place.argv()) == 0
    said = capsys.readouterr().out
    assert f"detector {place.champion} does not record the pixels of its training photos" in said


def test_a_detector_that_does_not_record_its_training_photos_is_not_recalibrated_unasked(
    drawn: Path, tmp_path: Path
) -> None:
    place = _place(drawn, tmp_path, trained=None)
    with pytest.raises(RequestError, match=r"does not record its training photos.*--assume-unseen"):
        recalibrate.main(place.argv())


def test_photos_none_of_which_can_be_read_end_the_job(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], without_ray: None
) -> None:
    place = _place(drawn, tmp_path, trained=TRAINED)
    (place.data / "bad").mkdir()
    (place.data / "bad" / "a\u202eb.jpg").write_bytes(b"<html>")
    with pytest.raises(JobError, match="needed at least 1 readable flawless photo, got 0 of 1"):
        recalibrate.main(place.argv("--folder", "bad"))
    assert "bad/a\\u202eb.jpg: not_an_image" in capsys.readouterr().out
    assert registry.list_detector_ids(place.detectors) == {"insulator": [place.champion]}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--alias", "absent"], "insulator has no alias 'absent'"),
        (["--folder", "absent"], "has no folder absent"),
        (["--folder", "../elsewhere"], "expected a relative folder"),
        (["--folder", "/"], "expected a relative folder"),
        (["--category", ".."], "--category"),
    ],
)
def test_wrong_requests_are_refused_before_any_cluster_work(
    drawn: Path, tmp_path: Path, more: list[str], said: str
) -> None:
    place = _place(drawn, tmp_path, trained=0)
    with pytest.raises(RequestError, match=said):
        recalibrate.main(place.argv(*more))


@pytest.mark.slow
def test_a_detector_calibrated_with_bf16_keeps_its_weights_and_scores_fast_from_then_on(
    drawn: Path, tmp_path: Path, without_ray: None
) -> None:
    place = _place(drawn, tmp_path, trained=TRAINED)
    assert recalibrate.main(place.argv("--precision", "bf16", "--scoring.precision", "bf16", "--promote")) == 0
    new = registry.read_aliases(place.detectors, "insulator")["champion"]
    found = registry.read_detector(place.detectors, "insulator", detector_id=new)
    before = registry.read_detector(place.detectors, "insulator", detector_id=place.champion)
    assert found.config == before.config.model_copy(update={"precision": "bf16"})
    weights = [
        storage.read(uris.join(place.detectors, "insulator", i, "detector.safetensors")) for i in (place.champion, new)
    ]
    assert weights[0] == weights[1]

    fast = AttentDifferNet(found.config).eval()
    fast.load_state_dict(place.detector.state_dict())
    unseen = list_archive(f"file://{place.photos}").slice(TRAINED, 25)
    images = torch.stack([decode_image(storage.read(uri), size=128) for uri in unseen["image_uri"].to_pylist()])
    assert found.calibration is not None
    scores = torch.tensor(found.calibration.scores, dtype=torch.float64)
    torch.testing.assert_close(scores, build_scorer(fast).score(images).sort().values, rtol=1e-5, atol=0)
    # bf16 rounds by up to 0.4 %; were it float32's calibration, the difference would be nought
    assert 1e-6 < float((scores / place.detector.score(images).sort().values - 1).abs().max()) < 0.2


@pytest.mark.parametrize(
    ("asked", "said"), [("auto", None), ("fp32", None), ("bf16", "jobs.recalibrate --precision bf16")]
)
def test_a_precision_by_name_must_be_that_of_the_calibration(
    drawn: Path, tmp_path: Path, asked: AskedPrecision, said: str | None
) -> None:
    place = _place(drawn, tmp_path, calibration=Calibration(scores=(0.0,) * 19), trained=None)
    expected = nullcontext() if said is None else pytest.raises(RequestError, match=said)
    with expected:
        planned = plan_detectors(
            place.detectors, ["insulator"], alias="champion", false_alarm_rate=0.05, precision=asked
        )
        assert planned["insulator"].precision == "fp32"
