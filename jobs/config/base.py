"""The base of all configurations: what is unknown is refused, layers are laid on top of each other, old names hold."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import field_validator

from jobs.config.places import PlaceKind, check_kind
from model.parts import FrozenModel

FOLDERS = ("results", "detectors", "detector", "data", "verdicts")
"""Fields that name a folder in every command, there or to be made."""
FILES = ("boxes", "file", "save", "settings", "score_config", "train_list")
"""Fields that name a file in every command."""


class JobConfig(FrozenModel):
    """Base of all commands: unknown fields are refused, so a typo never passes silently.

    A field has one name in all commands, so what has to lie at the place that it names is checked here, before any
    work: a folder, or a file.
    """

    output_kind: ClassVar[PlaceKind | None] = "file"
    """What a command makes of ``output``; None where that depends on other fields."""

    @field_validator(*FOLDERS, check_fields=False)
    @classmethod
    def _check_folder(cls, value: Any) -> Any:
        check_kind(value, "folder")
        return value

    @field_validator(*FILES, check_fields=False)
    @classmethod
    def _check_file(cls, value: Any) -> Any:
        check_kind(value, "file")
        return value

    @field_validator("output", check_fields=False)
    @classmethod
    def _check_output(cls, value: Any) -> Any:
        if cls.output_kind is not None:
            check_kind(value, cls.output_kind)
        return value


RENAMED_FIELDS = {"optimiser": "optimizer"}
"""Old name -> today's, of fields at the top level: files and flags of before the first release say them."""


def rename_old_fields(fields: Mapping[str, object]) -> dict[str, object]:
    """Returns ``fields`` under today's names, see RENAMED_FIELDS."""
    return {RENAMED_FIELDS.get(name, name): value for name, value in fields.items()}


def rename_old_flag(argument: str) -> str:
    """Returns one argument of a command line, ``--optimiser.epochs`` under its name of today."""
    name = re.match(r"--([\w-]+)", argument)
    if name is None or name[1] not in RENAMED_FIELDS:
        return argument
    return f"--{RENAMED_FIELDS[name[1]]}{argument[name.end() :]}"


def merge(base: dict[str, object], over: object) -> dict[str, object]:
    """Returns ``base`` with ``over`` laid on top, key by key at every level; attention is replaced as a whole.

    Raises:
        ValueError: ``over`` is no mapping.
    """
    if not isinstance(over, dict):
        raise ValueError(f"expected a mapping, got {over!r}")
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, dict) and isinstance(value, dict) and key != "attention"
        merged[key] = merge(below, value) if nested and isinstance(below, dict) else value
    return merged
