"""A registry with a key against somebody who may write its bucket and has not the key."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs import storage
from jobs.detectors import node_cache, registry
from jobs.detectors.aliases import read_aliases, set_alias
from jobs.detectors.node_cache import download
from jobs.detectors.signing import KEY_VARIABLE
from jobs.errors import RequestError
from jobs.registry import main
from jobs.results.known import read_rows
from jobs.scoring.config import ScoreConfig
from jobs.scoring.run import score_archive
from model.artifact import save_artifact
from model.artifact.files import ArtifactError
from model.detector import AttentDifferNet
from model.statistics.calibration import Calibration
from tests.support.training import build_training_config

KEY, OTHER_KEY = "k" * 32, "o" * 32
NOT_SIGNED = f"is not signed by the key of {KEY_VARIABLE}"


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A registry with two signed detectors of pole and one of cap; what was registered, by name."""
    folder = tmp_path_factory.mktemp("signed")
    found = {"detectors": f"file://{folder}/registry"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(KEY_VARIABLE, KEY)
        for name, category, scores in (("old", "pole", 30), ("new", "pole", 40), ("cap", "cap", 50)):
            found[name] = put_detector(found["detectors"], category, scores, folder=folder / name)
            set_alias(found["detectors"], category, alias="champion", detector_id=found[name])
    return found


@pytest.fixture
def signed(registered: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """A copy of the registry, and its key; no node has downloaded from it."""
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    (tmp_path / "node").mkdir()
    shutil.copytree(registered["detectors"].removeprefix("file://"), tmp_path / "registry" / "copy")
    return registered | {"detectors": f"file://{tmp_path}/registry/copy"}


def put_detector(detectors: str, category: str, scores: int, *, folder: Path) -> str:
    detector = AttentDifferNet(build_training_config())
    calibration = Calibration(scores=tuple(float(score) for score in range(scores)))
    save_artifact(folder, detector, calibration=calibration, metrics={"training_photos": []})
    return registry.put(detectors, category, folder=folder)


def locate(signed: dict[str, str], *parts: str) -> Path:
    return Path(signed["detectors"].removeprefix("file://"), *parts)


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_what_is_registered_and_promoted_with_the_key_is_read_with_it(signed: dict[str, str]) -> None:
    detectors = signed["detectors"]
    assert read_aliases(detectors, "pole") == {"champion": signed["new"]}
    found = registry.resolve(detectors, "pole", alias="champion")
    assert found is not None
    assert found.calibration is not None
    assert len(found.calibration.scores) == 40
    assert main(["rollback", "--detectors", detectors, "--category", "pole"]) == 0
    assert read_aliases(detectors, "pole") == {"champion": signed["old"]}


def test_another_key_reads_nothing_and_no_key_reads_all(
    signed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, OTHER_KEY)
    with pytest.raises(RequestError, match=NOT_SIGNED):
        read_aliases(signed["detectors"], "pole")
    with pytest.raises(RequestError, match=NOT_SIGNED):
        registry.read_detector(signed["detectors"], "pole", detector_id=signed["new"])
    monkeypatch.delenv(KEY_VARIABLE)
    assert registry.resolve(signed["detectors"], "pole", alias="champion") is not None


def test_signed_aliases_are_not_changed_without_the_key(
    signed: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(RequestError, match=f"aliases.json is signed: set {KEY_VARIABLE}"):
        set_alias(signed["detectors"], "pole", alias="champion", detector_id=signed["old"])


@pytest.mark.parametrize("key", ["short", " " * 40 + "x", "k" * 31])
def test_a_key_that_can_be_guessed_is_refused(
    signed: dict[str, str], key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLE, key)
    with pytest.raises(RequestError, match=f"{KEY_VARIABLE} needs 32 characters or more"):
        read_aliases(signed["detectors"], "pole")


ALIAS_ATTACKS: dict[str, Callable[[dict[str, Any]], object]] = {
    "another detector": lambda content: content.update(champion="a" * 16),
    "one more alias": lambda content: content.update(candidate="a" * 16),
    "no alias": lambda content: content.pop("champion"),
    "another history": lambda content: content[".history"][0].update(reason="nothing"),
    "no signature": lambda content: content.pop(".signature"),
    "half a signature": lambda content: content[".signature"].update(
        hmac_sha256=content[".signature"]["hmac_sha256"][:32]
    ),
    "an empty signature": lambda content: content[".signature"].update(hmac_sha256=""),
    "no text for a signature": lambda content: content[".signature"].update(hmac_sha256=[0]),
    "a signature of odd letters": lambda content: content[".signature"].update(hmac_sha256="\ud800ä"),
    "a signature without its name": lambda content: content.update({".signature": "x"}),
}


@pytest.mark.parametrize("change", ALIAS_ATTACKS.values(), ids=ALIAS_ATTACKS)
def test_aliases_that_somebody_has_changed_are_refused(
    signed: dict[str, str], change: Callable[[dict[str, Any]], object]
) -> None:
    edit(locate(signed, "pole", "aliases.json"), change)
    with pytest.raises(RequestError, match=NOT_SIGNED):
        registry.resolve(signed["detectors"], "pole", alias="champion")
    with pytest.raises(RequestError, match=NOT_SIGNED):
        set_alias(signed["detectors"], "pole", alias="champion", detector_id=signed["old"])


def test_aliases_of_another_category_are_refused(signed: dict[str, str]) -> None:
    shutil.copytree(locate(signed, "cap"), locate(signed, "pole"), dirs_exist_ok=True)
    with pytest.raises(RequestError, match=NOT_SIGNED):
        registry.resolve(signed["detectors"], "pole", alias="champion")


@pytest.mark.parametrize(
    ("name", "read"),
    [
        ("config.json", registry.read_detector),
        ("calibration.json", registry.read_detector),
        ("metrics.json", registry.read_metrics),
    ],
    ids=["config", "calibration", "metrics"],
)
def test_a_file_of_another_detector_is_refused_before_anything_is_planned_with_it(
    signed: dict[str, str], name: str, read: Callable[..., object]
) -> None:
    place = locate(signed, "pole", signed["new"])
    content = json.loads((place / name).read_text())
    (place / name).write_text(json.dumps(content | {"more": 1}))
    with pytest.raises(RequestError, match=f"{name} {NOT_SIGNED}"):
        read(signed["detectors"], "pole", detector_id=signed["new"])


@pytest.mark.parametrize("command", ["list", "show", "compare"])
def test_a_command_reads_the_signature_of_each_detector_once(
    signed: dict[str, str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def read(uri: str) -> bytes:
        asked.append(uri)
        return original(uri)

    original = storage.read
    monkeypatch.setattr(storage, "read", read)
    more = {
        "list": ["--categories", "pole"],
        "show": ["--category", "pole"],
        "compare": ["--category", "pole", "--names", f"{signed['old']},{signed['new']}"],
    }
    assert main([command, "--detectors", signed["detectors"], *more[command]]) == 0
    signatures = [uri for uri in asked if uri.endswith("/signature.json")]
    expected = [signed["new"]] if command == "show" else [signed["old"], signed["new"]]
    assert sorted(uri.split("/")[-2] for uri in signatures) == sorted(expected)


@pytest.mark.parametrize("how", ["gone", "of another detector", "of other files", "cut", "no JSON", "of fewer files"])
def test_a_signature_that_is_not_the_detector_s_is_refused(signed: dict[str, str], how: str) -> None:
    file = locate(signed, "pole", signed["new"], "signature.json")
    if how == "gone":
        file.unlink()
    elif how == "of another detector":
        shutil.copy(locate(signed, "pole", signed["old"], "signature.json"), file)
    elif how == "of other files":
        edit(file, lambda content: content["sha256"].update({"calibration.json": "0" * 64}))
    elif how == "of fewer files":
        edit(file, lambda content: content["sha256"].pop("calibration.json"))
    elif how == "cut":
        edit(file, lambda content: content.update(hmac_sha256=content["hmac_sha256"][:-1]))
    else:
        file.write_text("[" * 100_000)
    with pytest.raises(RequestError, match=NOT_SIGNED):
        registry.resolve(signed["detectors"], "pole", alias="champion")
    with pytest.raises(ArtifactError, match="is not signed by the key"):
        download(signed["detectors"], "pole", detector_id=signed["new"], folder=locate(signed, "scratch"))


def test_other_weights_under_the_same_id_are_refused(signed: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """As if somebody had found weights whose 64 bits of id are the same."""
    monkeypatch.setattr(node_cache, "hash_content", lambda _: signed["new"])
    with locate(signed, "pole", signed["new"], "detector.safetensors").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ArtifactError, match=r"detector\.safetensors is not signed by the key"):
        download(signed["detectors"], "pole", detector_id=signed["new"], folder=locate(signed, "scratch"))


def test_a_registry_of_before_is_signed_by_hand(
    signed: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(locate(signed, "pole", "aliases.json"), lambda content: content.pop(".signature"))
    locate(signed, "pole", signed["new"], "signature.json").unlink()
    argv = ["sign", "--detectors", signed["detectors"], "--category", "pole"]
    monkeypatch.delenv(KEY_VARIABLE)
    with pytest.raises(RequestError, match=f"signing needs the key in {KEY_VARIABLE}"):
        main(argv)
    monkeypatch.setenv(KEY_VARIABLE, KEY)
    assert main(argv) == 0
    assert f"signed: champion of pole is {signed['new']}" in capsys.readouterr().out
    assert registry.resolve(signed["detectors"], "pole", alias="champion") is not None
    with pytest.raises(RequestError, match=r"damper has no alias in .*: nothing to sign"):
        main([*argv[:-1], "damper"])


def test_a_damaged_detector_is_not_signed(signed: dict[str, str]) -> None:
    locate(signed, "pole", signed["new"], "calibration.json").write_text("null")
    with pytest.raises(RequestError, match="does not hold the content its id names"):
        main(["sign", "--detectors", signed["detectors"], "--category", "pole"])


def score(config: ScoreConfig, signed: dict[str, str], run_id: str) -> int:
    changes = {"detectors": signed["detectors"], "run_id": run_id, "rescore": True, "max_error_rate": 1.0}
    return score_archive(config.model_copy(update=changes))


@pytest.mark.slow
def test_a_run_scores_with_what_is_signed_and_refuses_what_was_swapped(
    signed: dict[str, str], local_config: ScoreConfig
) -> None:
    assert score(local_config, signed, "first") == 0
    edit(locate(signed, "pole", signed["new"], "calibration.json"), lambda content: content.update(scores=[9e9] * 40))
    with pytest.raises(RequestError, match=NOT_SIGNED):
        score(local_config, signed, "second")
    assert {row["run_id"] for row in read_rows(local_config.results, ["run_id"]).to_pylist()} == {"first"}


@pytest.mark.slow
def test_old_aliases_that_are_put_back_are_noticed_by_the_next_run(
    signed: dict[str, str], local_config: ScoreConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    aliases = locate(signed, "pole", "aliases.json")
    assert main(["rollback", "--detectors", signed["detectors"], "--category", "pole"]) == 0
    old = aliases.read_bytes()
    assert main(["promote", "--detectors", signed["detectors"], "--category", "pole", "--name", signed["new"]]) == 0
    assert score(local_config, signed, "first") == 0
    aliases.write_bytes(old)
    with pytest.raises(RequestError, match=r"old aliases were put back in .*; promote again what is to score"):
        score(local_config, signed, "second")
    assert main(["promote", "--detectors", signed["detectors"], "--category", "pole", "--name", signed["new"]]) == 0
    assert score(local_config, signed, "third") == 0
    storage.write(f"{local_config.results}/promotions.json", b"[")
    with pytest.raises(RequestError, match=r"promotions\.json is damaged"):
        score(local_config, signed, "fourth")
    monkeypatch.delenv(KEY_VARIABLE)
    assert score(local_config, signed, "fifth") == 0
