"""DifferNet reproduced on its authors' split, each run kept as a curve, and the table of what deviations cost."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from jobs.archive.mvtec import list_labelled
from jobs.benchmarks.config import ReproductionBenchmarkConfig
from jobs.benchmarks.report import write_report
from jobs.benchmarks.reproduction.features import FeatureStore
from jobs.benchmarks.reproduction.loop import Epoch, measure_gaussian, train_as_authors
from jobs.benchmarks.reproduction.recipe import DEVIATIONS, Recipe, list_deviations
from jobs.detectors.backbone_weights import load_backbone_weights
from jobs.detectors.lineage import hash_json
from jobs.errors import RequestError
from jobs.tables.text import format_table
from model.config import MIN_BACKBONE_PX
from model.detector import AttentDifferNet
from model.process import prepare_process
from model.processor import read_cpu_name

AUTHORS_TEST_EVERY = 8
"""Epochs between two tests of the authors' code, whose best one they report."""
SIDE_STEP_PX = 4
"""The smallest of the three scales has a fourth of the largest one's side."""

MIN_SIDE_PX = SIDE_STEP_PX * MIN_BACKBONE_PX["alexnet"]

Run = dict[str, Any]
"""JSON of one recipe and seed: recipe, seed, epochs (as `Epoch`), gaussian, is_finished."""


def measure_reproduction(config: ReproductionBenchmarkConfig) -> None:
    """Runs the recipes, or what is missing of them, and writes their table.

    Raises:
        RequestError: an unknown recipe or category, or no labelled photos.
    """
    recipes = choose_recipes(config)
    rows = choose_rows(config)
    prepare_process()
    detector = next(iter(recipes.values())).make_detector_config(
        weights=config.weights, seed=0, precision=config.precision
    )
    weights = load_backbone_weights(detector, asked_as=f"--weights {config.weights}")
    folder = Path(config.output)
    store = FeatureStore(
        rows, folder / "features", weights_uri=config.weights, weights=weights, precision=config.precision
    )
    for seed in config.seeds:
        for name, recipe in recipes.items():
            run_recipe(config, store, name=name, recipe=recipe, seed=seed)
    write_table(
        config, [read_run(config, name, recipe, seed) for name, recipe in recipes.items() for seed in config.seeds]
    )


def choose_recipes(config: ReproductionBenchmarkConfig) -> Mapping[str, Recipe]:
    """Returns the recipes asked for by name.

    Raises:
        RequestError: there is none of such a name, or its photos would be too small.
    """
    published = Recipe(
        image_size=config.image_size,
        train_angles=config.train_angles,
        test_angles=config.test_angles,
        scored_views=config.test_angles,
        flow=config.flow,
    )
    known = list_deviations(published)
    if unknown := [name for name in config.recipes if name not in known]:
        raise RequestError(f"unknown recipe {unknown[0]!r}, expected some of {', '.join(DEVIATIONS)}")
    chosen = {name: known[name] for name in config.recipes or DEVIATIONS}
    for name, recipe in chosen.items():
        if recipe.image_size % SIDE_STEP_PX or recipe.image_size < MIN_SIDE_PX:
            raise RequestError(
                f"recipe {name} needs a multiple of {SIDE_STEP_PX} px, at least {MIN_SIDE_PX}: got "
                f"{recipe.image_size}; choose --image-size or --recipes otherwise"
            )
    return chosen


def choose_rows(config: ReproductionBenchmarkConfig) -> pa.Table:
    """Lists the photos of the category.

    Raises:
        RequestError: there are none, or several categories and none named.
    """
    rows = list_labelled(config.data)
    names = sorted(set(rows["category"].to_pylist()))
    chosen = config.category or (names[0] if len(names) == 1 else None)
    if chosen not in names:
        raise RequestError(f"--category must name one of {', '.join(names) or 'none found'} in {config.data}")
    return rows.filter(pc.equal(rows["category"], chosen))


def locate_run(config: ReproductionBenchmarkConfig, name: str, recipe: Recipe, seed: int) -> Path:
    """Returns the file of a run, whose name holds everything that it depends on."""
    asked = {
        "recipe": describe_recipe(recipe),
        "epochs": config.epochs,
        "data": [config.data, config.category],
        "weights": config.weights,
        "precision": config.precision,
    }
    return Path(config.output) / "runs" / f"{name}.seed{seed}.{hash_json(asked)}.json"


def describe_recipe(recipe: Recipe) -> dict[str, Any]:
    """Returns a recipe as JSON."""
    return {**asdict(recipe), "flow": recipe.flow.model_dump(mode="json")}


def read_run(config: ReproductionBenchmarkConfig, name: str, recipe: Recipe, seed: int) -> Run:
    """Reads a run that was begun."""
    run: Run = json.loads(locate_run(config, name, recipe, seed).read_text())
    return run


def run_recipe(
    config: ReproductionBenchmarkConfig, store: FeatureStore, *, name: str, recipe: Recipe, seed: int
) -> None:
    """Trains and tests one recipe with one seed, unless that is done; its curve is written after every epoch."""
    path = locate_run(config, name, recipe, seed)
    if path.exists() and json.loads(path.read_text())["is_finished"]:
        return
    features = store.read_or_compute(recipe)
    detector = AttentDifferNet(
        recipe.make_detector_config(weights=config.weights, seed=seed, precision=config.precision)
    ).to("cuda" if torch.cuda.is_available() else "cpu")
    gaussian = measure_gaussian(features)
    about = {"name": name, "seed": seed, "recipe": describe_recipe(recipe), "gaussian": gaussian}
    epochs: list[dict[str, Any]] = []
    path.parent.mkdir(parents=True, exist_ok=True)

    def on_epoch(epoch: Epoch) -> None:
        epochs.append(asdict(epoch))
        is_finished = epoch.epoch == config.epochs
        path.write_text(json.dumps({**about, "epochs": epochs, "is_finished": is_finished}))
        print(
            f"{name} seed {seed}, epoch {epoch.epoch} of {config.epochs}: loss {epoch.loss:.4g}, "
            f"AUROC {100 * epoch.auroc:.2f}, {epoch.cpu_s:.0f} CPU s (Gaussian {100 * gaussian:.2f})",
            flush=True,
        )

    train_as_authors(detector, features, epochs=config.epochs, seed=seed, on_epoch=on_epoch)


def write_table(config: ReproductionBenchmarkConfig, runs: Sequence[Run]) -> None:
    """Writes and prints reproduction.md, and reproduction.json with every curve."""
    table = format_runs(runs)
    about = f"{config.data}, weights {config.weights}, {config.precision}, {config.epochs} epochs, {read_cpu_name()}"
    lines = [f"# DifferNet reproduced: AUROC in %, mean over seeds {config.seeds}", "", about, "", table, ""]
    write_report({"runs": runs}, output=str(Path(config.output) / "reproduction.json"), config=config)
    (Path(config.output) / "reproduction.md").write_text("\n".join(lines))
    print("\n".join(lines))


def format_runs(runs: Iterable[Run]) -> str:
    """Formats a row a recipe: the last epoch, the best one on test photos (the authors' way), and a Gaussian."""
    by_name: dict[str, list[Run]] = {}
    for run in runs:
        by_name.setdefault(run["name"], []).append(run)
    means = {name: summarize_runs(some) for name, some in by_name.items()}
    first = next(iter(means.values()))
    columns = ["recipe", "last epoch", "against the first", "best on test, every 8th", "best of all", "Gaussian"]
    table = [
        [f"`{name}`", *(f"{value:.1f}" for value in (found[0], found[0] - first[0], *found[1:]))]
        for name, found in means.items()
    ]
    return format_table(columns, table, markdown=True)


def summarize_runs(runs: Sequence[Run]) -> tuple[float, float, float, float]:
    """Returns the mean AUROC in % of the last epoch, of the best as the authors test, of the best, of a Gaussian.

    The second looks at every eighth epoch, and at the last one where there are fewer.
    """
    curves = [[epoch["auroc"] for epoch in run["epochs"]] for run in runs]
    tested = [curve[AUTHORS_TEST_EVERY - 1 :: AUTHORS_TEST_EVERY] or curve[-1:] for curve in curves]
    found = (
        [curve[-1] for curve in curves],
        [max(some) for some in tested],
        [max(curve) for curve in curves],
        [run["gaussian"] for run in runs],
    )
    last, authors, best, gaussian = (100 * float(np.mean(some)) for some in found)
    return last, authors, best, gaussian
