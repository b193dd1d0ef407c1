"""The audit of dependencies: by pinned tools, and never silent about a package that nobody looked up."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.places import ROOT

UNKNOWN = "ERROR:pip_audit._cli:ray: Dependency not found on PyPI and could not be audited: ray (2.60.0)"
UNREACHABLE = "Traceback (most recent call last):\n  File ...\nrequests.exceptions.ConnectionError: pypi.org: no route"
"""What pip-audit 2.10.1 says behind a mirror, and without a network."""


def run_audit(folder: Path, *, code: int, found: str = "", said: str = "") -> subprocess.CompletedProcess[str]:
    """Runs the script with a pip-audit that ends so; it notes its flags."""
    tool = folder / "pip-audit"
    lines = ["#!/bin/sh", f'echo "$@" > {folder}/flags', f"printf '%s' '{found}'", f"printf '%s' '{said}' >&2"]
    tool.write_text("\n".join([*lines, f"exit {code}"]) + "\n")
    tool.chmod(0o755)
    (folder / "pins.txt").write_text("ray==2.60.0\n")
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"}
    argv = [ROOT / "infra" / "audit.sh", folder / "pins.txt"]
    return subprocess.run(argv, env=environment, capture_output=True, text=True, check=False, timeout=60)


def test_packages_without_weaknesses_end_with_zero(tmp_path: Path) -> None:
    done = run_audit(tmp_path, code=0, said="No known vulnerabilities found\n")
    assert (done.returncode, done.stdout) == (0, "No known vulnerabilities found\n")


def test_known_weaknesses_are_listed_and_end_with_one(tmp_path: Path) -> None:
    done = run_audit(tmp_path, code=1, found="ray 2.60.0 PYSEC-1\n", said="Found 1 known vulnerability in 1 package\n")
    assert (done.returncode, done.stdout) == (1, "ray 2.60.0 PYSEC-1\n")
    assert "raise their versions in pyproject.toml" in done.stderr


@pytest.mark.parametrize("said", [UNKNOWN, UNREACHABLE], ids=["behind a mirror", "without a network"])
def test_what_could_not_be_looked_up_is_one_line_and_no_success(tmp_path: Path, said: str) -> None:
    done = run_audit(tmp_path, code=1, said=said)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: needed PyPI's advisories for every package of ")
    assert said.splitlines()[-1] in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_package_that_the_index_does_not_know_is_no_success_of_pip_audit_either(tmp_path: Path) -> None:
    run_audit(tmp_path, code=0)
    assert "--strict" in (tmp_path / "flags").read_text().split()


def test_the_tools_are_pinned_by_hashes_in_an_environment_of_their_own() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "tool run" not in makefile  # which takes what is newest below the tool
    assert "--require-hashes -r infra/requirements-audit.txt" in makefile
    blocks = re.split(r"^(?=[\w.-]+(?:\[.*\])?==)", (ROOT / "infra" / "requirements-audit.txt").read_text(), flags=re.M)
    assert {"pip-audit", "cyclonedx-bom"} <= {block.split("==")[0] for block in blocks}
    assert all("--hash=sha256:" in block for block in blocks if block.strip())
