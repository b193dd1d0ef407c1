"""The script of the first two nights, on a local head and the real S3 server, by users with least rights."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from jobs.results.known import read_rows
from tests.support.buckets import create_bucket
from tests.support.places import ROOT
from tests.support.scripts import check_bash
from tests.support.users import User, act_as, create_user, grant_all, read_policy

SCRIPT = ROOT / "infra" / "first-nights.sh"
PLACES = ("inspection-training", "inspection-archive", "inspection-models", "inspection-results")
ROLES = ("trainer", "scorer", "reviewer", "analyst")
PHOTOS, BROKEN = 72, 10
"""Of both nights together."""


def test_the_script_is_right_bash() -> None:
    check_bash(SCRIPT)


def test_a_wrong_number_of_places_is_answered_with_the_usage() -> None:
    done = subprocess.run([SCRIPT, "s3://one"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "training photos, archive, detectors, results" in done.stderr


@pytest.fixture
def places(s3_environment: str | None) -> dict[str, str]:
    """URIs of new buckets, by their names in the policies."""
    return {name: create_bucket(s3_environment) for name in PLACES}


@pytest.fixture
def users(places: dict[str, str]) -> dict[str, User]:
    """A user of each role, who may do what its policy says."""
    made = {role: create_user() for role in ROLES}
    grant_all({made[role]: read_policy(role) for role in ROLES}, places)
    return made


@pytest.fixture
def credentials(users: dict[str, User], tmp_path: Path) -> Path:
    """A file with a profile of each role and of the owner."""
    keys = {role: (user.name, user.secret) for role, user in users.items()}
    keys["owner"] = (os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    file = tmp_path / "credentials"
    file.write_text(
        "".join(
            f"[{name}]\naws_access_key_id={one}\naws_secret_access_key={two}\n" for name, (one, two) in keys.items()
        )
    )
    return file


@pytest.mark.docs
@pytest.mark.timeout(1200)
def test_two_nights_by_users_with_least_rights_are_whole_after_a_deadline(
    places: dict[str, str], users: dict[str, User], credentials: Path, tmp_path: Path
) -> None:
    for name in ("infra", "jobs", "model"):
        (tmp_path / name).symlink_to(ROOT / name)  # the script writes below the folder that it is run in
    own = {name: value for name, value in os.environ.items() if not name.endswith(("_ACCESS_KEY_ID", "_ACCESS_KEY"))}
    own.pop("RAY_ADDRESS", None)
    own |= {"AWS_SHARED_CREDENTIALS_FILE": str(credentials), "ROLES": "yes", "PYTHON": sys.executable}
    done = subprocess.run(
        [SCRIPT, *places.values()], cwd=tmp_path, env=own, capture_output=True, text=True, check=False, timeout=1100
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert re.search(r"(fleet-2026-03-31-1|fleet-check-\w+): stopped after 0.003 hours", said)
    assert re.search(r"fleet-2026-03-31-\d: succeeded", said)
    with act_as(users["analyst"]):  # what the scorer wrote is not the bucket owner's
        rows = read_rows(places["inspection-results"], ["image_uri", "status", "run_id"]).to_pylist()
    assert Counter(Counter(row["image_uri"] for row in rows).values()) == {1: PHOTOS + BROKEN}
    assert Counter(row["status"] for row in rows) == {"scored": PHOTOS, "unreadable": BROKEN}
    assert Counter(row["run_id"] for row in rows) == {"fleet-2026-03-31": 41, "fleet-2026-04-30": 41}
    assert "3 verdicts" in said
