"""Fields that a mode does not read are refused by name, in every command that has such modes."""

from __future__ import annotations

import pytest

from jobs.cli import parse_config
from jobs.config import JobConfig
from jobs.datasets.config import CheckDatasetConfig
from jobs.detectors.config import ListConfig, RecalibrateConfig
from jobs.errors import RequestError
from jobs.evaluation.comparison_config import ComparisonConfig
from jobs.evaluation.config import EvaluateConfig
from jobs.scoring.config import ScoreConfig

SCORE = ["--archive", "s3://a", "--detectors", "s3://d", "--results", "s3://r", "--run-id", "night"]
JUDGED = ["--verdicts", "s3://r", "--run-id", "night"]
LABELLED = ["--data", "s3://a", "--detectors", "s3://d"]
RECALIBRATED = ["--verdicts", "s3://r", "--category", "pole", "--detectors", "s3://d"]

CASES = [
    (ScoreConfig, [*SCORE, "--local"], ["--scoring.actors", "2"]),
    (ScoreConfig, [*SCORE, "--local"], ["--scoring.max-actors", "2"]),
    (ScoreConfig, [*SCORE, "--local"], ["--scoring.batch-photos", "2"]),
    (ScoreConfig, [*SCORE, "--local", "--scoring.use-gpu"], ["--scoring.gpus-per-actor", "0.5"]),
    (EvaluateConfig, JUDGED, ["--categories", "pole"]),
    (EvaluateConfig, JUDGED, ["--output", "s3://o"]),
    (EvaluateConfig, JUDGED, ["--scoring.actors", "2"]),
    (EvaluateConfig, LABELLED, ["--seeds", "3"]),
    (EvaluateConfig, [*LABELLED, "--variants", "differnet"], ["--alias", "candidate"]),
    (RecalibrateConfig, RECALIBRATED, ["--include", "*.jpg"]),
    (RecalibrateConfig, RECALIBRATED, ["--exclude", "*.jpg"]),
    (ListConfig, ["--detectors", "s3://d", "--output", "s3://o/list.parquet"], ["--format", "json"]),
    (ComparisonConfig, ["--data", "s3://a", "--output", "s3://o"], ["--false-alarm-rate", "0.01"]),
    (CheckDatasetConfig, ["--layout", "visa", "--source", "s3://a"], ["--train-list", "s3://a/list.txt"]),
    (CheckDatasetConfig, ["--layout", "visa", "--source", "s3://a"], ["--test-share", "0.5"]),
    (CheckDatasetConfig, ["--layout", "folders", "--source", "s3://a"], ["--category", "pole"]),
]


@pytest.mark.parametrize(
    ("config", "mode", "ignored"),
    CASES,
    ids=[f"{config.__name__} {ignored[0]}{number}" for number, (config, _, ignored) in enumerate(CASES)],
)
def test_a_field_that_the_mode_does_not_read_is_refused_by_its_flag(
    config: type[JobConfig], mode: list[str], ignored: list[str]
) -> None:
    parse_config(config, mode)
    with pytest.raises(RequestError, match=f"{ignored[0]} would change nothing with"):
        parse_config(config, [*mode, *ignored])


def test_what_the_other_modes_read_is_taken() -> None:
    parse_config(ScoreConfig, [*SCORE, "--scoring.actors", "2", "--scoring.batch-photos", "8"])
    parse_config(ScoreConfig, [*SCORE, "--local", "--scoring.fetch-concurrency", "4"])
    parse_config(EvaluateConfig, [*LABELLED, "--variants", "differnet", "--seeds", "3"])
    parse_config(
        CheckDatasetConfig, ["--layout", "list", "--source", "s3://a/l.csv", "--category", "pole", "--seed", "1"]
    )


def test_several_are_named_together_and_a_default_given_by_name_is_no_fault() -> None:
    parse_config(ScoreConfig, [*SCORE, "--local", "--scoring.actors", "null"])
    with pytest.raises(RequestError, match=r"--scoring\.actors, --scoring\.max-actors would change nothing"):
        parse_config(ScoreConfig, [*SCORE, "--local", "--scoring.actors", "2", "--scoring.max-actors", "3"])
