"""The clients of object storage, one of each kind in a process, and their patience. Part of jobs.storage.

A storage that throttles or is away for a minute costs a minute and no rows: every client tries for longer than that,
with pauses that grow to 15 or 20 s. What still fails then is true of the object, or of the night.
"""

from __future__ import annotations

import os
import socket
import sys
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

if TYPE_CHECKING:
    AnyStore = S3Store | GCSStore | AzureStore | LocalStore

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
"""Longest wait for the next bytes of an answer."""
_CLIENT = {
    "allow_http": True,
    "connect_timeout": f"{CONNECT_TIMEOUT_S}s",
    "read_timeout": f"{READ_TIMEOUT_S}s",
    "timeout": "600s",  # of a whole answer: a 300 MB scan over a slow line takes minutes
}
RETRY_TIMEOUT = timedelta(seconds=180)
_RETRY = {
    "max_retries": 1800,  # never reached: the time ends it
    "retry_timeout": RETRY_TIMEOUT,
    # A pause is drawn from [init, base * the last one): with base 2 they shrink as often as grow, and 16 lasted 5 s.
    "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=15), "base": 4},
}
MAX_S3_ATTEMPTS = 16
"""Of boto3 and pyarrow: each pause is drawn from [0, 2^n s), at most 20 s, so 16 last 60 to 170 s."""


@cache
def open_s3_session() -> Any:
    """Opens the session with credentials and region as the standard AWS_* variables, profiles and roles give them."""
    import boto3

    return boto3.Session()


@cache
def open_s3_client() -> Any:
    """Opens boto3's client, for what obstore cannot do."""
    from botocore.config import Config

    retries: Any = {"total_max_attempts": MAX_S3_ATTEMPTS, "mode": "standard"}
    config = Config(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries=retries)
    return open_s3_session().client("s3", config=config)


@cache
def open_store(scheme: str, bucket: str) -> AnyStore:
    """Opens obstore's client of a bucket, or of the local files."""
    client: Any = _CLIENT
    retry: Any = _RETRY
    if scheme == "file":
        return LocalStore("/", mkdir=True)
    if scheme == "gs":
        return GCSStore(bucket, client_options=client, retry_config=retry)
    if scheme == "az":
        return AzureStore(bucket, client_options=client, retry_config=retry)
    from obstore.auth.boto3 import Boto3CredentialProvider

    endpoint = find_s3_endpoint()
    if endpoint:
        warn_of_silence(endpoint)
    place: Any = {"endpoint": endpoint} if endpoint else {}
    return S3Store(
        bucket,
        credential_provider=Boto3CredentialProvider(open_s3_session()),
        region=open_s3_session().region_name or "us-east-1",
        client_options=client,
        retry_config=retry,
        virtual_hosted_style_request=not endpoint,
        **place,
    )


@cache  # once for all buckets of a process
def warn_of_silence(endpoint: str) -> None:
    """Says at once that nobody listens there, for the clients below try for minutes before they say so.

    No error: a proxy may know the way, and a storage that starts again is back within those minutes.
    """
    url = urlsplit(endpoint)
    try:
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S).close()
    except (OSError, ValueError) as error:  # the host alone is named: an address may hold a password
        what = f"the S3 endpoint at {url.hostname} does not answer ({error}), see AWS_ENDPOINT_URL"
        print(f"warning: {what}; trying for {RETRY_TIMEOUT.seconds} s", file=sys.stderr, flush=True)


def find_s3_endpoint() -> str | None:
    """Returns the address of an S3-compatible store; None for AWS."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
