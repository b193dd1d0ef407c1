"""The search space: conditional, every sample a valid detector, the papers' models its first configurations."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from jobs.cli import parse_config
from jobs.errors import RequestError
from model.config import BACKBONE_STAGES, DetectorConfig, OptimizerConfig
from model.network.attention import ATTENTION
from model.presets import PRESETS, get_preset
from tuning.config import SearchConfig
from tuning.space.config import Range, SpaceConfig, contains
from tuning.space.presets import build_presets
from tuning.space.space import Configuration, SearchSpace, build_space, check_space, choose, suggest

BACKBONES = ("alexnet", "alexnet_caffe")


def make_base(**detector: Any) -> Configuration:
    fields = {"weights": "random", "train_angles": "scoring", **detector}
    return Configuration(DetectorConfig.model_validate(fields), OptimizerConfig())


def suggest_at_random(space: SearchSpace, *, seed: int) -> tuple[optuna.Trial, Configuration]:
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed)).ask()
    return trial, suggest(trial, space)


@st.composite
def spaces(draw: st.DrawFn) -> SearchSpace:
    """A space narrowed at random, on any backbone."""
    backbone = draw(st.sampled_from(BACKBONES))
    stages = list(BACKBONE_STAGES[backbone])

    def some(values: list[Any]) -> Any:
        return draw(st.one_of(st.sampled_from(values), st.lists(st.sampled_from(values), min_size=1, unique=True)))

    trainings = some(["pretext", "joint", "frozen"])
    scalings = ["none", "global", "channel"] if "joint" in trainings else ["none", "global", "channel", "whiten"]
    space = SpaceConfig(
        attended=some([False, True]),
        kinds=some(["none", "se", "cbam", "eca"]),
        stages=some(stages),
        feature_stage=some([None, *stages]),
        attention_training=trainings,
        feature_scaling=some(scalings),
        image_size=some([256, 512]),
        scales=some([1, 2, 3]),
        views=some([1, 2, 4, 16]),
        train_views=some([1, 2, 4]),
        flow_blocks=draw(st.sampled_from([3, Range(low=1, high=8), [2, 4]])),
        flow_clamp=draw(st.sampled_from([3.0, Range(low=0.5, high=4.0, log=True)])),
    )
    return build_space(space, make_base(backbone=backbone))


@settings(max_examples=150, deadline=None)
@given(spaces(), st.integers(0, 2**31))
@pytest.mark.slow
def test_every_sample_of_every_space_is_a_detector_that_survives_json(space: SearchSpace, seed: int) -> None:
    check_space(space)
    _, configuration = suggest_at_random(space, seed=seed)
    assert DetectorConfig.model_validate_json(configuration.detector.model_dump_json()) == configuration.detector
    assert OptimizerConfig.model_validate_json(configuration.optimizer.model_dump_json()) == configuration.optimizer


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31))
def test_a_parameter_exists_only_where_it_has_an_effect(seed: int) -> None:
    trial, configuration = suggest_at_random(build_space(SpaceConfig(), make_base()), seed=seed)
    blocks = {
        name.split(".")[1] for name in trial.params if name.startswith("attention.") and name.endswith("reduction")
    }
    assert blocks == {
        stage for stage, block in configuration.detector.attention.items() if "reduction" in ATTENTION[block.kind][1]
    }
    kernels = {name.split(".")[1] for name in trial.params if name.endswith("spatial_kernel")}
    assert kernels == {stage for stage, block in configuration.detector.attention.items() if block.kind == "cbam"}
    assert ("pretext_steps" in trial.params) == bool(configuration.detector.attention)


def test_one_study_takes_samples_of_the_whole_space() -> None:
    """Optuna refuses a parameter whose choices change: names of dependent dimensions must differ."""
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0, n_startup_trials=5))
    space, kinds = build_space(SpaceConfig(attention_training=["pretext", "joint"]), make_base()), set()
    for number in range(60):
        trial = study.ask()
        configuration = suggest(trial, space)
        kinds |= {block.kind for block in configuration.detector.attention.values()}
        study.tell(trial, number % 7)
    assert kinds == {"se", "cbam", "eca"}


def test_the_presets_are_configurations_of_the_default_space() -> None:
    space = build_space(SpaceConfig(), make_base())
    known = build_presets(space)
    assert [one.name for one in known] == list(PRESETS)
    for one in known:
        expected = get_preset(one.name).model_copy(update={"weights": "random", "train_angles": "scoring"})
        assert one.configuration.detector.attention == expected.attention
        assert one.configuration.detector.flow == expected.flow
        assert one.configuration.detector.feature_stage == expected.feature_stage
        study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
        study.enqueue_trial({**one.parameters, "views": 16, "train_views@16": 4, "feature_scaling": "whiten"})
        again = suggest(study.ask(), space).detector
        assert again.attention == one.configuration.detector.attention
        assert again.pooling == one.configuration.detector.pooling


def test_a_preset_stays_whole_in_a_space_that_was_narrowed_to_leave_it_out() -> None:
    space = SpaceConfig(kinds=["none", "eca"], stages=["conv3"], pooling="average", flow_blocks=[2, 3])
    known = {one.name: one for one in build_presets(build_space(space, make_base()))}
    cbam = known["attentdiffernet_cbam"]
    assert cbam.configuration.detector.attention == get_preset(cbam.name).attention
    assert known["attentdiffernet_best"].configuration.detector.pooling == "average_max"
    assert not [name for name in cbam.parameters if name.startswith("attention.")]


@pytest.mark.parametrize("narrowed", [{}, {"kinds": ["none", "eca"], "pooling": "average", "views": [1, 64]}])
def test_a_study_learns_of_a_preset_what_its_space_has(narrowed: dict[str, Any]) -> None:
    space = build_space(SpaceConfig.model_validate(narrowed), make_base())
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for one in build_presets(space):
        study.enqueue_trial(dict(one.parameters))
        trial = study.ask()
        assert one.suggest(trial) == one.configuration
        assert trial.params == one.parameters
    suggest(study.ask(), space)  # no parameter's values have changed, or Optuna would refuse


def test_a_fixed_dimension_holds_for_presets_that_do_not_set_it() -> None:
    known = build_presets(build_space(SpaceConfig(image_size=256, flow_blocks=2), make_base()))
    assert {one.configuration.detector.image_size for one in known} == {256}
    assert [one.configuration.detector.flow.blocks for one in known] == [2, 2, 2, 6]  # the last one's flow is its own


@pytest.mark.parametrize(
    ("narrowed", "message"),
    [
        ({"kinds": ["none", "sse"]}, "space.kinds: expected some of none, se, cbam, eca, got 'sse'"),
        ({"stages": ["fire2"]}, "space.stages: expected some of pool1"),
        ({"image_size": [224], "scales": [3]}, "space.scales: none of"),
        ({"attention_training": "joint", "feature_scaling": "whiten"}, "joint needs another one than whiten"),
        ({"flow_dropout": [0.1, 1.5]}, "dropout"),
    ],
)
def test_a_space_without_sense_is_refused_before_any_trial(narrowed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_space(build_space(SpaceConfig.model_validate(narrowed), make_base()))


def test_dimensions_are_read_from_yaml_and_from_flags(tmp_path: Path) -> None:
    given_yaml = {"space": {"flow_blocks": {"low": 2, "high": 4}, "scales": [1, 2], "flow_clamp": 1.5}}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(given_yaml))
    flags = ["--data", "/d", "--category", "c", "--results", "/r", "--config", str(tmp_path / "search.yaml")]
    flags += ["--space.image-size", "256", "--space.kinds", "none,eca", "--space.scales", "[1]"]
    flags += ["--space.learning-rate", "{low: 1.0e-4, high: 1.0e-3, log: true}", "--space.feature-stage", "null,conv4"]
    space = parse_config(SearchConfig, flags).space
    assert space.flow_blocks == Range(low=2, high=4)
    assert (space.image_size, space.kinds, space.scales, space.flow_clamp) == ([256], ["none", "eca"], [1], 1.5)
    assert space.learning_rate == Range(low=1e-4, high=1e-3, log=True)
    assert space.feature_stage == [None, "conv4"]


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--space.flow-blocks", "{low: 4, high: 2}", "expected low < high, got 4 and 2"),
        ("--space.flow-blocks", "[[1, 2]]", "expected one value, a list of values, or low, high, step and log"),
        ("--space.flow-block", "2", "unrecognized"),
        ("--presets", "differnet,none", "presets: expected some of differnet"),
        ("--objective", "seed_agreement", "seed_agreement needs seeds_per_trial of 2 or more"),
        ("--trackers", "tensorboard", "trackers: expected mlflow or wandb, got 'tensorboard'"),
    ],
)
def test_a_wrong_flag_is_told_in_one_line(flag: str, value: str, message: str) -> None:
    with pytest.raises(RequestError, match=re.escape(message)) as caught:
        parse_config(SearchConfig, ["--data", "/d", "--category", "c", "--results", "/r", flag, value])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong",
    [{"low": 2, "high": 2}, {"low": 0, "high": 1, "log": True}, {"low": 0, "high": 1, "step": 0.3}],
)
def test_a_range_without_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=r"low|step"):
        Range.model_validate(wrong)


@pytest.mark.parametrize(
    ("dimension", "inside", "outside"),
    [
        (Range(low=2, high=8, step=2), 6, 5),
        (Range(low=2, high=8), 3, 3.5),
        (Range(low=0.5, high=1.5, step=0.5), 1.0, 1.2),
        (Range(low=1e-4, high=1e-2, log=True), 5e-3, 0.1),
        ([1, 2], 1, True),
        ([None, "conv4"], None, "conv3"),
        (3, 3, 4),
    ],
)
def test_a_dimension_knows_its_values(dimension: Any, inside: Any, outside: Any) -> None:
    assert contains(dimension, inside)
    assert not contains(dimension, outside)
    assert contains(dimension, choose(optuna.create_study().ask(), "name", dimension))
