"""What a comparison leaves behind, and what it keeps on the way, without training anything."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.archive.mvtec import LABELLED
from jobs.evaluation import comparison_run
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.evaluation.comparison_report import write_comparison
from jobs.evaluation.comparison_units import plan_variant

CATEGORY = "mtd_full/tile"


def make_manifest() -> pa.Table:
    rows = [{"image_uri": f"file:///{n}.jpg", "split": "test", "label": "good" if n < 3 else "crack"} for n in range(6)]
    return pa.Table.from_pylist(rows, schema=LABELLED)


def make_outcome(
    variant: str, seed: int | None, *, parameters: int, category: str = CATEGORY, is_right: bool = True
) -> dict[str, Any]:
    cost = {"train_s": 2.0, "score_s": 1.0, "parameters": parameters, "peak_memory_bytes": 10**9}
    scores = {f"file:///{n}.jpg": float(n if is_right else -n) for n in range(6)}
    about = {"category": category, "variant": variant, "seed": seed, "git_commit": "c", "versions": {"torch": "2"}}
    return {**about, "scores": scores, "lost": {}, "calibration": [], "history": [], "seconds": 3.0, "cost": cost}


def test_methods_have_a_row_each_and_stand_beside_the_published_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = ComparisonConfig(data=["/data/mtd_full"], output=str(tmp_path), variants=["differnet"], seeds=1)
    outcomes = [make_outcome("differnet", 0, parameters=7), make_outcome("mahalanobis", None, parameters=0)]
    write_comparison(config, outcomes, [], {CATEGORY: make_manifest()})
    rows = pq.read_table(tmp_path / "methods.parquet").to_pylist()
    assert [(row["variant"], row["seed"], row["auroc"], row["parameters"]) for row in rows] == [
        ("differnet", 0, 1.0, 7),
        ("mahalanobis", None, 1.0, 0),
    ]
    assert rows[0]["train_s"] == 2.0
    assert json.loads(rows[0]["versions"]) == {"torch": "2"}
    assert "**100.00** (97.70)" in capsys.readouterr().out


def test_a_set_that_confirms_is_in_no_mean_and_has_differences_of_its_own(tmp_path: Path) -> None:
    sets = ("a/x", "b/x", "kept/x")
    config = ComparisonConfig(
        data=["/a", "/b", "/kept"],
        output=str(tmp_path),
        variants=["none", "se"],
        seeds=1,
        baselines=False,
        custom={"none": {}, "se": {}},
        confirm=["kept"],
    )
    outcomes = [
        # `se` gains on a alone, and loses on the set that confirms.
        make_outcome(
            name, seed, parameters=0, category=one, is_right=(one != "a/x") if name == "none" else one != "kept/x"
        )
        for name, seed in (("none", None), ("se", 0))
        for one in sets
    ]
    write_comparison(config, outcomes, [], dict.fromkeys(sets, make_manifest()))
    found = json.loads((tmp_path / "comparison.json").read_text())
    assert [(one["categories"], one["mean"]) for one in found["comparisons"]] == [
        (["a/x", "b/x"], 0.5),
        (["kept/x"], -1),
    ]
    assert (found["comparisons"][0]["wide_low"], found["comparisons"][0]["wide_high"]) == (0, 1)
    assert [one["mean"]["auroc"]["mean"] for one in found["variants"]] == [0.5, 1]
    text = (tmp_path / "comparison.md").read_text()
    assert "in points, mean over a/x, b/x, 95 % interval" in text
    assert "in points, mean over kept/x, 95 % interval" in text
    assert "| +50.00..+50.00 | +0.00..+100.00 |" in text


def test_a_gaussian_of_plain_features_is_one_unit_whatever_the_seeds() -> None:
    gaussian: dict[str, object] = {"flow": {"blocks": 0}, "feature_scaling": "whiten", "train_angles": "scoring"}
    changes: dict[str, dict[str, object]] = {
        "gaussian": {},
        "attended": {"attention": {"pool2": {"kind": "se"}}, "attention_training": "pretext"},
        "uniform": {"train_angles": "uniform"},
        "random": {"weights": "random"},
        "flow": {"flow": {"blocks": 1}},
    }
    config = ComparisonConfig(
        data=["/data/a"],
        output="/o",
        variants=list(changes),
        custom={name: {**gaussian, **change} for name, change in changes.items()},
        detector={"weights": "/w.safetensors"},  # type: ignore[arg-type]
    )
    seeds = {
        name: [unit.seed for seed in (0, 1) for unit in plan_variant(config, {"a/b": "h"}, variant=name, seed=seed)]
        for name in changes
    }
    assert seeds == {"gaussian": [None, None], **{name: [0, 1] for name in list(changes)[1:]}}


def test_shared_attention_that_was_kept_is_not_learnt_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ComparisonConfig(
        data=["/data/a"],
        output=str(tmp_path),
        variants=["attentdiffernet_se"],
        pretext_on="all",
        detector={"weights": "random"},  # type: ignore[arg-type]
    )
    units = [
        unit for seed in (0, 1) for unit in plan_variant(config, {"a/b": "h"}, variant="attentdiffernet_se", seed=seed)
    ]
    learnt: list[int] = []

    def learn(detector: Any, weights: object, *categories: object) -> dict[str, torch.Tensor]:
        if learnt:
            raise RuntimeError("cut off")
        learnt.append(detector.seed)
        return {"gate": torch.full((2,), float(detector.seed))}

    def remote(**_settings: object) -> Any:
        return lambda function: SimpleNamespace(remote=function)

    fake = SimpleNamespace(remote=remote, put=lambda value: value, get=lambda value: value)
    monkeypatch.setattr(comparison_run, "ray", fake)
    monkeypatch.setattr("jobs.cluster.task_pool.ray.is_initialized", lambda: True)
    monkeypatch.setattr(comparison_run, "learn_attention", learn)

    def call() -> dict[str, Any]:
        weights = {unit.weights_key: None for unit in units}
        return comparison_run.learn_shared_attention(units, {}, weights, tasks=1, output=config.output)

    with pytest.raises(comparison_run.JobError, match="cut off"):
        call()
    (kept,) = learnt
    learnt.clear()
    found = call()
    assert learnt == [1 - kept]
    assert sorted(float(one["gate"][0]) for one in found.values()) == [0.0, 1.0]
