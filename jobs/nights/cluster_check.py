"""Asks the head's Python, before anything runs, whether it has what a scoring run needs."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from jobs.errors import JobError, RequestError
from jobs.nights.config import NightlyConfig
from jobs.nights.head import Head, JobState
from model.versions import read_versions

PACKAGE = "attentdiffernet-ray"
MIN_PYTHON = (3, 11)
MODULES = ("deltalake", "numpy", "obstore", "pyarrow", "pydantic", "safetensors", "torch", "torchvision")
MARK = "attentdiffernet-check "
"""Begins the line of the answer, among what else a job's start may print."""
SCRIPT = """
import importlib.metadata, importlib.util, json, sys
def version(name):
    try: return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError: return None
print({mark!r} + json.dumps(dict(
    python=list(sys.version_info[:3]), ray=version("ray"), package=version({package!r}),
    missing=[name for name in {modules!r} if importlib.util.find_spec(name) is None])))
"""


def check_cluster(head: Head, config: NightlyConfig, *, wait: Callable[[str], JobState | None]) -> None:
    """Checks versions of Python, Ray and this package on the head, by a job of a second.

    Args:
        head: of the cluster.
        config: the request.
        wait: waits for a job of this id and returns how it ended; None where the head lost it.

    Raises:
        RequestError: the cluster lacks something, in one line that names all of it.
        JobError: the check itself did not run.
    """
    submission_id = f"{config.name}-check-{uuid.uuid4().hex[:8]}"
    script = SCRIPT.format(mark=MARK, package=PACKAGE, modules=MODULES)
    head.submit(submission_id, entrypoint=shlex.join([config.python, "-c", script]), folder=None)
    state = wait(submission_id)
    log = head.read_log(submission_id) if state else ""
    found = [line.removeprefix(MARK) for line in log.splitlines() if line.startswith(MARK)]
    if not found:
        said = (log.strip().splitlines() or [state.message if state else "the head has lost the job"])[-1]
        raise JobError(f"{config.head}: {config.python} did not run there: {said}; see --python")
    if lacks := list_lacks(json.loads(found[-1]), needed=read_versions(), upload_code=config.upload_code):
        raise RequestError(
            f"the Python of {config.head} ({config.python}) does not fit: {'; '.join(lacks)}: build its image from "
            "infra/Dockerfile of this version"
        )


def list_lacks(found: Mapping[str, Any], *, needed: Mapping[str, str], upload_code: bool) -> list[str]:
    """Lists what a head lacks, each as what was needed and what came.

    Args:
        found: python (three numbers), ray and package (versions or None), missing (names of modules).
        needed: versions of this installation, by distribution.
        upload_code: this package comes with the job, so that the head needs none.
    """
    lacks = []
    if tuple(found["python"][:2]) < MIN_PYTHON:
        lacks.append(f"needed Python >= {'.'.join(map(str, MIN_PYTHON))}, got {'.'.join(map(str, found['python']))}")
    if found["ray"] != needed["ray"]:
        lacks.append(f"needed Ray {needed['ray']}, got {found['ray'] or 'none'}")
    if not upload_code and found["package"] != needed[PACKAGE]:
        lacks.append(f"needed {PACKAGE} {needed[PACKAGE]}, got {found['package'] or 'none'} (or give --upload-code)")
    if found["missing"]:
        lacks.append(f"needed {', '.join(found['missing'])}, got none")
    return lacks
