"""One source of settings: what boto3 resolves is what obstore and pyarrow are given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pyarrow import fs

from jobs.storage import arrow, clients, s3_settings
from tests.support.clients import fresh_clients


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Nothing set but keys, and a storage that never says a bucket's region."""
    for name in (
        "ENDPOINT_URL",
        "ENDPOINT_URL_S3",
        "DEFAULT_REGION",
        "REGION",
        "PROFILE",
        "CA_BUNDLE",
        "REQUEST_PAYER",
    ):
        monkeypatch.delenv(f"AWS_{name}", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setattr(s3_settings, "find_bucket_region", lambda bucket: None)
    with fresh_clients():
        yield


def use_profile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Makes ``text`` the profile in use."""
    (tmp_path / "config").write_text(f"[profile mine]\n{text}\n")
    monkeypatch.setenv("AWS_PROFILE", "mine")


@pytest.mark.slow
def test_aws_region_alone_is_the_region_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert clients.open_boto3_client("s3").meta.region_name == "eu-central-1"
    store: Any = clients.open_store("s3", "photos")
    assert store.config["region"] == "eu-central-1"
    assert store.config["endpoint"] == "https://photos.s3.eu-central-1.amazonaws.com"
    assert arrow.open_s3_filesystem("photos").region == "eu-central-1"


def test_the_endpoint_of_a_profile_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_profile(tmp_path, monkeypatch, "endpoint_url = http://127.0.0.1:9\nregion = here")
    store: Any = clients.open_store("s3", "photos")
    assert (store.config["endpoint"], store.config["region"]) == ("http://127.0.0.1:9", "here")
    assert arrow.make_worker_environment()["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_required"


def test_a_bucket_with_dots_is_no_host_name() -> None:
    # AWS's certificate is for one name before its own: https://a.b.s3.amazonaws.com is refused by every client.
    assert not s3_settings.find_bucket_settings("a.b").is_virtual
    assert s3_settings.find_bucket_settings("photos").is_virtual


@pytest.mark.parametrize(
    ("style", "address"), [("path", "https://s3.eu-west-1"), ("virtual", "https://photos.s3.eu-west-1")]
)
def test_the_addressing_style_of_a_profile_is_used(
    style: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_profile(tmp_path, monkeypatch, f"region = eu-west-1\ns3 =\n  addressing_style = {style}")
    store: Any = clients.open_store("s3", "photos")
    assert store.config["endpoint"] == f"{address}.amazonaws.com"
    assert str(store.config["virtual_hosted_style_request"]).lower() == str(style == "virtual").lower()


def test_a_bucket_of_another_region_is_asked_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    monkeypatch.setattr(s3_settings, "find_bucket_region", lambda bucket: "eu-central-1")
    store: Any = clients.open_store("s3", "photos")
    assert store.config["endpoint"] == "https://photos.s3.eu-central-1.amazonaws.com"
    assert arrow.open_s3_filesystem("photos").region == "eu-central-1"


@pytest.mark.slow
def test_requests_to_the_buckets_of_others_are_paid_for_where_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    store: Any = clients.open_store("s3", "photos")
    assert str(store.config["request_payer"]).lower() in ("true", "requester")
    sent: list[bytes] = []

    def stop(request: Any, **_: object) -> None:
        sent.append(request.headers["x-amz-request-payer"])
        raise RuntimeError("enough seen")

    clients.open_boto3_client("s3").meta.events.register("before-send.s3", stop)
    with pytest.raises(RuntimeError, match="enough seen"):
        clients.open_boto3_client("s3").list_objects_v2(Bucket="photos")
    assert sent == [b"requester"]


def test_pyarrow_pays_too(monkeypatch: pytest.MonkeyPatch) -> None:
    assert isinstance(arrow.resolve_filesystem("s3://photos/x")[0], fs.S3FileSystem)  # it has no such setting
    monkeypatch.setenv("AWS_REQUEST_PAYER", "requester")
    clients.open_store.cache_clear()
    filesystem, path = arrow.resolve_filesystem("s3://photos/x")
    store = filesystem.handler.fs._construct_store("photos")
    assert (path, str(store.config["request_payer"]).lower()) == ("photos/x", "true")


def test_the_certificates_of_the_variable_or_profile_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert s3_settings.find_ca_bundle() == os.environ.get("REQUESTS_CA_BUNDLE")
    use_profile(tmp_path, monkeypatch, f"ca_bundle = {tmp_path}/profile.pem")
    assert s3_settings.find_ca_bundle() == f"{tmp_path}/profile.pem"
    monkeypatch.setenv("AWS_CA_BUNDLE", f"{tmp_path}/variable.pem")
    assert s3_settings.find_ca_bundle() == f"{tmp_path}/variable.pem"
