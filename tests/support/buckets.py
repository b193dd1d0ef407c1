"""Buckets on the real S3 server. boto3 takes half a second to import, so tests without S3 do not."""

from __future__ import annotations

import json
import uuid

import pytest


def create_bucket(s3_environment: str | None) -> str:
    """Creates a bucket, or skips with the reason that the fixture ``s3_environment`` gave."""
    if s3_environment is not None:
        pytest.skip(s3_environment)
    import boto3

    name = f"test-{uuid.uuid4().hex[:12]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return f"s3://{name}"


def deny_reading(bucket: str, key: str) -> None:
    """Allows listing but not reading one key, by bucket policy."""
    import boto3

    name = bucket.removeprefix("s3://")
    resource = f"arn:aws:s3:::{name}/{key}"
    statement = {"Effect": "Deny", "Principal": "*", "Action": "s3:GetObject", "Resource": resource}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    boto3.client("s3").put_bucket_policy(Bucket=name, Policy=policy)
