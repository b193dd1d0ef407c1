"""The base of all configurations: what is unknown is refused, layers are laid on top of each other, old names hold."""

from __future__ import annotations

import re
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict


class JobConfig(BaseModel):
    """Base of all commands: unknown fields are refused, so a typo never passes silently."""

    model_config = ConfigDict(frozen=True, extra="forbid")


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
    """Returns ``base`` with ``over`` laid on top, key by key at every level; attention is replaced as a whole."""
    if not isinstance(over, dict):
        raise ValueError(f"expected a mapping, got {over!r}")
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        nested = isinstance(below, dict) and isinstance(value, dict) and key != "attention"
        merged[key] = merge(below, value) if nested and isinstance(below, dict) else value
    return merged
