"""Command lines: YAML and flags into one config, errors into one line and an exit code."""

from __future__ import annotations

import argparse
import difflib
import io
import json
import logging
import os
import re
import reprlib
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from jobs.errors import (
    EXIT_DONE,
    EXIT_FAILED,
    JobError,
    RequestError,
    explain_missing_module,
    explain_os_error,
    make_printable,
    one_line,
)

try:  # this Python may be the system's, with none of it: one line says so instead of a traceback
    from pydantic import BaseModel, ValidationError
    from pydantic_settings import BaseSettings, CliSettingsSource, SettingsError

    from jobs.cli.help import format_help, list_flags, suggest_flag
    from jobs.cli.yaml_file import read_yaml as read_yaml  # a night reads the same files
    from jobs.config import SUBMITTED_JOB_VARIABLE, merge, rename_old_flag, split_at_commas
    from model.config import is_bf16_allowed
except ModuleNotFoundError as error:
    sys.exit(f"error: {explain_missing_module(error)}")

_SHORT = reprlib.Repr()
"""Shows a value that a message names: a file may hold one of any size."""
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 200
Config = TypeVar("Config", bound=BaseModel)


def parse_config(config_class: type[Config], argv: Sequence[str], *, prog: str = "") -> Config:
    """Builds ``config_class`` from ``--config FILE.yaml`` and flags; flags win.

    Args:
        config_class: what to build.
        argv: the flags.
        prog: how the command is called, for its help.

    Raises:
        RequestError: one line naming every field that is wrong, what was needed and what came.
        SystemExit: 0, after ``--help`` or ``--help-all`` was answered.
    """
    if asked := {"-h", "--help", "--help-all"}.intersection(argv):
        print(format_help(config_class, prog=prog, everything="--help-all" in asked), flush=True)
        sys.exit(EXIT_DONE)
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    first.add_argument("--config", action="append", default=[])
    try:
        known, rest = first.parse_known_args(list(argv))
    except argparse.ArgumentError as error:
        raise RequestError(f"{error}; see --help") from error
    if len(known.config) > 1:
        raise RequestError(f"--config is given {len(known.config)} times: put all fields into one file; see --help")
    from_file = read_yaml(known.config[0], config_class) if known.config else {}
    from_flags = parse_flags(config_class, [rename_old_flag(argument) for argument in rest])
    try:
        return config_class.model_validate(merge(from_file, from_flags))
    except ValidationError as error:
        known_fields = [flag.name.replace("-", "_") for flag in list_flags(config_class)]
        said = [explain_problem(problem, known_fields) for problem in error.errors()]
        raise RequestError("; ".join(said) + "; see --help") from error


def parse_flags(config_class: type[BaseModel], argv: list[str]) -> dict[str, object]:
    """Reads the fields that flags give, nested as the configuration is.

    Raises:
        RequestError: a flag that there is not, or one without its value.
    """
    settings = type(config_class.__name__, (config_class, BaseSettings), {"__doc__": config_class.__doc__})
    try:
        return CliSettingsSource(
            settings,
            # pydantic calls a field of one letter -n, while help and documents show --n, like all others.
            cli_parse_args=[re.sub(r"^--(\w)(?==|$)", r"-\1", one) for one in quote_texts(config_class, argv)],
            cli_kebab_case=True,
            cli_implicit_flags=True,
            cli_avoid_json=True,
            cli_hide_none_type=True,
            cli_parse_none_str="null",  # as in YAML, and as the descriptions say
            cli_exit_on_error=False,
        )()
    except SettingsError as error:
        if unparsed := re.match(r'error parsing value for field "(\w+)"', str(error)):
            flag = unparsed[1].replace("_", "-")
            raise RequestError(f"--{flag} takes JSON or its single fields: {error.__cause__}; see --help") from error
        said = str(error).removeprefix("error parsing CLI: ")
        unknown = said.removeprefix("unrecognized arguments: ").split(" ")[0]
        raise RequestError(f"{said}{suggest_flag(config_class, unknown)}; see --help") from error


def quote_texts(config_class: type[BaseModel], argv: Sequence[str]) -> list[str]:
    """Returns the arguments with lists of texts as JSON: pydantic would take true, 007 or null in them for values."""
    lists = {f"--{flag.name}" for flag in list_flags(config_class) if flag.is_text_list}
    quoted: list[str] = []
    for argument in argv:
        name, equals, value = argument.partition("=")
        if equals and name in lists:
            quoted.append(f"{name}={_quote_list(value)}")
        else:
            quoted.append(_quote_list(argument) if quoted and quoted[-1] in lists else argument)
    return quoted


def _quote_list(value: str) -> str:
    return value if value.startswith(("[", "--")) else json.dumps(split_at_commas(value))


def explain_problem(problem: object, known_fields: Sequence[str] = ()) -> str:
    """Says one pydantic problem as 'field: what was needed, got what came'.

    Args:
        problem: as pydantic tells it.
        known_fields: those of the command, nested ones by dotted names, to say which one may be meant.
    """
    details: dict[str, object] = dict(problem)  # type: ignore[call-overload]  # ErrorDetails is a TypedDict
    path = details["loc"] if isinstance(details["loc"], tuple) else ()
    field = "--" + ".".join(str(part) for part in path).replace("_", "-") if path else ""
    kind, message = details["type"], str(details["msg"]).removeprefix("Value error, ")
    if kind == "missing":
        return f"{field} is required"
    if kind == "extra_forbidden":
        name = ".".join(map(str, path))
        return f"{name}: no such field{suggest_field(name, known_fields)}"
    if kind == "value_error":
        return f"{field}: {message}".removeprefix(": ")
    return f"{field}: {message[:1].lower()}{message[1:]}, got {_SHORT.repr(details['input'])}"


def suggest_field(name: str, known_fields: Sequence[str]) -> str:
    """Returns ``; did you mean run_id?`` for a name that is nearly a field's, else an empty string."""
    (near,) = difflib.get_close_matches(name.replace("-", "_"), known_fields, n=1) or [""]
    if near == name:  # as a flag has it
        above, _, last = near.rpartition(".")
        return f"; write {last} as a field below {above}:"
    return f"; did you mean {near}?" if near else ""


def escape_unencodable() -> None:
    """Escapes what the terminal's encoding lacks: a key in another script must not end a command that prints it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def run_subcommand(
    argv: Sequence[str], commands: Mapping[str, tuple[type[BaseModel], Callable[[Any], int | None]]], *, prog: str
) -> int:
    """Runs the command that ``argv`` begins with and returns the exit code; ``--help`` lists the commands.

    Args:
        argv: the command's name and its flags.
        commands: name -> its configuration, and what executes it and may return an exit code.
        prog: how the command above them is called.

    Raises:
        RequestError: no such command, or wrong flags for it.
    """
    command = argv[0] if argv else ""
    if command in ("-h", "--help"):
        lines = [f"  {name:9} {config.__doc__}" for name, (config, _) in commands.items()]
        print("\n".join([f"usage: {prog} COMMAND [--config FILE.yaml] [FLAGS], or COMMAND --help", "", *lines]))
        return EXIT_DONE
    if command not in commands:
        raise RequestError(f"expected a command ({', '.join(commands)}), got {command!r}; see --help")
    config_class, execute = commands[command]
    return execute(parse_config(config_class, argv[1:], prog=f"{prog} {command}")) or EXIT_DONE


def check_environment() -> None:
    """Raises RequestError where a variable of ours says nothing that is known; a worker would end of it."""
    try:
        is_bf16_allowed()
    except ValueError as error:
        raise RequestError(f"{error}: correct it, or unset it") from error


def run_command(main: Callable[[Sequence[str]], int]) -> None:
    """Runs a command and exits with its code; an expected error becomes one line on stderr, without a traceback."""
    os.environ.setdefault("RAY_DATA_USE_DATASOURCE_V2", "0")
    escape_unencodable()
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(signal.SIGTERM))  # jobs.cluster keeps it, whatever Ray sets
    try:
        check_environment()
        code = main(sys.argv[1:])
        sys.stdout.flush()
    except JobError as error:
        print(f"error: {make_printable(one_line(error))}", file=sys.stderr)
        code = error.exit_code
    except ModuleNotFoundError as error:
        print(f"error: {explain_missing_module(error)}", file=sys.stderr)
        code = EXIT_FAILED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains again at its end
        print("error: whoever read the output, such as head, has ended", file=sys.stderr)
        code = EXIT_FAILED
    except OSError as error:
        print(f"error: {make_printable(explain_os_error(error))}", file=sys.stderr)
        code = EXIT_FAILED
    except (KeyboardInterrupt, SystemExit) as ending:
        if isinstance(ending, SystemExit) and ending.code != signal.SIGTERM:
            raise
        again = " under another --submission-id" if SUBMITTED_JOB_VARIABLE in os.environ else ""
        print(f"interrupted; the same command{again} continues where this one stopped", file=sys.stderr)
        code = EXIT_FAILED
    sys.exit(code)
