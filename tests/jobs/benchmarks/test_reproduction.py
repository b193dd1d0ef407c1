"""`jobs.benchmarks.reproduction`: DifferNet by its authors' loop, and what is changed in each deviation."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from jobs import benchmark
from jobs.benchmarks.config import ReproductionBenchmarkConfig
from jobs.benchmarks.reproduction.features import ViewFeatures, draw_views
from jobs.benchmarks.reproduction.loop import train_as_authors
from jobs.benchmarks.reproduction.recipe import DEVIATIONS, Recipe
from jobs.benchmarks.reproduction.run import choose_recipes, choose_rows, summarize_runs
from jobs.errors import RequestError
from model.config import FlowConfig
from model.detector import AttentDifferNet

SMALL = FlowConfig(blocks=2, hidden_width=16, hidden_layers=1)


def draw_photo(path: Path, *, seed: int, side: int = 80) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def tiles(tmp_path: Path) -> str:
    """A data set of one category with 6 flawless training photos and 2 test photos of each class."""
    for part, count in {"train/good": 6, "test/good": 2, "test/crack": 2}.items():
        for number in range(count):
            draw_photo(tmp_path / "data/tile" / part / f"{number}.png", seed=number)
    return str(tmp_path / "data")


def make_features(dim: int = 768) -> ViewFeatures:
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(30, 4, dim, generator=generator)
    test = torch.rand(10, 2, dim, generator=generator)
    test[5:] += 0.5
    return ViewFeatures(train, test, torch.arange(10) >= 5)


def build_small(scaling: str = "channel") -> AttentDifferNet:
    recipe = Recipe(image_size=252, scaling=scaling, flow=SMALL)  # type: ignore[arg-type]
    return AttentDifferNet(recipe.make_detector_config(weights="random", seed=0, precision="fp32"))


def test_one_angle_and_light_make_one_view_whatever_the_run() -> None:
    buffer = io.BytesIO()
    Image.new("L", (60, 40), 100).save(buffer, "PNG")
    recipe = Recipe(image_size=64, light=0.15)
    first, second = (draw_views(buffer.getvalue(), recipe, "random", angles=3, seed=7) for _ in range(2))
    assert torch.equal(first, second)
    assert first.shape == (3, 3, 64, 64)


def test_light_is_varied_where_asked_for_and_is_the_photo_itself_else() -> None:
    buffer = io.BytesIO()
    Image.new("L", (64, 64), 100).save(buffer, "PNG")
    steady = draw_views(buffer.getvalue(), Recipe(image_size=64), "even", angles=4, seed=0)
    varied = draw_views(buffer.getvalue(), Recipe(image_size=64, light=0.15), "even", angles=4, seed=0)
    assert int(steady.min()) == int(steady.max()) == 100
    assert 100 * 0.85**2 - 1 <= int(varied.min()) < int(varied.max()) <= 100 * 1.15**2 + 1


def test_the_loop_learns_and_never_looks_at_test_photos_to_learn() -> None:
    features, curves = make_features(), []
    for test in (features.test, torch.rand_like(features.test)):
        losses: list[float] = []
        train_as_authors(
            build_small(),
            ViewFeatures(features.train, test, features.is_defective),
            epochs=3,
            seed=0,
            on_epoch=lambda epoch, losses=losses: losses.append(epoch.loss),  # type: ignore[misc]
        )
        curves.append(losses)
    assert curves[0] == curves[1]
    assert curves[0][-1] < curves[0][0]


def test_the_best_epoch_is_told_from_the_last_and_from_every_eighth() -> None:
    aurocs = [0.5, 0.9, *[0.6] * 5, 0.8, 0.7]
    run = {"epochs": [{"auroc": value} for value in aurocs], "gaussian": 0.65}
    assert summarize_runs([run]) == pytest.approx((70, 80, 90, 65))


@pytest.mark.slow
def test_a_run_is_kept_and_a_second_one_trains_nothing(
    tiles: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--data", tiles, "--weights", "random", "--image-size", "252", "--epochs", "2", "--seeds", "0,1"]
    flags += ["--train-angles", "4", "--test-angles", "2", "--recipes", "published,whitened,1_test_view"]
    flags += ["--flow.blocks", "2", "--flow.hidden-width", "16", "--output", str(tmp_path / "out")]
    assert benchmark.main(["reproduction", *flags]) == 0
    shown = capsys.readouterr().out
    assert "whitened seed 1, epoch 2 of 2" in shown
    assert "| `1_test_view` |" in shown
    found = json.loads((tmp_path / "out/reproduction.json").read_text())
    assert [len(run["epochs"]) for run in found["runs"]] == [2] * 6
    assert benchmark.main(["reproduction", *flags]) == 0
    assert "epoch" not in capsys.readouterr().out.split("# DifferNet")[0]


def test_an_unknown_recipe_is_refused_with_the_names_of_all(tmp_path: Path) -> None:
    config = ReproductionBenchmarkConfig(data=str(tmp_path), recipes=["best"])
    with pytest.raises(RequestError, match=r"unknown recipe 'best', expected some of published, varied_light, "):
        choose_recipes(config)


def test_a_category_must_be_named_where_there_are_several(tiles: str) -> None:
    draw_photo(Path(tiles) / "bolt/train/good/0.png", seed=0)
    with pytest.raises(RequestError, match="--category must name one of bolt, tile in "):
        choose_rows(ReproductionBenchmarkConfig(data=tiles))
    assert len(choose_rows(ReproductionBenchmarkConfig(data=tiles, category="tile"))) == 10


def test_photos_that_are_too_small_for_three_scales_are_refused(tmp_path: Path) -> None:
    config = ReproductionBenchmarkConfig(data=str(tmp_path), recipes=["published"], image_size=220)
    with pytest.raises(RequestError, match="recipe published needs a multiple of 4 px, at least 252: got 220"):
        choose_recipes(config)


def test_every_recipe_can_be_run_at_the_sizes_of_the_command_without_options(tmp_path: Path) -> None:
    assert set(choose_recipes(ReproductionBenchmarkConfig(data=str(tmp_path)))) == set(DEVIATIONS)
