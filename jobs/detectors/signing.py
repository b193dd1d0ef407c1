"""Signatures of a registry: who may write the bucket, but has not the key, can change nothing that scores.

The key is a secret text in ATTENTDIFFERNET_SIGNING_KEY, the same for all who train, promote and score. Where it is set,
what is written is signed and what is read must be. A detector's signature covers the SHA-256 of its files, that of the
aliases their history too; both name their category, so that neither is another's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jobs import storage
from jobs.errors import MissingObjectError, RequestError
from jobs.storage import uris
from model.artifact.files import CALIBRATION, CONFIG, METRICS, WEIGHTS

KEY_VARIABLE = "ATTENTDIFFERNET_SIGNING_KEY"
MIN_KEY_CHARACTERS = 32
"""Of random hexadecimal digits these are 128 bits."""
MAKE_KEY = "make one with openssl rand -hex 32"
SIGNATURE_FILE = "signature.json"
"""Beside a detector's files."""
SIGNED_FILES = (WEIGHTS, CONFIG, CALIBRATION, METRICS)
"""The card says nothing that a job reads."""


def read_key() -> bytes | None:
    """Reads the key; None where there is none. Raises RequestError where it is too short to be a secret."""
    text = os.environ.get(KEY_VARIABLE, "").strip()
    if text and len(text) < MIN_KEY_CHARACTERS:
        raise RequestError(f"{KEY_VARIABLE} needs {MIN_KEY_CHARACTERS} characters or more, got {len(text)}: {MAKE_KEY}")
    return text.encode() or None


def compute_signature(key: bytes, subject: Mapping[str, Any]) -> str:
    """Computes the HMAC-SHA256 of a JSON object, 64 hex digits."""
    return hmac.new(key, json.dumps(subject, sort_keys=True).encode(), "sha256").hexdigest()


def is_signature(found: object, *, key: bytes, subject: Mapping[str, Any]) -> bool:
    """Tells whether something read is the signature of a JSON object by this key."""
    expected = compute_signature(key, subject)
    return isinstance(found, str) and hmac.compare_digest(found.encode(errors="replace"), expected.encode())


def describe_aliases(category: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what the signature of a category's aliases is made of: the document without its signature."""
    return {"kind": "aliases", "category": category, "document": document}


def describe_detector(category: str, detector_id: str, *, digests: Mapping[str, str]) -> dict[str, Any]:
    """Returns what the signature of a detector is made of."""
    return {"kind": "detector", "category": category, "detector_id": detector_id, "sha256": dict(digests)}


def sign_detector(detectors: str, category: str, *, detector_id: str, folder: Path) -> None:
    """Writes the signature of a detector whose files are in ``folder``; without a key it writes none."""
    if (key := read_key()) is None:
        return
    digests = {name: hash_file(folder / name) for name in SIGNED_FILES}
    signature = compute_signature(key, describe_detector(category, detector_id, digests=digests))
    content = {"sha256": digests, "hmac_sha256": signature}
    uri = uris.join(detectors, category, detector_id, SIGNATURE_FILE)
    storage.write(uri, json.dumps(content, indent=1, sort_keys=True).encode())


def read_digests(detectors: str, category: str, *, detector_id: str) -> dict[str, str] | None:
    """Reads the SHA-256 that each signed file of a detector must have; None where there is no key to check them by.

    Raises:
        RequestError: the detector is not signed by the key.
    """
    if (key := read_key()) is None:
        return None
    place = uris.join(detectors, category, detector_id)
    try:
        content = json.loads(storage.read(uris.join(place, SIGNATURE_FILE)))
        digests, signature = dict(content["sha256"]), content["hmac_sha256"]
    except (MissingObjectError, ValueError, TypeError, KeyError, RecursionError):
        digests, signature = {}, None
    subject = describe_detector(category, detector_id, digests=digests)
    if not is_signature(signature, key=key, subject=subject) or set(digests) != set(SIGNED_FILES):
        raise RequestError(explain_unsigned(place))
    return digests


def check_file(content: bytes, digests: Mapping[str, str] | None, *, uri: str) -> None:
    """Refuses a file of a detector that is not the one that was signed.

    Args:
        content: as read.
        digests: see `read_digests`; None checks nothing.
        uri: of the file.

    Raises:
        RequestError: it is another.
    """
    expected = digests.get(uri.rpartition("/")[2]) if digests else None
    if expected is not None and hashlib.sha256(content).hexdigest() != expected:
        raise RequestError(explain_unsigned(uri))


def explain_unsigned(uri: str) -> str:
    """Says that something is not what the key has signed, and what to do."""
    return (
        f"{uri} is not signed by the key of {KEY_VARIABLE}: somebody without it has written there, or it was never "
        "signed; restore it, or look at it and sign it with jobs.registry sign"
    )


def hash_file(path: Path) -> str:
    """Computes the SHA-256 of a file, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
