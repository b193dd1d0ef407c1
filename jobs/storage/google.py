"""boto3's client of Google's storage, whose XML API answers as S3 does: for lists and odd keys. Part of jobs.storage.

obstore, which moves the bytes, cannot name every key that the storage can hold. Credentials are google-auth's, found in
the same places as obstore's. Both are imported where they are called: they take 0.3 s of CPU, which only who reads
Google's storage has to spend.
"""

from __future__ import annotations

import json
import os
import threading
from functools import cache
from pathlib import Path
from typing import Any

ADDRESS = "https://storage.googleapis.com"
_SCOPES = ("https://www.googleapis.com/auth/devstorage.full_control",)
_ACCOUNT_FILES = ("GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_APPLICATION_CREDENTIALS")


def open_gs_client(**config: Any) -> Any:
    """Opens a client of boto3 whose requests carry Google's tokens.

    Args:
        config: more settings of botocore.config.Config.

    Raises:
        google.auth.exceptions.GoogleAuthError: no credentials were found.
    """
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    account = read_service_account()
    client = boto3.client(
        "s3",
        endpoint_url=account.get("gcs_base_url", ADDRESS),
        region_name="auto",
        config=Config(
            signature_version=UNSIGNED,
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
            **config,
        ),
    )
    authorize = Authorization(None if account.get("disable_oauth") else find_credentials(account))
    client.meta.events.register("before-sign.s3", authorize)
    return client


def read_service_account() -> dict[str, Any]:
    """Reads the service account that a variable names; empty where none does, or the file is of another kind."""
    if inline := os.environ.get("GOOGLE_SERVICE_ACCOUNT_KEY"):
        return dict(json.loads(inline))
    path = next((os.environ[name] for name in _ACCOUNT_FILES if os.environ.get(name)), None)
    return dict(json.loads(Path(path).read_text())) if path else {}


def find_credentials(account: dict[str, Any]) -> Any:
    """Finds credentials: the service account's, or those of the machine, its user or its workload."""
    import google.auth
    from google.oauth2 import service_account

    if account.get("private_key"):
        factory: Any = service_account.Credentials
        return factory.from_service_account_info(account, scopes=_SCOPES)
    return google.auth.default(scopes=_SCOPES)[0]


def find_paying_project() -> str | None:
    """Returns the project that pays for requests to buckets of others; None for the bucket's own."""
    return os.environ.get("GOOGLE_CLOUD_QUOTA_PROJECT") or None


class Authorization:
    """Puts a token on a request of boto3, one that is renewed before its end, and the project that pays."""

    def __init__(self, credentials: Any) -> None:
        """Keeps the credentials; None for a storage that asks for none."""
        self._credentials, self._lock = credentials, threading.Lock()

    def __call__(self, request: Any, **_: Any) -> None:
        """Adds the headers."""
        headers: dict[str, str] = {}
        if self._credentials is not None:
            with self._lock:  # one renewal, not one a thread
                self._credentials.before_request(open_transport(), request.method, request.url, headers)
        if project := find_paying_project():
            headers["x-goog-user-project"] = project
        for name, value in headers.items():
            del request.headers[name]  # a repeated request has them already
            request.headers[name] = value


@cache
def open_transport() -> Any:
    """Opens what google-auth renews tokens by."""
    import urllib3
    from google.auth.transport.urllib3 import Request

    make: Any = Request
    return make(urllib3.PoolManager())
