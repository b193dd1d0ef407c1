"""`jobs.benchmarks.localization`: marked photos, the ways to map them, and runs that are kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs import benchmark
from jobs.benchmarks.config import LocalizationBenchmarkConfig
from jobs.benchmarks.localization import run
from jobs.benchmarks.localization.maps import make_detector_config
from jobs.benchmarks.localization.marks import draw_photos, list_photos
from jobs.errors import RequestError


def _draw(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    """A data set of 6 flawless photos to train on and 3 cracks, of which one has an empty mask."""
    rng = np.random.default_rng(0)
    for number in range(6):
        _draw(tmp_path / f"data/tile/train/good/{number}.png", rng.integers(90, 110, (64, 64), np.uint8))
    for number in range(3):
        photo, mask = rng.integers(90, 110, (64, 64), np.uint8), np.zeros((64, 64), np.uint8)
        photo[8:24, 8:24], mask[8:24, 8:24] = 255, 255 * (number > 0)
        _draw(tmp_path / f"data/tile/test/crack/{number}.png", photo)
        _draw(tmp_path / f"data/tile/ground_truth/crack/{number}_mask.png", mask)
    return tmp_path


def _ask(tiles: Path, *more: str) -> list[str]:
    places = ["--data", str(tiles / "data"), "--output", str(tiles / "out.json"), "--weights", "random"]
    return ["localization", *places, *more]


def test_photos_without_a_mark_are_left_out(tiles: Path) -> None:
    training, marked = list_photos(LocalizationBenchmarkConfig(data=str(tiles / "data")))
    assert len(training) == 6
    assert [uri.rsplit("/", 1)[1] for uri, _ in marked] == ["1.png", "2.png"]
    assert marked[0][1].sum() == 256


def test_boxes_take_the_masks_place(tiles: Path) -> None:
    (tiles / "data/tile/test/crack/boxes.json").write_text('{"0.png": {"x": 8, "y": 4, "width": 3, "height": 2}}')
    config = LocalizationBenchmarkConfig(data=str(tiles / "data"), boxes=str(tiles / "data/tile/test/crack/boxes.json"))
    ((_, mask),) = list_photos(config)[1]
    assert np.argwhere(mask).tolist() == [[row, column] for row in (4, 5) for column in (8, 9, 10)]


def test_the_same_seed_draws_the_same_photos_in_their_order() -> None:
    marked = [(str(number), np.ones((1, 1), bool)) for number in range(100)]
    drawn = [[int(uri) for uri, _ in draw_photos(marked, count=10, seed=seed)] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] == sorted(drawn[0])
    assert drawn[0] != drawn[2]
    assert draw_photos(marked, count=101, seed=0) == marked


def test_attention_is_trained_and_stands_after_each_pooled_stage() -> None:
    config = LocalizationBenchmarkConfig(data="data", attention="cbam", weights="random")
    detector = make_detector_config(config, seed=3)
    assert {stage: block.kind for stage, block in detector.attention.items()} == {"stride8": "cbam", "stride16": "cbam"}
    assert (detector.attention_training, detector.seed) == ("pretext", 3)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"variant": "differnet", "attention": "se"}, "--variant differnet: it pools behind its last stage"),
        ({"variant": "no_such"}, "--variant no_such: unknown variant 'no_such', expected one of"),
    ],
)
def test_what_cannot_be_built_is_refused(changes: dict[str, str], reason: str) -> None:
    config = LocalizationBenchmarkConfig.model_validate({"data": "data", **changes})
    with pytest.raises(RequestError, match=reason):
        make_detector_config(config, seed=0)


@pytest.mark.slow
def test_every_way_to_map_is_measured_once(
    tiles: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert benchmark.main(_ask(tiles, "--seeds", "0")) == 0
    said = capsys.readouterr().out
    assert "2 of 2 photos mapped" in said
    (measured,) = json.loads((tiles / "out.json").read_text())["runs"]
    assert list(measured["methods"]) == ["positions", "gradcam", "share", "gradient", "centre", "uniform"]
    assert measured["methods"]["centre"]["against_centre"] == [0, 0, 0]
    monkeypatch.delattr(run, "train_detector")  # a seed that is done is not trained again
    assert benchmark.main(_ask(tiles, "--seeds", "0")) == 0
    assert said.splitlines()[-7:] == capsys.readouterr().out.splitlines()[-7:]
