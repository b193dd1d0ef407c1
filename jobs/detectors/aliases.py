"""Which detector of a category has which role: ``<detectors>/<category>/aliases.json``, with the history of changes.

One flat JSON object of alias -> detector id, and under ``.history`` (no alias can be called so) what changed them. Both
are written by the same conditional put, so that they cannot disagree and of two promotions only one can win.
"""

from __future__ import annotations

import getpass
import json
import platform
import random
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from jobs import storage
from jobs.detectors.signing import (
    KEY_VARIABLE,
    MAKE_KEY,
    compute_signature,
    describe_aliases,
    explain_unsigned,
    is_signature,
    read_key,
)
from jobs.errors import ConflictError, MissingObjectError, RequestError
from jobs.storage import uris
from model.artifact.files import ALIASES_FILE

DETECTOR_ID = re.compile(r"[0-9a-f]{16}")
NO_DETECTOR = "none"
"""What ``expected`` calls an alias that is not set."""
MAX_CHANGES = 200

_HISTORY, _SIGNATURE = ".history", ".signature"
_HMAC = "hmac_sha256"
_ALIAS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_TRIES = 50
_LONGEST_WAIT_S = 1.0

Action: TypeAlias = Literal["promote", "rollback"]


class AliasChange(BaseModel):
    """One line of the history; ``before`` and ``after`` are detector ids and called from and to in the file."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    alias: str
    before: str | None = Field(alias="from", pattern=DETECTOR_ID.pattern)
    after: str = Field(alias="to", pattern=DETECTOR_ID.pattern)
    at: datetime
    by: str
    reason: str
    action: Action


_CHANGES = TypeAdapter(list[AliasChange])


@dataclass(frozen=True)
class AliasTarget:
    """The detector that an alias points at, and since when; None where the history does not say."""

    detector_id: str
    since: datetime | None


@dataclass(frozen=True)
class _State:
    aliases: Mapping[str, str]
    changes: Sequence[AliasChange]
    etag: str | None
    is_signed: bool = False


def read_aliases(detectors: str, category: str) -> dict[str, str]:
    """Reads the detector id of each alias of one category; empty where none was set."""
    return dict(_read(detectors, category).aliases)


def read_alias(detectors: str, category: str, *, alias: str) -> AliasTarget | None:
    """Reads what an alias of one category points at; None where it is not set."""
    state = _read(detectors, category)
    detector_id = state.aliases.get(alias)
    if detector_id is None:
        return None
    last = next((change for change in reversed(state.changes) if change.alias == alias), None)
    return AliasTarget(detector_id, last.at if last and last.after == detector_id else None)


def read_history(detectors: str, category: str) -> list[AliasChange]:
    """Returns the changes of one category's aliases, oldest first, the last ``MAX_CHANGES``."""
    return list(_read(detectors, category).changes)


def set_alias(
    detectors: str,
    category: str,
    *,
    alias: str,
    detector_id: str,
    reason: str = "",
    expected: str | None = None,
    action: Action = "promote",
) -> str | None:
    """Points ``alias`` at ``detector_id`` by a conditional put; returns the detector that it pointed at before.

    A change of another alias in between is no conflict: the put is tried again, up to 50 times with pauses.

    Args:
        detectors: the registry.
        category: whose alias.
        alias: 1-100 letters, digits, '.', '_' or '-', beginning with a letter or digit, and no detector id.
        detector_id: not looked up here.
        reason: for the history.
        expected: the detector that it must point at now, ``NO_DETECTOR`` for none; None takes any.
        action: what the history calls the change, and how ``find_previous`` reads it.

    Raises:
        ConflictError: the alias points elsewhere than expected, or another process changed it between our read and
            our write.
        RequestError: a name that is none, or aliases that are damaged.
    """
    check_category(category)
    if not _ALIAS.fullmatch(alias) or DETECTOR_ID.fullmatch(alias) or not DETECTOR_ID.fullmatch(detector_id):
        raise RequestError(f"expected the name of an alias and a detector id, got {alias!r} and {detector_id!r}")
    seen = _read(detectors, category)
    before = seen.aliases.get(alias)
    if expected is not None and expected != (before or NO_DETECTOR):
        raise ConflictError(f"{alias} of {category} is {before or NO_DETECTOR}, not {expected}: nothing was changed")
    change = AliasChange(
        alias=alias,
        before=before,
        after=detector_id,
        at=datetime.now(UTC),
        by=name_user(),
        reason=reason,
        action=action,
    )
    for attempt in range(_TRIES):
        now = seen.aliases.get(alias)
        if now == detector_id:  # already, or by a put of ours whose answer was lost
            return before
        if now != before:
            break
        try:
            _write(detectors, category, state=seen, change=change)
            return before
        except ConflictError:
            time.sleep(random.uniform(0, min(_LONGEST_WAIT_S, 0.02 * 2**attempt)))  # noqa: S311  # spreads writers
            seen = _read(detectors, category)
    raise ConflictError(
        f"{alias} of {category} was not changed, another promotion won: it is {now or NO_DETECTOR}; look, then promote "
        "again"
    )


def find_previous(detectors: str, category: str, *, alias: str) -> tuple[str, str]:
    """Returns the detector that an alias points at, and the one that it was last promoted from, for a rollback.

    Rolling back twice goes back two promotions; a promotion that was rolled back does not come again.

    Raises:
        RequestError: the alias is not set, or the history knows nothing before it.
    """
    state = _read(detectors, category)
    current = state.aliases.get(alias)
    if current is None:
        known = ", ".join(sorted(state.aliases)[:10]) or "none"
        raise RequestError(f"{category} has no alias {alias!r} to roll back; it has {known}")
    held: list[str] = []  # what the alias has pointed at, but for what was rolled back
    for change in (change for change in state.changes if change.alias == alias):
        if held[-1:] != [change.before]:  # where the history begins
            held = [change.before] if change.before else []
        if change.action == "promote":
            held.append(change.after)
        else:
            held = held[:-1] if held[-2:-1] == [change.after] else [change.after]
    if held[-1:] != [current] or len(held) < 2:
        raise RequestError(
            f"the history of {category} knows no detector that {alias} was before {current}: promote one by its id"
        )
    return current, held[-2]


def is_rolled_back(detectors: str, category: str, *, alias: str, detector_id: str) -> bool:
    """Tells whether the last time that ``alias`` left a detector was a rollback: a person did not want it there."""
    for change in reversed(_read(detectors, category).changes):
        if change.alias == alias and detector_id in (change.before, change.after):
            return change.action == "rollback" and change.before == detector_id
    return False


def check_category(category: str) -> None:
    """Refuses a category that would name a folder outside the registry.

    Raises:
        RequestError: an empty, "." or ".." part.
    """
    if any(part in ("", ".", "..") for part in category.split("/")):
        raise RequestError(f"expected the name of a category, got {category!r}")


def _read(detectors: str, category: str, *, check: bool = True) -> _State:
    uri = uris.join(detectors, category, ALIASES_FILE)
    key = read_key()
    try:
        data, etag = storage.read_with_etag(uri)
    except MissingObjectError:
        return _State({}, [], None)
    try:
        found = json.loads(data)
        signature = found.pop(_SIGNATURE, None)
        if check and key is not None and not _is_signed(signature, category, key=key, document=found):
            raise RequestError(explain_unsigned(uri))
        changes = _CHANGES.validate_python(found.pop(_HISTORY, []))
        is_sound = all(DETECTOR_ID.fullmatch(str(value)) for value in found.values())
    except (ValueError, AttributeError, TypeError, RecursionError):
        is_sound = False
    if not is_sound:
        raise RequestError(f"{uri} is damaged: expected a JSON object of alias to detector id; restore or delete it")
    return _State(found, changes, etag, is_signed=signature is not None)


def _is_signed(signature: object, category: str, *, key: bytes, document: Mapping[str, Any]) -> bool:
    found = signature.get(_HMAC) if isinstance(signature, dict) else None
    return is_signature(found, key=key, subject=describe_aliases(category, document))


def sign_aliases(detectors: str, category: str) -> dict[str, str]:
    """Signs the aliases of a category as they are; returns them. Whoever calls this has looked at them.

    Raises:
        RequestError: there is no key, or there are no aliases, or they are damaged.
        ConflictError: somebody changed them meanwhile.
    """
    if read_key() is None:
        raise RequestError(f"signing needs the key in {KEY_VARIABLE}: {MAKE_KEY}")
    state = _read(detectors, category, check=False)
    if not state.aliases:
        raise RequestError(f"{category} has no alias in {detectors}: nothing to sign")
    _store(detectors, category, state=state, aliases=state.aliases, changes=state.changes)
    return dict(state.aliases)


def _write(detectors: str, category: str, *, state: _State, change: AliasChange) -> None:
    changes = [*state.changes, change][-MAX_CHANGES:]
    _store(detectors, category, state=state, aliases={**state.aliases, change.alias: change.after}, changes=changes)


def _store(
    detectors: str,
    category: str,
    *,
    state: _State,
    aliases: Mapping[str, str],
    changes: Sequence[AliasChange],
) -> None:
    """Puts aliases in place of those that were read, signed where there is a key."""
    uri, key = uris.join(detectors, category, ALIASES_FILE), read_key()
    document: dict[str, Any] = {
        **aliases,
        _HISTORY: [line.model_dump(mode="json", by_alias=True) for line in changes],
    }
    if key is not None:
        document[_SIGNATURE] = {_HMAC: compute_signature(key, describe_aliases(category, document))}
    elif state.is_signed:
        raise RequestError(f"{uri} is signed: set {KEY_VARIABLE} to the key of this registry to change an alias")
    data = json.dumps(document, indent=1, sort_keys=True).encode()
    storage.write(uri, data, if_absent=state.etag is None, if_etag=state.etag)


def name_user() -> str:
    """Returns who changes an alias, as user@host; the user is ``unknown`` in a container that does not name it."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = "unknown"
    return f"{user}@{platform.node()}"
