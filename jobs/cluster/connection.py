"""The way to a Ray cluster: the one of RAY_ADDRESS and no other, else a local one of this process's own.

Ray's own ``address="auto"`` looks for any Ray process of the machine. It would join a stranger's, and die with it.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import psutil
import ray

from jobs import storage
from jobs.errors import JobError, RequestError, one_line
from model.config import BF16_VARIABLE

ADDRESS_VARIABLE = "RAY_ADDRESS"
OWN_CLUSTER = "local"
"""Value of RAY_ADDRESS that asks for a cluster of one's own, as does none."""
LOGICAL_CPUS_PER_CORE = 4
"""A local cluster of ours has more CPU slots than cores, or a stage that holds its slots could starve the next one."""
MAX_STARTS = 3
"""Tries to start a local Ray: on a busy machine its agents miss Ray's fixed 30 s now and then."""
MAX_PROBES = 4
"""Tries to reach a cluster, each up to PROBE_TIMEOUT_S, with PROBE_PAUSE_S between: a head node that is started again
is back within half a minute, and one that is gone does not hold a night's slot for longer."""
PROBE_TIMEOUT_S = 5.0
PROBE_PAUSE_S = 5.0
MAX_GCS_TRIES = 3
"""Tries of Ray itself to talk to what listens at the address. Each lasts 1 to 41 s (measured); Ray's default is 20."""


def connect() -> None:
    """Joins the cluster of RAY_ADDRESS, as `ray job submit` sets it too; without one starts a local cluster.

    Raises:
        RequestError: RAY_ADDRESS is no address of a cluster.
        JobError: no cluster answers there, or a local one does not start. No other cluster is joined then.
    """
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    os.environ.setdefault("RAY_worker_niceness", "0")
    address = os.environ.get(ADDRESS_VARIABLE, "")
    if address in ("", OWN_CLUSTER):
        start_cluster()
    else:
        join_cluster(address)


def is_cluster_named() -> bool:
    """Tells whether this process is in a cluster, or is told to be: RAY_ADDRESS=local asks for one of its own."""
    return bool(os.environ.get(ADDRESS_VARIABLE)) or ray.is_initialized()


def make_environment() -> dict[str, Any]:
    """Returns the runtime environment of this command's workers on a cluster that others have started."""
    asked_bf16 = {name: os.environ[name] for name in (BF16_VARIABLE,) if name in os.environ}
    return {"env_vars": storage.make_worker_environment() | asked_bf16}


def start_cluster() -> None:
    """Starts a local cluster that ends with this process, whose environment its workers inherit.

    It has no runtime environment: Ray would start its workers only once somebody waits for them.

    Raises:
        JobError: it did not start, for a reason that stays or ``MAX_STARTS`` times in a row.
    """
    others = set(psutil.Process().children())
    for number in range(1, MAX_STARTS + 1):
        try:
            ray.init(
                address=OWN_CLUSTER,
                num_cpus=LOGICAL_CPUS_PER_CORE * (os.cpu_count() or 1),
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.WARNING,
            )
        except Exception as error:  # Ray raises Exception itself where its processes do not come up in time
            ray.shutdown()
            end_children(others)
            if number == MAX_STARTS or will_fail_again(error):
                raise JobError(explain_failed_start(error, tries=number)) from error
            print(
                f"warning: a local Ray did not start ({shorten(error)}): try {number + 1} of {MAX_STARTS}", flush=True
            )
        else:
            return


def end_children(others: Collection[psutil.Process]) -> None:
    """Ends Ray's children of this process but ``others``: what a failed start has left would slow the next one."""
    left = [child for child in psutil.Process().children() if child not in others and is_part_of_ray(child)]
    for child in left:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    psutil.wait_procs(left, timeout=5)


def is_part_of_ray(process: psutil.Process) -> bool:
    """Tells whether Ray started a process: another thread may have begun one of its own meanwhile."""
    with suppress(psutil.Error):
        return any("/ray/" in argument for argument in process.cmdline())
    return False


def will_fail_again(error: Exception) -> bool:
    """Says whether a start failed for a reason that stays: a folder or an option, not a machine that is busy."""
    return isinstance(error, OSError | ValueError) and not isinstance(error, ConnectionError | TimeoutError)


def explain_failed_start(error: Exception, *, tries: int) -> str:
    """Returns why a local Ray did not start and what to do, as one line."""
    if "AF_UNIX path length" in str(error):
        folder = os.environ.get("RAY_TMPDIR") or os.environ.get("TMPDIR")
        return (
            f"Ray needs a folder for its sockets whose path has at most about 40 characters, got {folder!r}: set "
            "RAY_TMPDIR to a short one, such as /tmp"
        )
    if isinstance(error, OSError) and error.filename:
        return f"a local Ray did not start: {error.strerror}: {error.filename}; see RAY_TMPDIR"
    times = f" {tries} times" if tries > 1 else ""
    return (
        f"a local Ray did not start{times}: {shorten(error)}; free memory and cores and try again, or set "
        f"{ADDRESS_VARIABLE} to a running cluster"
    )


def join_cluster(address: str) -> None:
    """Joins the cluster at ``address``.

    Raises:
        RequestError: it is no address of a cluster.
        JobError: nothing answers there, or not as a cluster that this process can join.
    """
    check_address(address)
    if address != "auto":
        wait_for_listener(address)
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", str(MAX_GCS_TRIES))  # Ray's name for the number of tries
    try:
        ray.init(address=address, runtime_env=make_environment(), log_to_driver=False, logging_level=logging.WARNING)
    except Exception as error:  # of many kinds: another version, no node on this machine, no cluster at all
        ray.shutdown()
        raise JobError(
            f"{ADDRESS_VARIABLE}={address}: cannot join a Ray cluster there: {shorten(error)}; correct it, or unset it "
            "for a local Ray"
        ) from error


def check_address(address: str) -> None:
    """Checks that ``address`` may be a cluster's.

    Raises:
        RequestError: it is not.
    """
    if address == "auto":
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or "/" in host or not port.isdecimal() or not 0 < int(port) < 65536:
        hint = " (that is the dashboard's)" if address.startswith(("http://", "https://")) else ""
        raise RequestError(
            f"{ADDRESS_VARIABLE} needs host:port of a Ray cluster, such as 10.0.0.1:6379, or 'local', got "
            f"{address!r}{hint}: correct it, or unset it for a local Ray"
        )


def wait_for_listener(address: str) -> None:
    """Waits until something listens at ``host:port``.

    Raises:
        JobError: nothing has in ``MAX_PROBES`` tries.
    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    for number in range(1, MAX_PROBES + 1):
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE_TIMEOUT_S).close()
        except OSError as error:
            if number == MAX_PROBES:
                raise JobError(
                    f"{ADDRESS_VARIABLE}={address}: no Ray cluster answers there, tried {number} times "
                    f"({one_line(error)}); start it, correct the address, or unset it for a local Ray"
                ) from error
            print(f"warning: {ADDRESS_VARIABLE}={address} does not answer ({one_line(error)})", flush=True)
            time.sleep(PROBE_PAUSE_S)
        else:
            return


def shorten(error: Exception) -> str:
    """Returns the first sentence of what Ray says, for its messages go on with pages of advice."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return first.split(". ")[0].rstrip(".")
