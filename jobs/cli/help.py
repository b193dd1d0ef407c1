"""What ``--help`` says of a command: what it does, an example, and its flags, the required ones first."""

from __future__ import annotations

import difflib
import textwrap
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

_EXAMPLES = {
    "archive": "s3://inspection/archive",
    "data": "s3://inspection/data",
    "detectors": "s3://inspection/detectors",
    "results": "s3://inspection/results",
    "output": "out",
    "category": "insulator",
    "run-id": "2026-11-29",
    "images": "1.jpg,2.jpg",
    "detector": "s3://inspection/detectors/insulator",
    "name": "champion",
    "names": "champion,candidate",
}
"""Values of required flags in the example of a command."""
_TYPICAL = {"TrainConfig": ("data",), "RecalibrateConfig": ("data",)}
"""Flags of a command's example that it could do without: of several ways to say the same, the usual one."""
_WIDTH = 100
_INDENT = 26


@dataclass(frozen=True)
class Flag:
    """One flag of a command.

    Attributes:
        name: without the dashes, such as ``scoring.actors``.
        takes: what stands after it, "" for a switch.
        is_required: the command does not work without it.
        field: its description and its default.
    """

    name: str
    takes: str
    is_required: bool
    field: FieldInfo

    @property
    def is_text(self) -> bool:
        """Tells whether its value is a text, whatever that looks like."""
        return all(_is_text(kind) for kind in list_alternatives(self.field.annotation))

    @property
    def is_text_list(self) -> bool:
        """Tells whether its value is a list of texts."""
        kinds = list_alternatives(self.field.annotation)
        return all(get_origin(kind) is list and _is_text(*get_args(kind)) for kind in kinds)


def list_flags(config_class: type[BaseModel], prefix: str = "") -> Iterator[Flag]:
    """Lists the flags of a configuration, those of nested settings by dotted names."""
    for field_name, field in config_class.model_fields.items():
        name = prefix + field_name.replace("_", "-")
        kinds = list_alternatives(field.annotation)
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if len(kinds) > 1 or not models:
            yield Flag(name, format_placeholder(kinds), field.is_required() and not prefix, field)
        below = {flag.name: flag for model in models for flag in list_flags(model, f"{name}.")}
        yield from below.values()


def format_help(config_class: type[BaseModel], *, prog: str, everything: bool) -> str:
    """Formats the help of a command.

    Args:
        config_class: configuration of the command.
        prog: how the command is called.
        everything: also the flags of nested settings, which are only counted otherwise.
    """
    flags = list(list_flags(config_class))
    required = [flag for flag in flags if flag.is_required]
    optional = [flag for flag in flags if not flag.is_required]
    shown = [flag for flag in optional if everything or "." not in flag.name]
    typical = [flag for flag in flags if flag.is_required or flag.name in _TYPICAL.get(config_class.__name__, ())]
    example = [f"--{flag.name} {_EXAMPLES.get(flag.name, flag.takes)}" for flag in typical]
    lines = [
        *textwrap.wrap(" ".join((config_class.__doc__ or "").split()), _WIDTH),
        "",
        "example: " + " \\\n    ".join([prog, *example]),
    ]
    if required:
        lines += ["", "required:", *_format_flags(required)]
    lines += ["", "optional:", *_format_flags(shown)]
    lines += _wrap_entry("--config FILE.yaml", "any of these fields as YAML; flags win")
    lines += _wrap_entry("--help, --help-all", "show this; show also the settings that are only counted here")
    if not everything:
        lines += _count_nested(optional)
    return "\n".join(lines)


def suggest_flag(config_class: type[BaseModel], argument: str) -> str:
    """Returns ``; did you mean --data?`` for an argument that is nearly a flag, else an empty string."""
    names = [f"--{flag.name}" for flag in list_flags(config_class)] + ["--config"]
    found = difflib.get_close_matches(argument.split("=", 1)[0], names, n=1)
    return f"; did you mean {found[0]}?" if found else ""


def _format_flags(flags: Sequence[Flag]) -> Iterator[str]:
    for flag in flags:
        text = flag.field.description or ""
        default = None if flag.field.is_required() else flag.field.get_default(call_default_factory=True)
        if isinstance(default, (list, tuple)):
            default = ",".join(map(str, default))
        if default and default is not True and "default:" not in text and not isinstance(default, BaseModel):
            text += f" (default: {default})"
        yield from _wrap_entry(f"--{'[no-]' * (default is True)}{flag.name} {flag.takes}".rstrip(), text)


def _count_nested(flags: Sequence[Flag]) -> Iterator[str]:
    groups = dict.fromkeys(flag.name.split(".")[0] for flag in flags if "." in flag.name)
    for group in groups:
        count = sum(flag.name.startswith(f"{group}.") for flag in flags)
        yield from _wrap_entry(f"--{group}.*", f"{count} settings, see --help-all")


def _wrap_entry(head: str, text: str) -> list[str]:
    pad = " " * _INDENT
    lines = textwrap.wrap(text, _WIDTH, initial_indent=pad, subsequent_indent=pad) or [pad]
    if len(head) + 4 > _INDENT:
        return [f"  {head}", *lines]
    return [f"  {head:{_INDENT - 2}}{lines[0].lstrip()}".rstrip(), *lines[1:]]


def list_alternatives(annotation: Any) -> list[Any]:
    """Lists the types that a union, or a type alone, stands for, but for None."""
    parts = get_args(annotation) if get_origin(annotation) in (Union, types.UnionType) else (annotation,)
    return [part for part in parts if part is not type(None)]


def _is_text(kind: Any) -> bool:
    kind = get_args(kind)[0] if get_origin(kind) is Annotated else kind
    return kind is str or (get_origin(kind) is Literal and all(isinstance(one, str) for one in get_args(kind)))


def format_placeholder(kinds: Sequence[Any]) -> str:
    """Formats what a value of one of these types looks like, for people."""
    if kinds == [bool]:
        return ""
    if get_origin(kinds[0]) is Literal:
        return "|".join(map(str, get_args(kinds[0])))
    if get_origin(kinds[0]) in (list, tuple):
        return "A,B"
    if get_origin(kinds[0]) is dict or (isinstance(kinds[0], type) and issubclass(kinds[0], BaseModel)):
        return "JSON"
    return {int: "N", float: "X"}.get(kinds[0], "TEXT")
