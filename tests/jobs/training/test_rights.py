"""A training tries its rights to the registry before anything starts, and leaves nothing of that."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs import storage
from jobs.detectors.backbone_weights import WeightsFiles
from jobs.errors import DeniedError
from jobs.training import run
from jobs.training.config import TrainConfig


def test_trying_the_rights_leaves_no_file(tmp_path: Path) -> None:
    run.check_registry_rights(f"file://{tmp_path}/registry")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("action", ["list_between", "write", "delete"])
def test_a_training_that_may_not_do_something_ends_before_ray_starts(
    action: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise DeniedError(f"lack the permission to {action}")

    monkeypatch.setattr(storage, action, refuse)
    monkeypatch.setattr(run, "start_ray", lambda: pytest.fail("Ray was started"))
    request = {"data": str(tmp_path), "category": "pole", "detectors": str(tmp_path / "registry")}
    with pytest.raises(DeniedError, match=f"lack the permission to {action}"):
        list(run.train_missing(TrainConfig.model_validate(request), [], WeightsFiles()))
