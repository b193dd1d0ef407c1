"""The clients of object storage, one of each kind in a process, and their patience. Part of jobs.storage.

A storage that throttles or is away for a minute costs a minute and no rows: every client tries for longer than that,
with pauses that grow to 15 or 20 s. What still fails then is true of the object, or of the night.
"""

from __future__ import annotations

import socket
import sys
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from obstore.store import AzureStore, GCSStore, S3Store

from jobs.storage.google import find_paying_project, open_gs_client
from jobs.storage.s3_settings import (
    find_bucket_settings,
    find_ca_bundle,
    find_s3_endpoint,
    is_requester_pays,
    make_client,
    open_s3_session,
)

if TYPE_CHECKING:
    AnyStore = S3Store | GCSStore | AzureStore

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
CREDENTIALS_TTL = timedelta(minutes=5)
"""boto3 is asked again so often; it renews credentials 10 to 15 minutes before their end."""
MAX_S3_ATTEMPTS = 16
"""Of boto3 and pyarrow: each pause is drawn from [0, 2^n s), at most 20 s, so 16 last 60 to 170 s."""


@cache
def open_boto3_client(scheme: str) -> Any:
    """Opens boto3's client of ``s3`` or ``gs``, for what obstore cannot do."""
    retries = {"total_max_attempts": MAX_S3_ATTEMPTS, "mode": "standard"}
    make = open_gs_client if scheme == "gs" else make_client
    return make(connect_timeout=CONNECT_TIMEOUT_S, read_timeout=READ_TIMEOUT_S, retries=retries)


@cache
def open_store(scheme: str, bucket: str) -> AnyStore:
    """Opens obstore's client of a bucket."""
    client: Any = _CLIENT
    retry: Any = _RETRY
    if scheme == "gs":
        if project := find_paying_project():
            client = client | {"default_headers": {"x-goog-user-project": project}}
        return GCSStore(bucket, client_options=client, retry_config=retry)
    if scheme == "az":
        return AzureStore(bucket, client_options=client, retry_config=retry)
    return open_s3_bucket(bucket)


def open_s3_bucket(bucket: str) -> S3Store:
    """Opens obstore's client of a bucket of S3, with the settings that boto3 resolved."""
    from obstore.auth.boto3 import Boto3CredentialProvider  # imports boto3, see jobs.storage.s3_settings

    endpoint = find_s3_endpoint()
    if endpoint:
        warn_of_silence(endpoint)
    settings, certificates = find_bucket_settings(bucket), find_ca_bundle()
    client: Any = _CLIENT | ({"root_certificate": Path(certificates).read_bytes()} if certificates else {})
    retry: Any = _RETRY
    return S3Store(
        bucket,
        credential_provider=Boto3CredentialProvider(open_s3_session(), ttl=CREDENTIALS_TTL),
        region=settings.region,
        endpoint=settings.locate_bucket(bucket),
        virtual_hosted_style_request=settings.is_virtual,
        request_payer=is_requester_pays(),
        client_options=client,
        retry_config=retry,
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
