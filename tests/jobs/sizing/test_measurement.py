"""Costs measured with a user's photos, on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.errors import RequestError
from jobs.sizing.config import CapacityConfig
from jobs.sizing.measurement import measure_costs, measure_photos
from jobs.storage import list_objects
from jobs.synthetic.archive import draw_archive


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of 8 photos of 512 px."""
    folder = tmp_path_factory.mktemp("photos")
    draw_archive(folder, size_px=512, train_good=8, test_good=0, missing_cap=0, rust=0)
    return str(folder / "data" / "insulator" / "train")


@pytest.mark.slow
def test_photos_and_network_are_measured_and_kept(photos: str, tmp_path: Path) -> None:
    saved = tmp_path / "costs.yaml"
    asked = {"measure": photos, "measure_photos": 8, "preset": "differnet_fast", "precision": "fp32"}
    config = CapacityConfig.model_validate(asked | {"save": str(saved), "costs": {"start_s": 7}})
    found = measure_costs(config)
    assert found.megapixels == pytest.approx(0.262, abs=0.001)
    assert found.photo_mb == pytest.approx(
        sum(one.size_bytes for one in list_objects(f"file://{photos}")) / 8e6, abs=1e-4
    )
    assert (found.costs.decode_ms_per_megapixel or 0) > 0.5
    assert (found.costs.view_ms or 0) > 0.5
    assert found.costs.start_s == 7
    assert "view_ms" in saved.read_text()


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is empty: expected photos under this prefix to measure with"):
        measure_costs(CapacityConfig(measure=str(tmp_path)))


def test_a_folder_of_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.jpg").write_text("no photo")
    with pytest.raises(RequestError, match="none of 1 photos can be read, the first: "):
        measure_photos(list(list_objects(f"file://{tmp_path}")), size=64)
