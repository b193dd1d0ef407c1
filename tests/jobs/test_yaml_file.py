"""What a file of fields gets wrong is one line that names it, and never silently something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from jobs.cli import parse_config
from jobs.errors import RequestError
from jobs.scoring.config import ScoreConfig

_SCORE = ["--archive", "s3://b/a", "--detectors", "s3://b/d", "--results", "s3://b/r", "--run-id", "n"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("top: 3\ntop: 4", r"line 1 on gives top twice: leave one of them"),
        ("alias: x\nscoring:\n  actors: 2\n  actors: 3\n", r"line 3 on gives actors twice"),
        ("run-id: x", r"run-id: no such field; did you mean run_id\?"),
        ("scoring.actors: 2", r"scoring.actors: no such field; write actors as a field below scoring:"),
        ("scoring: {actor: 2}", r"scoring.actor: no such field; did you mean scoring.actors\?"),
        ("# nothing yet", "expected a mapping of fields, got nothing"),
        ("a: &x [*x]", "not YAML: found unconstructable recursive node"),
        (f"top: {'9' * 30}", r"--top: expected a whole number below 2\^63, got 9{30}"),
        ("retry_hours: .inf", r"--retry-hours: input should be a finite number, got inf"),
        (f"alias: [{', '.join('x' * 500)}]", r"--alias: input should be a valid string, got \[.{,80}, \.\.\.\]"),
    ],
)
def test_a_file_s_mistake_is_one_line_that_names_it(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "fields.yaml"
    file.write_text(text)
    with pytest.raises(RequestError, match=said):
        parse_config(ScoreConfig, ["--config", str(file), *_SCORE])


def test_anchors_merged_mappings_and_a_byte_order_mark_are_yaml(tmp_path: Path) -> None:
    file = tmp_path / "fields.yaml"
    file.write_text(
        "\ufeffscoring: {<<: &base {actors: 2, fetch_concurrency: 4}, actors: 3}\ninclude: [&a '*.jpg', *a]"
    )
    config = parse_config(ScoreConfig, ["--config", str(file), *_SCORE])
    assert (config.scoring.actors, config.scoring.fetch_concurrency) == (3, 4)
    assert config.include == ["*.jpg", "*.jpg"]


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--config="], "--config: expected a file, got '': perhaps a variable of the shell is empty"),
        (["--config", "a.yaml", "--config", "b.yaml"], "--config is given 2 times: put all fields into one file"),
        (["--scoring", "{bad"], "--scoring takes JSON or its single fields: Expecting property name"),
        (["--max-attempts", str(2**63)], r"--max-attempts: expected a whole number below 2\^63"),
        (["--scoring.actors", str(2**70)], r"--scoring.actors: expected a whole number below 2\^63"),
        (["--retry-hours", "inf"], "--retry-hours: input should be a finite number"),
        (["--scoring.decode-timeout-s", "inf"], "--scoring.decode-timeout-s: input should be a finite number"),
    ],
)
def test_what_flags_get_wrong_is_refused_and_not_dropped(argv: list[str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        parse_config(ScoreConfig, [*_SCORE, *argv])
