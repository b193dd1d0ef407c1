"""What became of a photo that gave no pixels, as status and reason of its row."""

from __future__ import annotations

import re

from jobs.decoding.decoder import UndecodedError
from jobs.errors import (
    ArchivedObjectError,
    DeniedError,
    EncryptionError,
    MissingObjectError,
    RefusedError,
    StorageError,
    TooLargeError,
)
from jobs.tables.schema import Status, format_reason

Outcome = tuple[str | None, str | None]
"""Status and error of a row, both None if it was decoded."""

_IMAGE_SUFFIX = re.compile(
    r"\.(jpe?g|jpe|jfif|png|tiff?|gif|webp|bmp|dib|hei[cf]s?|avif|jp2|j2k|jpx|dng|raw|nef|cr[23])$", re.IGNORECASE
)
_FILM_SUFFIX = re.compile(r"\.(mp4|m4v|mov|3gp|avi|mkv|webm|psd|svg|e?ps)$", re.IGNORECASE)
_REASONS: tuple[tuple[type[StorageError], str], ...] = (
    (TooLargeError, "too_many_bytes"),
    (ArchivedObjectError, "archived"),
    (EncryptionError, "encryption_key"),
    (DeniedError, "access_denied"),
    (RefusedError, "refused"),
)
"""Kinds of error -> reason codes; all others are "storage"."""


def explain_undecoded(error: UndecodedError, uri: str) -> Outcome:
    """Returns status and reason of bytes that gave no pixels; files that never meant to be a photo count apart."""
    is_foreign = error.code in ("not_an_image", "empty") and not _IMAGE_SUFFIX.search(uri)
    is_film = error.code == "unsupported_format" and _FILM_SUFFIX.search(uri)
    status = Status.NOT_A_PHOTO if is_foreign or is_film else error.status
    return status, format_reason(error.code, error.detail)


def explain_unread(error: StorageError) -> Outcome:
    """Returns the status and reason of an object that could not be read."""
    if isinstance(error, MissingObjectError):
        return Status.MISSING, format_reason("deleted", "deleted after it was listed, or a list names it wrongly")
    code = next((code for kind, code in _REASONS if isinstance(error, kind)), "storage")
    return Status.UNREADABLE, format_reason(code, str(error))
