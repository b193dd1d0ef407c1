"""How to reach S3: the AWS_* variables and profiles, read once for all clients. Part of jobs.storage.

boto3 resolves them; what it finds for a bucket is handed to obstore and pyarrow, so that all three agree. boto3 is
imported where it is called: it takes 0.15 s of CPU, which a command on local files, or its --help, need not spend.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from botocore.exceptions import BotoCoreError, ClientError

DEFAULT_REGION = "us-east-1"
_AWS_HOSTS = (".amazonaws.com", ".amazonaws.com.cn")


@dataclass(frozen=True)
class BucketSettings:
    """How one bucket is reached.

    Attributes:
        endpoint: address of the service, without the bucket.
        region: the one that requests are signed for.
        is_virtual: whether the bucket is the first part of the host name, else of the path.
    """

    endpoint: str
    region: str
    is_virtual: bool

    def locate_bucket(self, bucket: str) -> str:
        """Returns the address as obstore wants it: with the bucket in the host name where it belongs there."""
        if not self.is_virtual:
            return self.endpoint
        url = urlsplit(self.endpoint)
        return urlunsplit((url.scheme, f"{bucket}.{url.netloc}", url.path, "", ""))


@cache
def open_s3_session() -> Any:
    """Opens the session with credentials and region as the standard AWS_* variables, profiles and roles give them."""
    import boto3

    # Other clients of AWS read AWS_REGION, boto3 does not; a variable wins over a profile.
    region = os.environ.get("AWS_DEFAULT_REGION") or os.environ.get("AWS_REGION")
    return boto3.Session(region_name=region or None)


def find_s3_endpoint() -> str | None:
    """Returns the address of an S3-compatible store, by variable or profile; None for AWS."""
    named = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if named:
        return named
    if not Path(os.environ.get("AWS_CONFIG_FILE", "~/.aws/config")).expanduser().exists():
        return None  # without importing boto3, which takes half a second
    endpoint = make_client().meta.endpoint_url
    return None if is_aws(endpoint) else str(endpoint)


def is_aws(endpoint: str) -> bool:
    """Tells whether an address is one of AWS itself."""
    return (urlsplit(endpoint).hostname or "").endswith(_AWS_HOSTS)


def find_ca_bundle() -> str | None:
    """Returns the file of certificates that AWS_CA_BUNDLE, REQUESTS_CA_BUNDLE or the profile names."""
    import botocore.session

    found = botocore.session.get_session().get_config_variable("ca_bundle") or os.environ.get("REQUESTS_CA_BUNDLE")
    return str(found) if found else None


def is_requester_pays() -> bool:
    """Tells whether the caller pays for requests to buckets of others: AWS_REQUEST_PAYER=requester."""
    return os.environ.get("AWS_REQUEST_PAYER", "").lower() == "requester"


def make_client(*, region: str | None = None, **config: Any) -> Any:
    """Makes a client of boto3 that pays for its requests where that is asked for.

    Args:
        region: another region than the session's.
        config: more settings of botocore.config.Config.
    """
    from botocore.config import Config

    session = open_s3_session()
    region = region or session.region_name or DEFAULT_REGION
    client = session.client("s3", region_name=region, config=Config(**config))
    if is_requester_pays():
        client.meta.events.register("provide-client-params.s3", add_request_payer)
    return client


def add_request_payer(params: dict[str, Any], model: Any, **_: Any) -> dict[str, Any]:
    """Returns the parameters of a request with who pays for it, where the request can say so."""
    knows = model.input_shape is not None and "RequestPayer" in model.input_shape.members
    return params | {"RequestPayer": "requester"} if knows else params


@cache
def find_bucket_settings(bucket: str) -> BucketSettings:
    """Finds how a bucket is reached, which may lie in another region than the session's."""
    from botocore import UNSIGNED

    client = make_client(region=find_bucket_region(bucket), signature_version=UNSIGNED)
    address = urlsplit(client.generate_presigned_url("get_object", Params={"Bucket": bucket, "Key": "x"}))
    is_virtual = address.netloc.startswith(f"{bucket}.")
    return BucketSettings(client.meta.endpoint_url.rstrip("/"), client.meta.region_name, is_virtual)


def find_bucket_region(bucket: str) -> str | None:
    """Asks the storage for a bucket's region; None where it does not say, as most S3-compatible stores do not.

    The answer carries it also where it is an error: 301 from a wrong region, 403 without the permission.
    """
    client = make_client(connect_timeout=5, read_timeout=30, retries={"total_max_attempts": 2, "mode": "standard"})
    try:
        answer: Any = client.head_bucket(Bucket=bucket)
    except ClientError as error:
        answer = error.response
    except BotoCoreError:  # whoever asks for an object finds the same, with more patience, and says it
        return None
    with suppress(KeyError):
        return str(answer["ResponseMetadata"]["HTTPHeaders"]["x-amz-bucket-region"])
    return None
