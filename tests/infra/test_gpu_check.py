"""The script that checks a GPU, without one: its commands are read by their parsers, its steps run with a stand-in."""

from __future__ import annotations

import importlib
import os
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel

from jobs import benchmark, cli
from tests.support.places import ROOT
from tests.support.scripts import check_bash

SCRIPT = ROOT / "infra" / "gpu-check.sh"
FAILING = """#!/bin/sh
echo "$*"
case "$*" in
  *"-m pytest "*) exit 1 ;;
  *"benchmark reproduction "*) echo "no such photo" >&2; exit 2 ;;
esac
"""


def list_commands() -> list[list[str]]:
    """Words of every command that the script would run."""
    done = subprocess.run([SCRIPT, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60)
    return [shlex.split(line) for line in done.stdout.splitlines()]


def run_with(stand_in: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs the script in an empty folder, with a stand-in for Python and nvidia-smi."""
    for name in ("python", "nvidia-smi"):
        (folder / name).write_text(stand_in)
        (folder / name).chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name not in ("DATA", "WEIGHTS")}
    environment |= {"PYTHON": str(folder / "python"), "PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        [SCRIPT], cwd=folder, capture_output=True, text=True, check=False, env=environment, timeout=60
    )


def test_the_script_is_right_bash() -> None:
    check_bash(SCRIPT)


def test_every_command_of_ours_is_accepted_by_its_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[BaseModel] = []
    real = cli.parse_config

    def parse_and_stop(config_class: type[BaseModel], argv: Sequence[str], *, prog: str) -> BaseModel:
        read.append(real(config_class, argv, prog=prog))
        raise SystemExit

    modules = [words[words.index("-m") + 1 :] for words in list_commands() if "-m" in words]
    ours = [words for words in modules if words[0].startswith("jobs.")]
    for module, *arguments in ours:
        command = importlib.import_module(module)
        monkeypatch.setattr(command, "parse_config", parse_and_stop)
        with pytest.raises(SystemExit, match=r"^$"):
            command.main(arguments)
    assert len(read) == len(ours) == 5
    assert {words[1] for words in ours if words[0] == "jobs.benchmark"} <= set(benchmark.BENCHMARKS)


def test_the_tests_that_it_runs_are_there() -> None:
    (words,) = [words for words in list_commands() if "pytest" in words]
    assert "pytest.mark.gpu" in (ROOT / words[-1]).read_text()


def test_all_steps_together_are_done_within_ten_minutes() -> None:
    limits = [int(words[1]) for words in list_commands() if words[0] == "timeout"]
    assert len(limits) == len(list_commands())
    assert sum(limits) <= 600


def test_a_failed_step_is_said_and_the_others_go_on(tmp_path: Path) -> None:
    done = run_with(FAILING, tmp_path)
    assert done.returncode == 1
    summary = done.stdout.rsplit("\n\n", 1)[1].splitlines()
    assert [line.split()[0] for line in summary] == ["ok", "ok", "FAILED", "ok", "ok", "ok", "FAILED", "ok"]
    assert summary[6].startswith("FAILED  reproduction: exit code 2, see ")
    assert "no such photo" in done.stdout


def test_a_machine_on_which_every_step_works_is_told_so(tmp_path: Path) -> None:
    done = run_with("#!/bin/sh\necho '[device]'", tmp_path)
    assert done.returncode == 0
    assert "FAILED" not in done.stdout


def test_a_step_that_hangs_is_ended(tmp_path: Path) -> None:
    quick = tmp_path / "timeout"
    quick.write_text('#!/bin/sh\nshift 2\nexec /usr/bin/timeout --kill-after=1 1 "$@"\n')
    quick.chmod(0o755)
    done = run_with('#!/bin/sh\ncase "$*" in *"-m pytest "*) exec sleep 30 ;; esac\n', tmp_path)
    assert done.returncode == 1
    assert "FAILED  tests: not done after 150 s" in done.stdout


def test_an_unknown_flag_is_answered_with_the_usage() -> None:
    done = subprocess.run([SCRIPT, "--help"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "--dry-run" in done.stderr
