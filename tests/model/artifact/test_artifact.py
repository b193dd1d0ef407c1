"""The artifact folder: what is saved comes back bit for bit, its id is its content, and damage is named."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from model.artifact import load_artifact, recalibrate_artifact, save_artifact
from model.artifact.files import (
    ARTIFACT_FILES,
    JSON,
    ArtifactError,
    compute_weights_id,
    hash_content,
    hash_weights,
)
from model.config import AttentionConfig, DetectorConfig, FlowConfig
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration

_CALIBRATION = Calibration(scores=(0.1, 1 / 3, 2.0))


def _config(**changes: object) -> DetectorConfig:
    tiny = DetectorConfig(
        weights="random",
        image_size=64,
        scales=1,
        attention={"pool1": AttentionConfig(kind="cbam"), "conv5": AttentionConfig(kind="se", gate="sigmoid")},
        feature_scaling="channel",
        flow=FlowConfig(blocks=2, hidden_width=16, hidden_layers=1),
        views=4,
        train_views=2,
    )
    return DetectorConfig.model_validate(tiny.model_dump() | changes)


def _photos() -> Tensor:
    return torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def _detector(**changes: object) -> AttentDifferNet:
    detector = AttentDifferNet(_config(**changes))
    with torch.no_grad():
        detector.fit_feature_scaling(detector.pool_features(_photos()))
    return detector


def _save(folder: Path, detector: AttentDifferNet | None = None, **metrics: float) -> str:
    return save_artifact(folder, detector or _detector(), calibration=_CALIBRATION, metrics=metrics)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    _save(tmp_path, auroc=0.9)
    return tmp_path


def _register(folder: Path, **aliases: str) -> str:
    """Puts a detector into a registry's folder of a category, with aliases; CHAMPION stands for its id."""
    detector_id = _save(folder / "new")
    (folder / "new").rename(folder / detector_id)
    named = {name: detector_id if value == "CHAMPION" else value for name, value in aliases.items()}
    (folder / "aliases.json").write_text(json.dumps(named | {".history": []}))
    return detector_id


def test_a_detector_is_loaded_by_its_alias(tmp_path: Path) -> None:
    detector_id = _register(tmp_path, champion="CHAMPION")
    assert load_artifact(tmp_path, alias="champion").detector_id == detector_id
    assert load_artifact(str(tmp_path), alias="champion").detector_id == detector_id


@pytest.mark.parametrize(
    ("alias", "said"),
    [
        ("candidate", "has no alias 'candidate'; it has champion, elsewhere"),
        (None, r'has the detectors of a category: say which, such as alias="champion"'),
        ("elsewhere", "needed detector ../else"),
    ],
)
def test_a_wrong_alias_is_answered_with_those_that_there_are(tmp_path: Path, alias: str | None, said: str) -> None:
    _register(tmp_path / "cap", champion="CHAMPION", elsewhere="../else")
    _save(tmp_path / "else")
    with pytest.raises(ArtifactError, match=said):
        load_artifact(tmp_path / "cap", alias=alias)


def test_a_loaded_detector_scores_a_file(tmp_path: Path) -> None:
    _save(tmp_path)
    loaded = load_artifact(tmp_path)
    pixels = _photos()[0]
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    found = loaded.score_file(tmp_path / "photo.png")
    assert found.score == float(loaded.detector.score(pixels[None])[0])
    assert found.p_value == loaded.calibration.compute_p_values(np.array([found.score]))[0]  # type: ignore[union-attr]
    assert loaded.score_file(str(tmp_path / "photo.png")) == found


def test_a_file_is_shown_to_a_detector_with_its_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)).save(tmp_path / "photo.png")
    plain, scaled = AttentDifferNet(_config()), AttentDifferNet(_config(white=4095))
    scores = []
    for number, detector in enumerate((plain, scaled)):
        _save(tmp_path / str(number), detector)
        scores.append(load_artifact(tmp_path / str(number)).score_file(tmp_path / "photo.png").score)
    assert scores[0] != scores[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"image_size": 128, "scales": 2, "feature_scaling": "global"},
        {"backbone": "alexnet_caffe", "feature_scaling": "none"},
        {"flow": {"blocks": 1, "hidden_width": 8, "hidden_layers": 2, "dropout": 0.5}},
    ],
    ids=["attention", "two scales", "caffe", "dropout"],
)
def test_a_loaded_detector_scores_bit_for_bit_as_the_saved_one(tmp_path: Path, changes: dict[str, object]) -> None:
    detector = AttentDifferNet(_config(**changes))
    side = detector.config.image_size
    photos = torch.randint(0, 256, (3, 3, side, side), dtype=torch.uint8)
    detector_id = save_artifact(tmp_path, detector, calibration=_CALIBRATION, metrics={"auroc": 0.9})

    loaded = load_artifact(tmp_path, expected_id=detector_id)

    assert torch.equal(loaded.detector.score(photos), detector.score(photos))
    assert loaded.detector.config == detector.config
    assert not any(part.training for part in loaded.detector.modules())
    assert (loaded.detector_id, loaded.calibration) == (detector_id, _CALIBRATION)


def test_every_parameter_and_buffer_comes_back(folder: Path) -> None:
    saved, loaded = _detector(seed=0), load_artifact(folder).detector
    for (name, before), (_, after) in zip(
        [*saved.named_parameters(), *saved.named_buffers()],
        [*loaded.named_parameters(), *loaded.named_buffers()],
        strict=True,
    ):
        assert torch.equal(before, after), name
        assert before.requires_grad == after.requires_grad, name


@pytest.mark.slow
def test_the_memory_format_of_weights_is_no_part_of_an_artifact(tmp_path: Path) -> None:
    detector = _detector()
    for weight in detector.backbone.parameters():
        if weight.ndim == 4:
            weight.data = weight.data.contiguous(memory_format=torch.channels_last)
    assert _save(tmp_path, detector) == _save(tmp_path / "contiguous")
    assert torch.equal(load_artifact(tmp_path).detector.score(_photos()), _detector().score(_photos()))


def test_equal_weights_give_equal_bytes_and_the_same_id(tmp_path: Path) -> None:
    ids = {_save(tmp_path / name, _detector()) for name in ("a", "b", "c")}
    assert len(ids) == 1
    assert len({(tmp_path / name / "detector.safetensors").read_bytes() for name in ("a", "b", "c")}) == 1
    assert ids == {hash_content(tmp_path / "a")}
    assert all(len(one) == 16 and int(one, 16) >= 0 for one in ids)


def test_the_order_in_which_stages_were_named_does_not_change_the_id(tmp_path: Path) -> None:
    turned = dict(reversed(_config().attention.items()))
    assert _save(tmp_path / "a", _detector(attention=turned)) == _save(tmp_path / "b")


def test_metrics_do_not_change_the_id(tmp_path: Path) -> None:
    assert _save(tmp_path / "a", auroc=0.9) == _save(tmp_path / "b", auroc=0.1)


def _one_weight_changed() -> AttentDifferNet:
    detector = _detector()
    with torch.no_grad():
        weight = next(weight for weight in detector.flow.parameters() if weight.requires_grad)
        weight.view(-1)[0].nextafter_(torch.tensor(torch.inf))
    return detector


@pytest.mark.slow
@pytest.mark.parametrize(
    ("detector", "calibration"),
    [
        (_one_weight_changed, _CALIBRATION),
        (lambda: _detector(variant="renamed"), _CALIBRATION),
        (_detector, Calibration(scores=(0.1, 1 / 3, 2.5))),
        (_detector, None),
    ],
    ids=["last bit of a weight", "config", "calibration", "no calibration"],
)
def test_what_decides_a_result_changes_the_id(
    tmp_path: Path, detector: Callable[[], AttentDifferNet], calibration: Calibration | None
) -> None:
    changed = save_artifact(tmp_path / "changed", detector(), calibration=calibration, metrics={})
    assert changed != _save(tmp_path / "original")


def test_bytes_moved_from_one_file_to_another_change_the_id(folder: Path) -> None:
    before = hash_content(folder)
    config, calibration = (folder / "config.json").read_bytes(), (folder / "calibration.json").read_bytes()
    (folder / "config.json").write_bytes(config[:-1])
    (folder / "calibration.json").write_bytes(config[-1:] + calibration)
    assert hash_content(folder) != before


def test_saving_over_an_older_artifact_leaves_nothing_of_it(tmp_path: Path) -> None:
    _save(tmp_path, auroc=0.9)
    second = save_artifact(tmp_path, _detector(seed=5), calibration=None, metrics={})
    loaded = load_artifact(tmp_path, expected_id=second)
    assert loaded.calibration is None
    assert "auroc" not in loaded.metrics


def test_metrics_come_back_with_the_versions_of_the_libraries(tmp_path: Path) -> None:
    lineage: dict[str, JSON] = {"manifest": "ab12", "photos": 120, "auroc": [0.9, 1 / 3], "commit": None}
    save_artifact(tmp_path, _detector(), calibration=None, metrics=lineage)
    metrics = load_artifact(tmp_path).metrics
    assert {key: metrics[key] for key in lineage} == lineage
    versions = metrics["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"] == torch.__version__


def test_the_card_tells_what_the_calibration_supports_and_where_weights_come_from(tmp_path: Path) -> None:
    calibration = Calibration(scores=tuple(float(score) for score in range(19)))
    detector_id = save_artifact(tmp_path, _detector(), calibration=calibration, metrics={"photos": 120})
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert f"# Detector {detector_id}: custom" in card
    assert "19 flawless photos that this detector was not trained on" in card
    assert "| 5.0% | 18 | 0.27% to 14.59% | not possible, needs 45 photos |" in card
    assert "| 1.0% | not possible, needs 99 photos | | not possible, needs 230 photos |" in card
    assert '"photos": 120' in card
    assert "no outside weights" in card


def test_the_card_tells_the_promise_that_was_asked_for(tmp_path: Path) -> None:
    metrics = {"promise": {"false_alarm_rate": 0.05, "confidence": 0.9}}
    calibration = Calibration(scores=tuple(range(60)))
    save_artifact(tmp_path, _detector(), calibration=calibration, metrics=metrics)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "at most 0.05 are reported, with a probability of at least 0.9 over the draw of the calibration" in card
    assert "(60 calibration photos, smallest rate 3.77%). Report scores above 59." in card


def test_the_card_tells_the_lineage_and_counts_training_photos(tmp_path: Path) -> None:
    lineage: dict[str, JSON] = {"manifest_hash": "ab12", "git_commit": "cd34", "parent": "0" * 16, "created_at": "then"}
    metrics: dict[str, JSON] = {"lineage": lineage, "photos": {"train": 9}, "training_photos": ["11111111", "22222222"]}
    save_artifact(tmp_path, _detector(), calibration=None, metrics=metrics)
    card = (tmp_path / "card.md").read_text(encoding="utf-8")
    assert "- made by recalibrating 0000000000000000, whose weights it has, then" in card
    assert '- photos: {"train": 9}, manifest ab12' in card
    assert "- code: commit cd34" in card
    assert '"training_photos": "2 hashes"' in card
    assert "11111111" not in card


def test_a_recalibrated_artifact_has_the_same_weights_another_calibration_and_another_id(folder: Path) -> None:
    calibration = Calibration(scores=(7.0, 8.0))
    copy = folder / "copy"
    detector_id = recalibrate_artifact(copy, folder, calibration=calibration, metrics={"auroc": 0.5})
    loaded = load_artifact(copy, expected_id=detector_id)
    assert detector_id != hash_content(folder)
    assert (loaded.calibration, loaded.metrics) == (calibration, {"auroc": 0.5})
    for name in ("detector.safetensors", "config.json"):
        assert (copy / name).read_bytes() == (folder / name).read_bytes()
    assert f"# Detector {detector_id}" in (copy / "card.md").read_text(encoding="utf-8")


def _weights_id(folder: Path) -> str | None:
    return compute_weights_id(json.loads((folder / "config.json").read_bytes()))


def test_a_recalibrated_artifact_keeps_the_id_of_its_weights(folder: Path) -> None:
    recalibrate_artifact(folder / "new", folder, calibration=Calibration(scores=(5.0, 4.0)), metrics={})
    assert _weights_id(folder / "new") == _weights_id(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "detector",
    [_one_weight_changed, lambda: _detector(views=2), lambda: _detector(precision="bf16")],
    ids=["last bit of a weight", "preprocessing", "precision"],
)
def test_what_decides_a_raw_score_changes_the_id_of_the_weights(
    folder: Path, detector: Callable[[], AttentDifferNet]
) -> None:
    _save(folder / "changed", detector())
    assert _weights_id(folder / "changed") != _weights_id(folder)


def test_a_recalibration_with_another_precision_changes_the_id_of_the_weights(folder: Path) -> None:
    recalibrate_artifact(folder / "new", folder, calibration=_CALIBRATION, metrics={}, precision="bf16")
    assert _weights_id(folder / "new") != _weights_id(folder)


def test_the_id_of_the_weights_stays_what_it_was_in_the_first_version_that_had_one() -> None:
    config = {"format_version": 2, "detector": {"views": 4}, "weights_hash": "ab" * 32}
    assert compute_weights_id(config) == "62106a2fd1d9f83e"


def test_an_artifact_of_before_gets_the_id_of_its_weights_from_the_file(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_bytes())
    before = {name: value for name, value in config.items() if name != "weights_hash"}
    assert compute_weights_id(before) is None
    assert compute_weights_id(before, weights_hash=hash_weights(folder)) == _weights_id(folder)


def test_recalibrating_with_the_same_scores_gives_the_same_id(folder: Path) -> None:
    assert recalibrate_artifact(folder / "copy", folder, calibration=_CALIBRATION, metrics={}) == hash_content(folder)


def test_an_artifact_with_the_first_calibration_format_loads(folder: Path) -> None:
    (folder / "calibration.json").write_bytes(b'{"scores": [0.1, 2.0]}')
    assert load_artifact(folder).calibration == Calibration(scores=(0.1, 2.0))


def test_loading_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.get_rng_state()
    load_artifact(folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", [name for name in ARTIFACT_FILES if name != "card.md"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    _refuse(folder, f"an artifact needs {name}")


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    _refuse(tmp_path / "nothing", "an artifact needs detector.safetensors")


def test_another_id_than_expected_is_refused(folder: Path) -> None:
    with pytest.raises(ArtifactError, match=r"needed detector 0123456789abcdef, but .* has the id"):
        load_artifact(folder, expected_id="0123456789abcdef")


@pytest.mark.parametrize("kept_share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights_are_refused(folder: Path, kept_share: float) -> None:
    path = folder / "detector.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept_share)])
    _refuse(folder, "detector.safetensors cannot be read")


def test_a_header_that_promises_more_than_the_file_holds_is_refused(folder: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}).encode()
    (folder / "detector.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    _refuse(folder, "detector.safetensors cannot be read")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", b"{", "config.json cannot be read"),
        ("config.json", b"\xff\xfe", "config.json cannot be read"),
        ("config.json", b"[" * 100_000, "config.json cannot be read"),
        ("config.json", b"[]", "needs format_version 2, got None"),
        ("config.json", b'{"format_version": 3, "detector": {}}', "needs format_version 2, got 3"),
        ("config.json", b'{"format_version": 1}', "holds no detector config"),
        ("config.json", b'{"format_version": 1, "detector": {"precision": "bf16"}}', "other arithmetic: train it"),
        ("config.json", b'{"format_version": 1, "detector": {"image\\nsize": 3}}', "holds no detector config"),
        ("calibration.json", b'{"scores": []}', "holds no calibration: scores"),
        ("calibration.json", b'{"scores": [NaN]}', "holds no calibration: scores"),
        ("calibration.json", b"[1]", "holds no calibration"),
        ("metrics.json", b"[1]", "metrics.json needs a JSON object, got list"),
        ("metrics.json", b"", "metrics.json cannot be read"),
    ],
)
def test_damaged_json_is_refused(folder: Path, name: str, content: bytes, reason: str) -> None:
    (folder / name).write_bytes(content)
    _refuse(folder, reason)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hidden_width": 17}, r"needs torch.float32 \(.*17.*, got torch.float32 \(.*16"),
        ({"hidden_width": 10**9}, "needs torch.float32"),
        ({"blocks": 3}, "are missing"),
        ({"blocks": 1}, "unknown ones"),
        ({"blocks": 10**12}, "more flow layers than"),
    ],
)
def test_a_config_that_does_not_fit_the_weights_is_refused(folder: Path, changes: dict[str, int], reason: str) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_bytes())
    content["detector"]["flow"] |= changes
    path.write_bytes(json.dumps(content).encode())
    _refuse(folder, reason)


def test_a_stored_detector_of_a_backbone_that_was_removed_is_refused_with_the_way_out(folder: Path) -> None:
    path = folder / "config.json"
    content = json.loads(path.read_bytes())
    content["detector"] |= {"backbone": "squeezenet1_0", "attention": {}}
    path.write_bytes(json.dumps(content).encode())
    _refuse(folder, "backbone: squeezenet1_0 was removed: train again with one of alexnet")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "forge", "reason"),
    [
        ("feature_mean", lambda tensor: tensor.double(), "feature_mean needs torch.float32"),
        ("feature_mean", lambda tensor: tensor * float("nan"), "feature_mean needs finite numbers"),
        ("flow.inn.module_list.0.perm", lambda tensor: tensor + 10**6, "is a constant"),
    ],
    ids=["type", "NaN", "index out of bounds"],
)
def test_forged_tensors_are_refused(folder: Path, name: str, forge: Callable[[Tensor], Tensor], reason: str) -> None:
    path = folder / "detector.safetensors"
    tensors = {key: tensor.clone() for key, tensor in load_file(path).items()}
    save_file(tensors | {name: forge(tensors[name])}, path)
    _refuse(folder, reason)


def test_a_detector_with_ruined_weights_is_not_saved(tmp_path: Path) -> None:
    detector = _detector()
    detector.feature_mean[0] = torch.nan
    with pytest.raises(ArtifactError, match="feature_mean needs finite numbers"):
        _save(tmp_path / "ruined", detector)
    assert not (tmp_path / "ruined").exists()


@pytest.mark.parametrize("value", [float("nan"), object()])
def test_metrics_that_are_no_json_are_not_saved(tmp_path: Path, value: float) -> None:
    with pytest.raises(ArtifactError, match="metrics must be JSON"):
        _save(tmp_path / "ruined", auroc=value)
    assert not (tmp_path / "ruined").exists()


def _refuse(folder: Path, reason: str) -> None:
    with pytest.raises(ArtifactError, match=reason) as refusal:
        load_artifact(folder)
    assert "\n" not in str(refusal.value)
