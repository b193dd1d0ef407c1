"""Fields that a mode of a command does not read: who gives one is told, and nothing runs as if it had been heard."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel


def refuse_ignored(config: BaseModel, names: Sequence[str], *, because: str) -> None:
    """Refuses fields that were changed though nothing reads them.

    A value that is the default's may have been given as well: it changes nothing.

    Args:
        config: the request.
        names: of its fields, such as ``top`` or ``scoring.actors``.
        because: why nothing reads them, for the message.

    Raises:
        ValueError: one is not at its default; one line that names all of them as flags.
    """
    if changed := [path for name in names for path in list_changed(config, name)]:
        flags = ", ".join(f"--{path.replace('_', '-')}" for path in changed)
        raise ValueError(f"{flags} would change nothing {because}: leave it out, or take its line out of the file")


def list_changed(config: BaseModel, name: str) -> list[str]:
    """Lists what differs from its default: the field itself, given by its path, or those below it."""
    above, _, last = name.rpartition(".")
    owner = config
    for part in above.split(".") if above else ():
        owner = getattr(owner, part)
    value = getattr(owner, last)
    if isinstance(value, BaseModel):
        return [path for below in type(value).model_fields for path in list_changed(config, f"{name}.{below}")]
    default = type(owner).model_fields[last].get_default(call_default_factory=True)
    return [name] if value != default else []
