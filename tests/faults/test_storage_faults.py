"""A storage that misbehaves: what passes costs no row, what stays is a row that is tried again, and nothing is cut."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from jobs import storage
from jobs.archive.manifest import list_archive
from jobs.decoding.fetch import FetchDecode
from jobs.errors import CredentialsError, StorageError
from jobs.storage import clients as storage_clients
from jobs.storage import uris
from jobs.storage.clients import MAX_S3_ATTEMPTS
from jobs.tables.schema import RETRIED_CODES
from tests.support.bad_objects import jpeg
from tests.support.clients import fresh_clients
from tests.support.servers.fault_proxy import Proxy, Rule

KEYS = {"ordinary": "in/insulator/photo.jpg", "odd": "in/insulator//photo.jpg"}
"""The second one is read by another client."""


@pytest.fixture
def proxy(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """A proxy before the S3 server, that every client of this process goes through."""
    with Proxy(os.environ["AWS_ENDPOINT_URL"]) as running:
        monkeypatch.setenv("AWS_ENDPOINT_URL", running.url)
        with fresh_clients():
            yield running


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same number of tries, with pauses a thousandth as long."""
    from botocore.retries import standard

    pauses = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=15), "base": 2}
    monkeypatch.setitem(storage_clients._RETRY, "backoff", pauses)
    monkeypatch.setitem(storage_clients._RETRY, "max_retries", MAX_S3_ATTEMPTS)
    monkeypatch.setattr(standard.ExponentialBackoff, "delay_amount", lambda *_: 0.001)


def put(bucket: str, key: str, data: bytes) -> str:
    import boto3

    boto3.client("s3").put_object(Bucket=bucket.removeprefix("s3://"), Key=key, Body=data)
    return uris.join(bucket, key)


def fetched(bucket: str) -> list[str]:
    """The reason codes of what FetchDecode makes of the archive; empty for a photo that was decoded."""
    stage = FetchDecode(image_sizes={"insulator": 32}, max_pixels=10**7, concurrency=8)
    return [(error or "").split(":")[0] for error in stage(list_archive(f"{bucket}/in"))["error"].to_pylist()]


TRANSIENT = {
    "503": Rule("error", times=2, method="GET", part="photo"),
    "500": Rule("error", times=2, method="GET", part="photo", status=500, code="InternalError"),
    "429": Rule("error", times=2, method="GET", part="photo", status=429, code="TooManyRequests"),
    "reset": Rule("reset", times=2, method="GET", part="photo"),
    "body broken off": Rule("truncate", times=2, method="GET", part="photo"),
    "slow first byte": Rule("slow", times=1, method="GET", part="photo", delay_s=1.0),
    "short answer that calls itself whole": Rule("shorten", times=1, method="GET", part="photo"),
}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("fault", TRANSIENT)
def test_a_fault_that_passes_costs_no_row(fault: str, key: str, bucket: str, proxy: Proxy) -> None:
    rule = TRANSIENT[fault]
    put(bucket, KEYS[key], jpeg())
    proxy.rules.append(Rule(**vars(rule)))
    assert fetched(bucket) == [""]
    assert proxy.applied == {rule.kind: rule.times}


@pytest.mark.parametrize("key", KEYS)
def test_no_answer_within_the_time_limit_is_asked_for_again(
    key: str, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(storage_clients._CLIENT, "read_timeout", "1s")
    monkeypatch.setattr(storage_clients, "READ_TIMEOUT_S", 1)
    put(bucket, KEYS[key], jpeg())
    proxy.rules.append(Rule("hang", times=1, method="GET", part="photo"))
    assert fetched(bucket) == [""]
    assert proxy.applied == {"hang": 1}


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("kind", ["error", "reset", "truncate", "shorten"])
def test_a_fault_that_stays_is_a_row_that_the_next_run_tries_again(
    kind: str, key: str, bucket: str, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.decoding.reading.RETRY_PAUSES_S", (0.0, 0.0))
    put(bucket, KEYS[key], jpeg())
    put(bucket, "in/insulator/neighbour.jpg", jpeg())
    proxy.rules.append(Rule(kind, method="GET", part="photo"))
    assert sorted(fetched(bucket)) == ["", "storage"]
    assert "storage" in RETRIED_CODES


@pytest.mark.usefixtures("fast")
@pytest.mark.parametrize("call", ["read", "write", "list"])
def test_every_call_outlasts_as_many_refusals_as_a_minute_holds(call: str, bucket: str, proxy: Proxy) -> None:
    # At full length the pauses of so many tries are longer than a minute: the next test adds them up.
    uri = put(bucket, KEYS["ordinary"], jpeg())
    proxy.rules.append(Rule("error", times=MAX_S3_ATTEMPTS - 1))
    if call == "read":
        assert storage.read(uri) == jpeg()
    elif call == "write":
        storage.write(uri, b"new")
    else:
        assert [info.uri for info in storage.list_objects(f"{bucket}/in")] == [uri]
    assert proxy.applied == {"error": MAX_S3_ATTEMPTS - 1}


def test_the_pauses_between_tries_add_up_to_more_than_a_minute() -> None:
    # obstore's are never shorter than the first; boto3 and the AWS SDK draw theirs from [0, 2^n), at most 20 s.
    retry: Any = storage_clients._RETRY
    assert retry["retry_timeout"] >= timedelta(seconds=120)
    assert retry["max_retries"] * retry["backoff"]["init_backoff"] >= retry["retry_timeout"]
    longest_s = np.minimum(2.0 ** np.arange(MAX_S3_ATTEMPTS - 1), 20)
    lasted_s = np.random.default_rng(0).uniform(0, longest_s, (100_000, len(longest_s))).sum(axis=1)
    assert (lasted_s < 60).mean() < 0.002


@pytest.mark.nightly
@pytest.mark.parametrize("key", KEYS)
def test_throttling_for_a_real_minute_costs_no_row(key: str, bucket: str, proxy: Proxy) -> None:
    for number in range(40):
        put(bucket, KEYS[key].replace("photo", f"photo-{number}"), jpeg())
    rule = Rule("error", method="GET", part="photo")
    proxy.rules.append(rule)
    began = time.monotonic()
    proxy.lift(rule, after_s=60)
    assert fetched(bucket) == [""] * 40
    assert time.monotonic() - began > 60


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("status", [400, 403])
def test_expired_credentials_end_the_run_and_are_no_row(status: int, key: str, bucket: str, proxy: Proxy) -> None:
    put(bucket, KEYS[key], jpeg())
    put(bucket, "in/insulator/neighbour.jpg", jpeg())
    proxy.rules.append(Rule("error", part="photo", status=status, code="ExpiredToken"))
    with pytest.raises(CredentialsError, match=r"have run out \(ExpiredToken\): renew them"):
        fetched(bucket)


@pytest.mark.usefixtures("fast")
def test_a_storage_that_answers_nothing_ends_the_run_instead_of_waiting_for_every_photo(
    bucket: str, proxy: Proxy
) -> None:
    for number in range(16):
        put(bucket, f"in/insulator/{number}.jpg", jpeg())
    proxy.rules.append(Rule("error", method="GET", part=".jpg"))
    with pytest.raises(StorageError, match="none of 16 photos in a row could be fetched"):
        fetched(bucket)


def test_what_another_library_calls_a_response_is_no_error_code() -> None:
    error = OSError("connection broken")
    error.response = None  # type: ignore[attr-defined]  # as urllib3 has it
    assert "connection broken" in str(storage.translate_error(error, "s3://bucket/key"))
