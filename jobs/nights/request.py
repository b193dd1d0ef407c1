"""What a night asks of jobs.score: a file of its fields, checked before anything is submitted."""

from __future__ import annotations

import shlex
import shutil
from pathlib import Path

from jobs.cli import parse_config, read_yaml
from jobs.config import is_relative, list_uri_fields
from jobs.errors import RequestError
from jobs.nights.config import NightlyConfig
from jobs.scoring.config import ScoreConfig

SENT_NAME = "score.yaml"
"""Name of the file in the job's working directory."""


def write_request(config: NightlyConfig, folder: Path) -> str:
    """Checks the fields of the scoring run and copies their file to ``folder``, which is sent along.

    Returns:
        The shell command of the run. Its places are flags too, so that the head's list of jobs says what each scores.

    Raises:
        RequestError: a field is wrong, or a place is one of this machine alone.
    """
    path = config.score_config
    request = parse_config(ScoreConfig, ["--config", path, "--run-id", config.run_id])
    if request.local:
        raise RequestError(f"{path}: local scores in one process, on the head: take it out, a night is for a cluster")
    fields = read_yaml(path, ScoreConfig)
    if "run_id" in fields:
        raise RequestError(f"{path}: run_id is made of the name and the night ({config.run_id}): take it out")
    for name in list_uri_fields(ScoreConfig):
        place = fields.get(name)
        if isinstance(place, str) and (is_relative(place) or place.startswith("~")):
            raise RequestError(
                f"{path}: {name}: expected a URI, or an absolute path that all nodes share, got {place!r}, which is "
                "another place on the cluster"
            )
    shutil.copyfile(path, folder / SENT_NAME)
    command = [config.python, "-m", "jobs.score", "--config", SENT_NAME, "--run-id", config.run_id]
    places = ["--archive", request.archive, "--detectors", request.detectors, "--results", request.results]
    return shlex.join([*command, *places])


def is_same_request(entrypoint: str, other: str) -> bool:
    """Tells whether two commands score the same archive with the same registry into the same results."""
    return entrypoint.partition(" jobs.score ")[2] == other.partition(" jobs.score ")[2]
