"""`python -m jobs.demo`: which folder it may empty, and which weights it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.demo import empty_folder, find_weights
from jobs.errors import RequestError


def test_an_earlier_demo_is_deleted(tmp_path: Path) -> None:
    folder = empty_folder(tmp_path / "demo")
    (folder / "results").mkdir()
    assert not (empty_folder(folder) / "results").exists()


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(RequestError, match=r"an earlier demo's, got .*: take another --folder"):
        empty_folder(tmp_path)
    assert (tmp_path / "thesis.tex").exists()


def test_weights_are_those_of_demo_weights_then_torch_s_cache_then_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("DEMO_WEIGHTS", raising=False)
    assert find_weights() == "random"
    assert "seeded random weights" in capsys.readouterr().out
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / "alexnet-owt-7be5be79.pth").touch()
    assert find_weights() == "imagenet"
    monkeypatch.setenv("DEMO_WEIGHTS", str(tmp_path / "w.safetensors"))
    with pytest.raises(RequestError, match="DEMO_WEIGHTS"):
        find_weights()
    (tmp_path / "w.safetensors").touch()
    assert find_weights() == str(tmp_path / "w.safetensors")
