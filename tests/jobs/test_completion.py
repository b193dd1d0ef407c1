"""The completion script, as bash itself uses it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from jobs.__main__ import COMMANDS
from jobs.cli import completion


@pytest.fixture(scope="module")
def words() -> dict[str, list[str]]:
    """What may follow each command."""
    return completion.list_words()


def complete(script: str, *line: str) -> list[str]:
    """Returns what bash offers for the last word of a line."""
    quoted = " ".join(f"'{word}'" for word in line)
    asked = f"{script}\nCOMP_WORDS=({quoted}); COMP_CWORD={len(line) - 1}\n_attentdiffernet\n"
    ran = subprocess.run(["bash", "-c", asked + 'printf "%s\\n" "${COMPREPLY[@]}"'], capture_output=True, text=True)
    assert ran.stderr == ""
    return ran.stdout.split()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_sub_commands_and_flags(words: dict[str, list[str]]) -> None:
    script = completion.format_bash(words, is_zsh=False)
    assert {"recalibrate", "registry"} <= set(complete(script, "attentdiffernet", "re")) < set(COMMANDS)
    assert complete(script, "attentdiffernet", "registry", "ro") == ["rollback"]
    assert complete(script, "attentdiffernet", "registry", "show", "--na") == ["--name"]
    assert complete(script, "attentdiffernet", "score", "--scoring.max-a") == ["--scoring.max-actors"]
    assert complete(script, "attentdiffernet", "score", "--archive", "s3://") == []


@pytest.mark.slow
def test_every_command_has_words_in_every_shell(words: dict[str, list[str]]) -> None:
    assert {name for name, found in words.items() if " " not in name and found} == set(COMMANDS)
    fish = completion.format_fish(words)
    assert '-n "__fish_seen_subcommand_from score" -l archive' in fish
    assert completion.format_bash(words, is_zsh=True).startswith("autoload -U +X compinit")
