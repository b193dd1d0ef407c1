"""Command: print a script with which a shell completes the commands and flags of ``attentdiffernet``.

``source <(attentdiffernet completion --shell bash)``
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout, suppress
from typing import Literal

from pydantic import Field

from jobs.__main__ import COMMANDS
from jobs.cli import parse_config, run_command
from jobs.config import JobConfig
from jobs.errors import EXIT_DONE

_FLAG = re.compile(r"^  --(\[no-\])?([\w.-]+)", re.MULTILINE)
_SUB_COMMAND = re.compile(r"^  ([a-z-]+) +\S", re.MULTILINE)
_USAGE = re.compile(r"^usage: python -m [\w.]+ ([a-z-]+) ")
"""Of a command with a single sub-command, which stands in its first line."""
Words = Mapping[str, Sequence[str]]
"""What may follow: command, or command and sub-command, to its flags or sub-commands."""


class CompletionConfig(JobConfig):
    """Print a script with which a shell completes commands and flags; source it, or write it where the shell looks."""

    shell: Literal["bash", "zsh", "fish"] = Field(description="shell that will read the script")


def main(argv: Sequence[str]) -> int:
    """Prints the script of a shell and returns the exit code."""
    config = parse_config(CompletionConfig, argv, prog="attentdiffernet completion")
    words = list_words()
    print(format_fish(words) if config.shell == "fish" else format_bash(words, is_zsh=config.shell == "zsh"))
    return EXIT_DONE


def list_words() -> dict[str, list[str]]:
    """Lists what may follow each command, as its own help says; it takes seconds, once."""
    found: dict[str, list[str]] = {}
    for name, (module, _) in COMMANDS.items():
        usage = read_help(module, "--help")
        if not usage.startswith("usage:"):
            found[name] = list_flags(read_help(module, "--help-all"))
            continue
        found[name] = _SUB_COMMAND.findall(usage) or _USAGE.findall(usage)
        found |= {f"{name} {one}": list_flags(read_help(module, one, "--help-all")) for one in found[name]}
    return found


def read_help(module: str, *argv: str) -> str:
    """Reads what a command prints for these arguments."""
    said = io.StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        importlib.import_module(module).main(list(argv))
    return said.getvalue()


def list_flags(text: str) -> list[str]:
    """Lists the flags that a help text explains, sorted."""
    found = {f"--{name}" for _, name in _FLAG.findall(text)} | {
        f"--no-{name}" for no, name in _FLAG.findall(text) if no
    }
    return sorted(found | {"--config", "--help", "--help-all"})


def format_bash(words: Words, *, is_zsh: bool) -> str:
    """Formats the script of bash; zsh reads it too, after two lines. What is no flag completes as a file."""
    cases = [f'    "{name}"*) words="{" ".join(found)}" ;;' for name, found in sort_longest_first(words)]
    return "\n".join(
        [
            *(["autoload -U +X compinit && compinit", "autoload -U +X bashcompinit && bashcompinit"] if is_zsh else []),
            "_attentdiffernet() {",
            '  local cur="${COMP_WORDS[COMP_CWORD]}" words=""',
            '  case "${COMP_WORDS[1]} ${COMP_WORDS[2]} " in',
            *(case.replace('"*)', ' "*)') for case in cases),
            "  esac",
            f'  [[ $COMP_CWORD -eq 1 ]] && words="{" ".join(COMMANDS)} --help --version"',
            '  COMPREPLY=($(compgen -W "$words" -- "$cur"))',
            "}",
            "complete -o default -F _attentdiffernet attentdiffernet",
        ]
    )


def format_fish(words: Words) -> str:
    """Formats the script of fish."""
    lines = [
        f'complete -c attentdiffernet -f -n __fish_use_subcommand -a {name} -d "{purpose}"'
        for name, (_, purpose) in COMMANDS.items()
    ]
    for name, found in words.items():
        seen = " ; and ".join(f"__fish_seen_subcommand_from {part}" for part in name.split())
        for word in found:
            kind = f"-l {word.removeprefix('--')}" if word.startswith("--") else f"-f -a {word}"
            lines.append(f'complete -c attentdiffernet -n "{seen}" {kind}')
    return "\n".join(lines)


def sort_longest_first(words: Words) -> list[tuple[str, Sequence[str]]]:
    """Sorts commands so that one with a sub-command comes before the command alone."""
    return sorted(words.items(), key=lambda item: -len(item[0].split()))


if __name__ == "__main__":
    run_command(main)
