"""Users of the real S3 server who have exactly the rights of a policy of infra/iam."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.clients import fresh_clients
from tests.support.places import ROOT

CEPH_FOLDER = "TEST_CEPH_FOLDER"
"""Environment variable with the folder of the server that conftest started."""
Policy = dict[str, Any]


@dataclass(frozen=True)
class User:
    """Whom the server knows by these keys."""

    name: str
    secret: str


def read_policy(role: str) -> Policy:
    policy: Policy = json.loads((ROOT / "infra" / "iam" / f"{role}.json").read_text())
    return policy


def list_rights(policy: Policy) -> list[tuple[str, str]]:
    """Every right as the id of its statement and the action."""
    return [(statement["Sid"], action) for statement in policy["Statement"] for action in statement["Action"]]


def take_away(policy: Policy, sid: str, action: str) -> Policy:
    less = copy.deepcopy(policy)
    for statement in less["Statement"]:
        if statement["Sid"] == sid:
            statement["Action"].remove(action)
    less["Statement"] = [statement for statement in less["Statement"] if statement["Action"]]
    return less


def create_user() -> User:
    """Creates a user who may do nothing."""
    folder = Path(os.environ[CEPH_FOLDER])
    user = User(f"user{uuid.uuid4().hex[:8]}", uuid.uuid4().hex)
    command = ["radosgw-admin", "--conf", str(folder / "ceph.conf"), "user", "create", "--uid", user.name]
    command += ["--display-name", user.name, "--access-key", user.name, "--secret-key", user.secret]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    return user


@contextmanager
def act_as(user: User) -> Iterator[None]:
    """Uses the user's keys, and none of the owner's, in this process."""
    with fresh_clients(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", user.name)
        patch.setenv("AWS_SECRET_ACCESS_KEY", user.secret)
        yield


def grant(user: User, policy: Policy, buckets: dict[str, str]) -> None:
    """Gives a user the rights of a policy, by the policies of the buckets, in place of those given before.

    Args:
        user: who.
        policy: as AWS takes it for a role.
        buckets: URIs of the test's buckets, by their names in the policy.
    """
    grant_all({user: policy}, buckets)


def grant_all(policies: Mapping[User, Policy], buckets: Mapping[str, str]) -> None:
    """Gives each user the rights of his policy, and takes all rights given before; see `grant`."""
    import boto3

    owner = boto3.client("s3")
    for written, uri in buckets.items():
        bucket = uri.removeprefix("s3://")
        given = [
            statement | {"Resource": resources, "Principal": {"AWS": [f"arn:aws:iam:::user/{user.name}"]}}
            for user, policy in policies.items()
            for statement in policy["Statement"]
            if (resources := list_resources(statement, written=written, bucket=bucket))
        ]
        if given:
            owner.put_bucket_policy(Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": given}))
        else:
            owner.delete_bucket_policy(Bucket=bucket)


def list_resources(statement: dict[str, Any], *, written: str, bucket: str) -> list[str]:
    """The resources of a statement, with the bucket of the test in place of ``written``; none if it is about others."""
    resources = [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
    if resources[0].removeprefix("arn:aws:s3:::").split("/")[0] != written:
        return []
    return [resource.replace(f":::{written}", f":::{bucket}") for resource in resources]
