"""The configurations of runs say the same as the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from jobs.cli import parse_config
from jobs.errors import RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.scoring.config import ScoreConfig
from jobs.training.config import TrainConfig
from model.config import DetectorConfig, OptimizerConfig
from model.presets import DEFAULT_VARIANT, PRESET_OPTIMIZERS, get_preset
from model.statistics.calibration import find_min_sample_size
from tests.support.places import ROOT
from tuning.config import SearchConfig
from tuning.space.space import check_space, read_space

INFRA = ROOT / "infra"
SCORE_YAML = str(INFRA / "runs" / "score.yaml")
TRAIN_YAML = str(INFRA / "runs" / "train.yaml")


def test_the_nightly_configuration_needs_nothing_but_a_run_id() -> None:
    with pytest.raises(RequestError, match=r"^--run-id is required; see --help$"):
        parse_config(ScoreConfig, ["--config", SCORE_YAML])
    assert parse_config(ScoreConfig, ["--config", SCORE_YAML, "--run-id", "night"]).results.startswith("s3://")


def test_the_nightly_key_pattern_reads_category_site_and_date() -> None:
    config = parse_config(ScoreConfig, ["--config", SCORE_YAML, "--run-id", "night"])
    match = re.match(config.key_pattern, "insulator/line-07/2026-03-02/IMG_0001.jpg")
    assert match is not None
    assert match.groupdict() == {"category": "insulator", "site": "line-07", "captured_at": "2026-03-02"}


def test_the_training_configuration_needs_nothing_but_a_category() -> None:
    with pytest.raises(RequestError, match=r"^--category is required; see --help$"):
        parse_config(TrainConfig, ["--config", TRAIN_YAML])


def test_the_training_configuration_is_the_papers_procedure_on_the_preset() -> None:
    config = parse_config(TrainConfig, ["--config", TRAIN_YAML, "--category", "insulator"])
    assert config.detector == get_preset("attentdiffernet_se")
    assert config.optimizer == OptimizerConfig()


def test_the_detector_section_names_fields_of_a_detector() -> None:
    given = yaml.safe_load(Path(TRAIN_YAML).read_text())["detector"]
    assert set(given) <= set(DetectorConfig.model_fields)


def test_five_hundred_photos_calibrate_the_rate_that_scoring_asks_for() -> None:
    train = parse_config(TrainConfig, ["--config", TRAIN_YAML, "--category", "insulator"])
    score = parse_config(ScoreConfig, ["--config", SCORE_YAML, "--run-id", "night"])
    assert train.false_alarm_rate == score.false_alarm_rate
    assert find_min_sample_size(score.false_alarm_rate) == 99  # the figure in score.yaml's comment
    assert round(500 * train.calibration_fraction) >= 99  # and the one in train.yaml's


def test_the_comparison_of_the_readme_parses_and_varies_nothing_but_what_it_says() -> None:
    argv = ["--config", str(INFRA / "runs" / "comparison.yaml"), "--data", "/a,/b", "--output", "/o"]
    config = parse_config(ComparisonConfig, argv)
    best, bare = (config.make_detector_config(name, seed=1).model_dump() for name in config.variants[-2:])
    assert {name for name in best if best[name] != bare[name]} == {"variant", "attention", "attention_training"}


def test_the_comparison_of_attention_varies_attention_alone_on_the_default_preset() -> None:
    config = parse_config(
        ComparisonConfig, ["--config", str(INFRA / "runs" / "attention.yaml"), "--data", "/a", "--output", "/o"]
    )
    plain, *attended = (config.make_detector_config(name, seed=0).model_dump() for name in config.variants)
    default = get_preset(DEFAULT_VARIANT).model_dump()
    assert {name for name in plain if plain[name] != default[name]} == {"variant", "precision"}
    assert config.optimizer == OptimizerConfig.model_validate(PRESET_OPTIMIZERS[DEFAULT_VARIANT])
    for one in attended:
        assert {name for name in plain if plain[name] != one[name]} == {"variant", "attention", "attention_training"}
    assert [sorted((stage, block["kind"]) for stage, block in one["attention"].items()) for one in attended] == [
        [("layer2", kind), ("layer3", kind)] for kind in ("se", "cbam")
    ]


def test_the_search_of_the_readme_needs_nothing_but_photos_and_a_place() -> None:
    flags = ["--config", str(INFRA / "runs" / "search.yaml"), "--data", "/d", "--category", "c", "--results", "/r"]
    config = parse_config(SearchConfig, flags)
    check_space(read_space(config))
    assert config.detector.weights.startswith("weights/")


COMMANDS: dict[str, tuple[type[BaseModel], list[str]]] = {
    "attention.yaml": (ComparisonConfig, ["--data", "/a,/b", "--confirm", "b", "--output", "/o"]),
    "comparison.yaml": (ComparisonConfig, ["--data", "/a,/b", "--output", "/o"]),
    "peers.yaml": (ComparisonConfig, ["--data", "/a,/b", "--output", "/o"]),
    "recipes.yaml": (ComparisonConfig, ["--data", "/a,/b,/c", "--output", "/o"]),
    "tiles.yaml": (ComparisonConfig, ["--data", "/a", "--output", "/o"]),
    "score.yaml": (ScoreConfig, ["--run-id", "night"]),
    "search.yaml": (SearchConfig, ["--data", "/d", "--category", "c", "--results", "/r"]),
    "search-fleet.yaml": (SearchConfig, []),
    "train.yaml": (TrainConfig, ["--category", "insulator"]),
    "train-fleet.yaml": (TrainConfig, []),
}


def test_every_configuration_of_a_run_has_its_command_here() -> None:
    assert {path.name for path in (INFRA / "runs").iterdir()} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_configuration_of_a_run_is_accepted_by_its_command(name: str) -> None:
    config_class, flags = COMMANDS[name]
    config = parse_config(config_class, ["--config", str(INFRA / "runs" / name), *flags])
    if isinstance(config, ComparisonConfig):
        assert all(config.make_detector_config(variant, seed=0) for variant in config.variants)
    if isinstance(config, SearchConfig):
        check_space(read_space(config))
