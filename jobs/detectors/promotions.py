"""Remembers beside the results when each alias was promoted, so that old aliases which were put back are noticed.

A signature says who wrote the aliases, not that they are the newest: who may write the registry's bucket could put an
earlier file back, signature included. What the runs have seen lies with the results, which others may write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime

from pydantic import TypeAdapter

from jobs import storage
from jobs.detectors.signing import read_key
from jobs.errors import ConflictError, MissingObjectError, RequestError
from jobs.storage import uris

PROMOTIONS_FILE = "promotions.json"
_SEEN = TypeAdapter(dict[str, dict[str, datetime]])
"""Registry and alias -> category -> when it was promoted."""


def check_promotions(results: str, *, detectors: str, alias: str, promoted: Mapping[str, datetime]) -> None:
    """Checks that no alias is older than an earlier run has read it, and remembers the newer ones.

    Does nothing where the registry has no key: who may write unsigned aliases can write new ones as well.

    Args:
        results: of the run.
        detectors: the registry.
        alias: that the run scores with.
        promoted: when it was last pointed at each category's detector.

    Raises:
        RequestError: one is older, or what was remembered is damaged.
    """
    if read_key() is None:
        return
    uri, name = uris.join(results, PROMOTIONS_FILE), f"{detectors} {alias}"
    seen, etag = read_promotions(uri)
    known = seen.get(name, {})
    for category, at in promoted.items():
        if category in known and at < known[category]:
            raise RequestError(
                f"{alias} of {category} was promoted at {known[category]:%Y-%m-%dT%H:%M:%SZ} when an earlier run read "
                f"it, and now at {at:%Y-%m-%dT%H:%M:%SZ}: old aliases were put back in {detectors}; promote again what "
                f"is to score, or delete {uri}"
            )
    merged = {**seen, name: {**known, **promoted}}
    if merged == seen:
        return
    try:
        storage.write(uri, _SEEN.dump_json(merged, indent=1), if_absent=etag is None, if_etag=etag)
    except ConflictError:
        return  # another run has written what it saw; the next one remembers ours


def read_promotions(uri: str) -> tuple[dict[str, dict[str, datetime]], str | None]:
    """Reads what earlier runs have seen and its entity tag; nothing and None where there is no such file yet.

    Raises:
        RequestError: it is damaged.
    """
    try:
        content, etag = storage.read_with_etag(uri)
    except MissingObjectError:
        return {}, None
    try:
        return _SEEN.validate_python(json.loads(content)), etag
    except (ValueError, RecursionError) as error:
        raise RequestError(f"{uri} is damaged: restore or delete it") from error
