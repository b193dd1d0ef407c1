"""Microsoft's client of Azure's storage, for odd keys, which obstore cannot name. Part of jobs.storage.

It takes thirty times as long per listed object (0.2 ms of CPU), so it lists only what obstore cannot.
It is imported where it is called: it takes 0.7 s of CPU, which only who reads Azure has to spend.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from jobs.errors import RefusedError
from jobs.storage.clients import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, RETRY_TIMEOUT

if TYPE_CHECKING:
    from azure.storage.blob import BlobProperties, ContainerClient

PAGE_OBJECTS = 1000
RETRY_PAUSE_S = 15
_DOTTED = re.compile(r"(^|/)\.{1,2}(/|$)")
_EMULATOR_ACCOUNT, _EMULATOR_URL = "devstoreaccount1", "http://127.0.0.1:10000"


@cache
def open_container(name: str) -> ContainerClient:
    """Opens Microsoft's client of a container, with the variables that obstore reads."""
    from azure.storage.blob import ContainerClient, LinearRetry

    return ContainerClient(
        find_address(),
        name,
        credential=find_credential(),
        retry_policy=LinearRetry(backoff=RETRY_PAUSE_S, retry_total=RETRY_TIMEOUT.seconds // RETRY_PAUSE_S),
        connection_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
    )


def find_address() -> str:
    """Returns the address of the account's blobs."""
    endpoint = os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT")
    if endpoint:
        return endpoint
    if os.environ.get("AZURE_STORAGE_USE_EMULATOR", "").lower() in ("1", "true"):
        url = os.environ.get("AZURITE_BLOB_STORAGE_URL", _EMULATOR_URL).rstrip("/")
        return f"{url}/{os.environ.get('AZURE_STORAGE_ACCOUNT_NAME', _EMULATOR_ACCOUNT)}"
    return f"https://{os.environ.get('AZURE_STORAGE_ACCOUNT_NAME', '')}.blob.core.windows.net"


def find_credential() -> Any:
    """Returns the account's key or signature, or else the identity of the machine, its user or its workload."""
    from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential

    for name in ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY"):
        if key := os.environ.get(name):
            return AzureNamedKeyCredential(os.environ.get("AZURE_STORAGE_ACCOUNT_NAME", _EMULATOR_ACCOUNT), key)
    if signature := os.environ.get("AZURE_STORAGE_SAS_KEY") or os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        return AzureSasCredential(signature)
    if os.environ.get("AZURE_SKIP_SIGNATURE", "").lower() in ("1", "true"):
        return None
    from azure.identity import DefaultAzureCredential  # takes half a second to import, and keys need none of it

    return DefaultAzureCredential()


def list_blobs(container: str, prefix: str) -> Iterator[list[BlobProperties]]:
    """Lists blobs page by page, whatever their keys."""
    found = open_container(container).list_blobs(
        name_starts_with=prefix or None, include=["metadata"], results_per_page=PAGE_OBJECTS
    )
    for page in found.by_page():
        yield list(page)


def walk_level(container: str, prefix: str) -> tuple[list[BlobProperties], list[str]]:
    """Returns the blobs right below ``prefix``, and the prefixes of the folders there, with their slash."""
    from azure.storage.blob import BlobPrefix

    found = list(open_container(container).walk_blobs(name_starts_with=prefix or None, include=["metadata"]))
    folders = [item.name for item in found if isinstance(item, BlobPrefix)]
    return [item for item in found if not isinstance(item, BlobPrefix)], folders


def has_key_with_prefix(container: str, prefix: str) -> bool:
    """Tells whether any blob's key begins with ``prefix``; False where only obstore knows the credentials."""
    from azure.core.exceptions import ClientAuthenticationError

    first = open_container(container).list_blobs(name_starts_with=prefix, results_per_page=1)
    with suppress(ClientAuthenticationError):
        return next(first, None) is not None
    return False


def download(container: str, key: str, *, max_bytes: int | None = None) -> tuple[bytes | None, int, str]:
    """Downloads one blob.

    Returns:
        Its bytes, None where there are more than ``max_bytes``; how many it has; its entity tag, without quotes.
    """
    answer = open_container(container).download_blob(name_key(container, key))
    etag = str(answer.properties.etag).strip('"')
    if max_bytes is not None and answer.size > max_bytes:
        return None, answer.size, etag
    return answer.readall(), answer.size, etag


def read_size(container: str, key: str) -> int:
    """Asks for the size of a blob in bytes."""
    return int(open_container(container).get_blob_client(name_key(container, key)).get_blob_properties().size)


def delete_blob(container: str, key: str) -> None:
    """Deletes one blob."""
    open_container(container).delete_blob(name_key(container, key))


def name_key(container: str, key: str) -> str:
    """Returns the key, where a URL can carry it.

    Raises:
        RefusedError: it has a part ``.`` or ``..``, which the HTTP client would take out: that names another blob.
    """
    if _DOTTED.search(key):
        raise RefusedError(
            f"az://{container}/{key} cannot be named by clients of Azure, for its key has the part . or ..: rename it"
        )
    return key
