"""Keys that a storage can hold and obstore cannot name: read, sized and deleted by the storage's own client."""

from __future__ import annotations

import re
from typing import Any

from botocore.exceptions import IncompleteReadError, ResponseStreamingError

from jobs.errors import TooLargeError
from jobs.storage import azure
from jobs.storage.clients import open_boto3_client

_ODD_KEY = re.compile(r"(^|/)(\.{0,2})(/|$)|[\x00-\x1f\x7f]")
"""What obstore's path type refuses or normalises: empty, dotted and control-character segments."""
MAX_BROKEN_BODIES = 3


def is_odd(scheme: str, key: str) -> bool:
    """Tells whether obstore cannot name this key of a storage; files are read without it."""
    return scheme != "file" and _ODD_KEY.search(key) is not None


def read_odd_key(scheme: str, bucket: str, key: str, *, max_bytes: int | None) -> tuple[bytes, str]:
    """Reads one object whole; returns its bytes and its entity tag (no quotes).

    Raises:
        TooLargeError: it has more than ``max_bytes``.
        RefusedError: no client can name it.
    """
    if scheme == "az":
        data, size_bytes, etag = azure.download(bucket, key, max_bytes=max_bytes)
        check_size(f"az://{bucket}/{key}", size_bytes, max_bytes=max_bytes)
        return data or b"", etag
    return _read_by_boto3(scheme, bucket, key, max_bytes=max_bytes)


def read_odd_size(scheme: str, bucket: str, key: str) -> int:
    """Asks for the size of one object in bytes."""
    if scheme == "az":
        return azure.read_size(bucket, key)
    return int(open_boto3_client(scheme).head_object(Bucket=bucket, Key=key)["ContentLength"])


def delete_odd_key(scheme: str, bucket: str, key: str) -> None:
    """Deletes one object."""
    if scheme == "az":
        azure.delete_blob(bucket, key)
    else:
        open_boto3_client(scheme).delete_object(Bucket=bucket, Key=key)


def check_size(uri: str, size_bytes: int, *, max_bytes: int | None) -> None:
    """Raises TooLargeError for an object of more than ``max_bytes``."""
    if max_bytes is not None and size_bytes > max_bytes:
        raise TooLargeError(uri, size_bytes=size_bytes, max_bytes=max_bytes)


def _read_by_boto3(scheme: str, bucket: str, key: str, *, max_bytes: int | None) -> tuple[bytes, str]:
    client: Any = open_boto3_client(scheme)
    tries_left = MAX_BROKEN_BODIES
    while True:  # boto3 tries requests again, but not bodies that break off
        answer = client.get_object(Bucket=bucket, Key=key)
        check_size(f"{scheme}://{bucket}/{key}", answer["ContentLength"], max_bytes=max_bytes)
        try:
            return answer["Body"].read(), answer["ETag"].strip('"')
        except (IncompleteReadError, ResponseStreamingError):
            tries_left -= 1
            if not tries_left:
                raise
