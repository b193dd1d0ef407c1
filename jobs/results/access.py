"""How deltalake reaches the storage: the same credentials, endpoint and patience as every other client of ours."""

from __future__ import annotations

import os
import uuid
from urllib.parse import quote

from jobs import storage
from jobs.errors import ConflictError, CredentialsError, RequestError
from jobs.storage import uris
from jobs.storage.local_files import locate
from jobs.storage.s3_settings import find_bucket_settings, find_ca_bundle, is_requester_pays, open_s3_session

_ENVIRONMENTS = {"gs": "GOOGLE_", "az": "AZURE_"}


def make_location(uri: str) -> str:
    """Returns a URI as deltalake wants it, percent-encoded: it would end the name of a folder at a ``#`` or ``?``.

    Raises:
        RequestError: a path that deltalake would take for another.
    """
    scheme, bucket, key = uris.split(uri)
    if strange := next((char for char in key if char in "%\\" or not (char.isprintable() or char == " ")), None):
        raise RequestError(
            f"{uri} has a {strange if strange.isprintable() else ascii(strange)} in it, which Delta Lake takes for "
            "something else: choose other --results"
        )
    return locate(key).as_uri() if scheme == "file" else f"{scheme}://{bucket}/{quote(key)}"


def make_storage_options(uri: str) -> dict[str, str]:
    """Returns deltalake's options for a URI: settings as boto3 resolves them now, and conditional writes."""
    scheme, bucket, _ = uris.split(uri)
    if scheme == "file":
        return {}
    patience = {"timeout": "600s", "connect_timeout": "5s", "allow_http": "true"}
    if scheme == "s3":
        return patience | make_s3_options(bucket)
    named = _ENVIRONMENTS[scheme]
    return patience | {name: value for name, value in os.environ.items() if name.startswith(named)}


def make_s3_options(bucket: str) -> dict[str, str]:
    """Returns the options of a bucket of S3.

    Raises:
        CredentialsError: boto3 finds no credentials.
    """
    found = open_s3_session().get_credentials()
    if found is None:
        raise CredentialsError(f"no credentials found for s3://{bucket}: set the AWS_* variables, a profile or a role")
    keys, settings = found.get_frozen_credentials(), find_bucket_settings(bucket)
    if certificates := find_ca_bundle():
        os.environ.setdefault("SSL_CERT_FILE", certificates)  # the only way that deltalake takes them
    options = {
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": keys.secret_key,
        "aws_region": settings.region,
        "aws_endpoint_url": settings.locate_bucket(bucket),
        "aws_virtual_hosted_style_request": str(settings.is_virtual).lower(),
        "aws_conditional_put": "etag",
        "aws_allow_http": "true",
    }
    if keys.token:
        options["aws_session_token"] = keys.token
    return options | ({"aws_request_payer": "true"} if is_requester_pays() else {})


def check_conditional_put(uri: str) -> None:
    """Tries whether the storage refuses to write an object that is there already, which every commit depends on.

    Raises:
        RequestError: it does not.
    """
    probe = uris.join(uri, "_probe", uuid.uuid4().hex)
    storage.write(probe, b"first", if_absent=True)
    try:
        storage.write(probe, b"second", if_absent=True)
    except ConflictError:
        return
    finally:
        storage.delete(probe)
    raise RequestError(
        f"the storage of {uri} ignores conditional writes (If-None-Match), so two runs could overwrite each other's "
        "commits: keep --results on AWS S3, Google Cloud Storage, Azure, MinIO, Ceph Reef or newer, or a local disk"
    )
