"""Command lines: a user's mistake is one clear line and exit code 2, before any cluster work."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import pytest

from jobs import __main__ as front_door
from jobs import demo, pretext_sheet
from jobs.cli import parse_config, run_command
from jobs.detectors.config import ListConfig
from jobs.errors import RequestError
from jobs.evaluation.config import EvaluateConfig
from jobs.scoring.config import ScoreConfig
from jobs.training.config import TrainConfig
from jobs.training.planning import make_unit_config
from model.presets import DEFAULT_VARIANT, get_preset
from tests.support.places import ROOT

SCORE = ["--archive", "s3://a/b", "--detectors", "s3://d", "--results", "out", "--run-id", "night-1"]
TRAIN = ["--data", "s3://a/b", "--category", "insulator", "--detectors", "s3://d"]


def _refuse(config_class: type, argv: list[str]) -> str:
    with pytest.raises(RequestError, match=r"\A.+\Z") as caught:
        parse_config(config_class, argv)
    message = str(caught.value)
    assert caught.value.exit_code == 2
    return message


def test_flags_make_a_config_and_plain_paths_become_file_uris() -> None:
    config = parse_config(ScoreConfig, [*SCORE, "--scoring.actors", "3", "--false-alarm-rate", "0.01"])
    assert config.archive == "s3://a/b"
    assert config.results == f"file://{Path('out').absolute()}"
    assert config.scoring.actors == 3
    assert config.false_alarm_rate == 0.01


def test_a_yaml_file_gives_fields_and_flags_win(tmp_path: Path) -> None:
    file = tmp_path / "score.yaml"
    file.write_text(
        "archive: s3://yaml\ndetectors: s3://d\nresults: s3://r\nrun_id: y\nscoring: {actors: 2, batch_photos: 8}\n"
    )
    config = parse_config(ScoreConfig, ["--config", str(file), "--run-id", "flag", "--scoring.actors", "5"])
    assert (config.archive, config.run_id) == ("s3://yaml", "flag")
    assert (config.scoring.actors, config.scoring.batch_photos) == (5, 8)


def test_a_variant_is_a_preset_and_detector_fields_change_it() -> None:
    config = parse_config(TrainConfig, [*TRAIN, "--variant", "attentdiffernet_cbam", "--detector.flow.blocks", "2"])
    assert config.detector.variant == "attentdiffernet_cbam"
    assert {block.kind for block in config.detector.attention.values()} == {"cbam"}
    assert (config.detector.flow.blocks, config.detector.flow.hidden_width) == (2, 2048)


def test_the_old_spelling_of_a_field_is_taken_in_yaml_and_as_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "train.yaml"
    file.write_text("optimiser: {epochs: 7, batch_size: 5}\n")
    config = parse_config(TrainConfig, ["--config", str(file), *TRAIN, "--optimiser.epochs", "1"])
    assert (config.optimizer.epochs, config.optimizer.batch_size) == (1, 5)
    assert parse_config(TrainConfig, [*TRAIN, "--optimiser.batch-size=9"]).optimizer.batch_size == 9


def test_attention_given_replaces_the_preset_s_placement() -> None:
    config = parse_config(
        TrainConfig, [*TRAIN, "--variant", "attentdiffernet_se", "--detector.attention", '{"conv3": {"kind": "se"}}']
    )
    assert list(config.detector.attention) == ["conv3"]


def test_a_training_without_a_variant_takes_the_default_preset_and_its_epochs() -> None:
    config = parse_config(TrainConfig, TRAIN)
    assert (config.detector, config.optimizer.epochs) == (get_preset(DEFAULT_VARIANT), 1)
    assert parse_config(TrainConfig, [*TRAIN, "--optimizer.epochs", "30"]).optimizer.epochs == 30


def test_each_variant_of_a_fleet_has_its_own_epochs() -> None:
    config = parse_config(TrainConfig, [*TRAIN, "--variants", "differnet_fast,differnet"])
    assert [config.make_optimizer_config(name).epochs for name in config.asked_variants] == [12, 192]


def test_a_fleet_may_have_a_variant_for_which_attention_learns_nothing() -> None:
    flags = ["--variants", "attentdiffernet_se,differnet", "--detector.attention-training", "joint"]
    config = parse_config(TrainConfig, [*TRAIN, *flags])
    for variant, training in (("attentdiffernet_se", "joint"), ("differnet", "frozen")):
        unit = make_unit_config(config, "insulator", variant=variant, seed=0)
        assert unit.detector.attention_training == training


def test_attention_given_to_a_preset_without_any_is_trained() -> None:
    flags = ["--variant", "differnet", "--detector.attention", '{"conv3": {"kind": "cbam"}}']
    assert parse_config(TrainConfig, [*TRAIN, *flags]).detector.attention_training == "pretext"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (SCORE[:-2], "--run-id is required"),
        ([*SCORE, "--archiv", "x"], "--archiv"),
        ([*SCORE, "--false-alarm-rate", "2"], "--false-alarm-rate"),
        ([*SCORE, "--run-id", "a/b"], "--run-id"),
        ([*SCORE, "--archive", "ftp://x"], "s3://, gs://, az://"),
        ([*SCORE, "--key-pattern", "(?P<kategorie>.)"], "category"),
        ([*SCORE, "--key-pattern", "(("], "regular expression"),
        ([*SCORE, "--config", "/nowhere.yaml"], "No such file"),
        ([*SCORE, "--config"], "--config"),
    ],
)
def test_a_wrong_score_request_names_the_field(argv: list[str], said: str) -> None:
    assert said in _refuse(ScoreConfig, argv)


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (
            [*TRAIN, "--variant", "attentdiffernet_xx"],
            "gaussian_resnet18, differnet_fast, differnet, attentdiffernet_se",
        ),
        ([*TRAIN, "--variant", "differnet", "--detector.attention", '{"pool9": {"kind": "se"}}'], "no stage 'pool9'"),
        ([*TRAIN, "--detector.attention", '{"pool1": {"kind": "xx"}}'], "'se', 'cbam' or 'eca'"),
        ([*TRAIN, "--detector.image-size", "100", "--detector.scales", "4"], "image_size"),
        ([*TRAIN, "--variant", "differnet", "--detector.image-size", "224"], "the smallest is 252"),
        ([*TRAIN, "--workers", "30"], "batch_size"),
        ([*TRAIN, "--detector.attention-training", "pretext"], "needs attention, which gaussian_resnet18 has not"),
        ([*TRAIN, "--detector.backbone", "squeezenet1_0"], "squeezenet1_0 was removed"),
    ],
)
def test_a_wrong_training_request_says_what_was_expected(argv: list[str], said: str) -> None:
    assert said in _refuse(TrainConfig, argv)


@pytest.mark.parametrize(
    ("text", "said"),
    [("runid: x", "runid: no such field"), ("- a", "mapping"), ("a: [", "not YAML"), ("scoring: 3", "scoring")],
)
def test_a_config_file_s_mistake_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    assert said in _refuse(ScoreConfig, ["--config", str(file), *SCORE])


@pytest.mark.parametrize("command", ["score", "train", "evaluate", "manifest", "comparison", "recalibrate"])
def test_help_lists_the_fields_and_exits_0(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"jobs.{command}", "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"python -m jobs.{command}" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [demo, pretext_sheet])
def test_help_of_the_other_commands_exits_0(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match=r"^0$"):
        command.main(["--help"])
    assert f"python -m {command.__name__}" in capsys.readouterr().out


def test_help_begins_with_what_the_command_does_an_example_and_what_it_needs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_config(ScoreConfig, ["--help"], prog="attentdiffernet score")
    said = capsys.readouterr().out
    places = [said.index(part) for part in ("Score an archive", "example: attentdiffernet score", "required:")]
    assert places == sorted(places)
    assert said.index("--run-id TEXT") < said.index("optional:") < said.index("--alias TEXT")
    assert "--scoring.actors" not in said
    assert len(said.splitlines()) < 75


def test_all_settings_are_in_the_long_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        parse_config(TrainConfig, ["--help-all"], prog="attentdiffernet train")
    said = capsys.readouterr().out
    assert {"--detector.flow.blocks N", "--optimizer.epochs N"} <= {
        line.split("  ")[1] for line in said.splitlines() if line.startswith("  --")
    }


@pytest.mark.parametrize(("typo", "meant"), [("--dta", "--data"), ("--categry=x", "--category")])
def test_a_typo_is_answered_with_the_flag_that_was_meant(typo: str, meant: str) -> None:
    assert f"did you mean {meant}?" in _refuse(TrainConfig, [*TRAIN, typo])


@pytest.mark.parametrize("given", ["--archive=~/photos", "--config"])
def test_the_home_folder_is_known_where_no_shell_expands_it(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "score.yaml").write_text("archive: ~/photos\n")
    argv = [*SCORE[2:], *(["--config", "~/score.yaml"] if given == "--config" else [given])]
    assert parse_config(ScoreConfig, argv).archive == f"file://{tmp_path}/photos"


@pytest.mark.parametrize(
    ("given", "meant"),
    [("true", ["true"]), ("007,1.10", ["007", "1.10"]), ("null, nan", ["null", "nan"]), ('["a", "1"]', ["a", "1"])],
)
@pytest.mark.parametrize("glue", [" ", "="])
def test_names_that_look_like_values_are_names_in_every_list_flag(given: str, meant: list[str], glue: str) -> None:
    flag = ["--categories", given] if glue == " " else [f"--categories={given}"]
    assert parse_config(ListConfig, ["--detectors", "/d", *flag]).categories == meant


def test_names_that_yaml_takes_for_values_are_names(tmp_path: Path) -> None:
    file = tmp_path / "evaluate.yaml"
    file.write_text(
        "data: /d\ndetectors: /d\ncategories: [no, true, 007, 1.10]\nvariants: differnet,on\n"
        "seeds: 2\noutput: null\nscoring: {use_gpu: true, actors: 3}\n"
    )
    config = parse_config(EvaluateConfig, ["--config", str(file)])
    assert config.categories == ["no", "true", "007", "1.10"]
    assert (config.variants, config.output) == (["differnet", "on"], None)
    assert (config.seeds, config.scoring.use_gpu, config.scoring.actors) == (2, True, 3)
    file.write_text("data: /d\ndetectors: /d\nalias: 2026\n")
    assert parse_config(EvaluateConfig, ["--config", str(file)]).alias == "2026"


@pytest.mark.parametrize("flag", ["--results", "--archive", "--detectors"])
def test_a_submitted_job_takes_no_relative_path(flag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ["--archive", "s3://a", "--detectors", "/mnt/d", "--results", "~/r", "--run-id", "n"]
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    parse_config(ScoreConfig, request)
    said = _refuse(ScoreConfig, [*request, flag, "results"])
    assert f"{flag}: a submitted job runs in a temporary folder of the cluster, where 'results' would be lost" in said


def test_a_submitted_job_reads_the_configuration_that_was_uploaded_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its working directory is what `--working-dir .` sent, so the path that the docs give is a relative one."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "score.yaml").write_text("archive: s3://a\ndetectors: s3://d\nresults: s3://r\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    assert parse_config(ScoreConfig, ["--config", "runs/score.yaml", "--run-id", "n"]).archive == "s3://a"


def test_the_front_door_lists_every_command_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert front_door.main([]) == 0
    said = capsys.readouterr().out
    assert [name for name in front_door.COMMANDS if f"\n  {name} " not in said] == []
    assert [name for name, (module, _) in front_door.COMMANDS.items() if find_spec(module) is None] == []


def test_the_front_door_runs_a_command_and_tells_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        front_door.main(["search", "--help"])
    assert front_door.main(["--version"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith("attentdiffernet ")


def test_the_version_of_a_checkout_run_in_place_is_not_installed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def find_no_package(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", find_no_package)
    assert front_door.main(["--version"]) == 0
    assert capsys.readouterr().out == "attentdiffernet not installed\n"


@pytest.mark.parametrize(("typo", "said"), [("scor", "did you mean score?"), ("xyz", "expected one of score, train")])
def test_an_unknown_command_is_refused_with_those_that_there_are(typo: str, said: str) -> None:
    with pytest.raises(RequestError, match=re.escape(said)):
        front_door.main([typo])


@pytest.mark.parametrize(
    ("blocked", "said"), [("yaml", "lacks yaml: install this project"), ("ray", "lacks ray: install this project")]
)
def test_a_missing_dependency_is_one_line(blocked: str, said: str, tmp_path: Path) -> None:
    # A finder that comes first, as if the library were not there.
    code = (
        "import sys, runpy\n"
        "class Gone:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {blocked!r}: raise ModuleNotFoundError('gone', name=name)\n"
        "sys.meta_path.insert(0, Gone())\n"
        "runpy.run_module('jobs.score', run_name='__main__')"
    )
    argv = [sys.executable, "-c", code, "--archive", "a", "--detectors", "d", "--results", "r", "--run-id", "x"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_module_that_hides_a_package_of_ours_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.py").touch()
    argv = [sys.executable, "-m", "jobs.score", "--help"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, cwd=tmp_path, env=environment)
    assert done.returncode == 1
    assert f"error: {tmp_path}/model.py hides our package model" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_key_that_the_terminal_cannot_write_ends_no_command(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", terminal)

    def print_key(argv: Sequence[str]) -> int:
        print("caf\u00e9/\u5de5\u5382.jpg \u2192")
        return 0

    with pytest.raises(SystemExit, match=r"^0$"):
        run_command(print_key)
    assert terminal.buffer.getvalue().decode("latin-1") == "caf\u00e9/\\u5de5\\u5382.jpg \\u2192\n"


def test_an_interrupted_run_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(argv: Sequence[str]) -> int:
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match=r"^1$"):
        run_command(interrupted)
    assert "the same command continues" in capsys.readouterr().err


def test_a_wrong_flag_on_the_real_command_line_exits_2_with_one_line() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobs.score", *SCORE, "--zzz", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == ["error: unrecognized arguments: --zzz 1; see --help"]


@pytest.mark.slow
def test_a_missing_local_archive_exits_2_before_any_cluster_work(tmp_path: Path) -> None:
    argv = [
        "--archive",
        str(tmp_path / "none"),
        "--detectors",
        str(tmp_path),
        "--results",
        str(tmp_path),
        "--run-id",
        "x",
    ]
    environment = os.environ | {"RAY_ADDRESS": "203.0.113.1:1"}  # any cluster work would fail on this address
    done = subprocess.run(
        [sys.executable, "-m", "jobs.score", *argv], capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no photo in file://")
    assert len(done.stderr.splitlines()) == 1
