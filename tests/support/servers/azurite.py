"""Azurite, Microsoft's own emulator of Azure's blob storage: an npm package, which `.ci/run` installs by its name."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pyarrow import fs

from tests.support.places import ROOT

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's own, as published in its documentation."""
MAX_START_S = 60


def find_azurite() -> str | None:
    """Returns the program's path: on the PATH, or where `.ci/run` puts it."""
    installed = ROOT / "build" / "azurite" / "node_modules" / ".bin" / "azurite-blob"
    return shutil.which("azurite-blob") or (str(installed) if installed.exists() else None)


@contextmanager
def serve_azurite(program: str, folder: Path) -> Iterator[dict[str, str]]:
    """Serves an empty storage; yields the environment variables that lead to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--silent", "--disableTelemetry", "--skipApiVersionCheck", "--location", str(folder)]
    command = [program, *options, "--blobPort", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_for_port(port)
            yield {
                "AZURE_STORAGE_ACCOUNT_NAME": ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": KEY,
                "AZURE_STORAGE_ENDPOINT": f"http://127.0.0.1:{port}/{ACCOUNT}",
            }
        finally:
            server.terminate()


def wait_for_port(port: int) -> None:
    """Waits until somebody listens."""
    deadline = time.monotonic() + MAX_START_S
    while time.monotonic() < deadline:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise RuntimeError(f"Azurite did not start within {MAX_START_S} s")


def open_account() -> fs.AzureFileSystem:
    """Opens pyarrow's own client of Azure, which can make containers and write any key."""
    host = os.environ["AZURE_STORAGE_ENDPOINT"].split("/")[2]
    return fs.AzureFileSystem(
        account_name=ACCOUNT,
        account_key=KEY,
        blob_storage_authority=host,
        blob_storage_scheme="http",
        dfs_storage_authority=host,
        dfs_storage_scheme="http",
    )


def create_container() -> str:
    """Creates a container; returns its URI."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    open_account().create_dir(name)
    return f"az://{name}"
