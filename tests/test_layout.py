"""The one rule of the layout: tuning -> jobs -> model, and model knows neither clusters nor storage."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "model": {"ray", "jobs", "tuning", "pyarrow", "obstore", "boto3", "tests"},
    "jobs": {"tuning", "tests"},
    "tuning": {"tests"},
}


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_go_one_way(package: str) -> None:
    files = list((ROOT / package).glob("*.py"))
    assert files
    wrong = {path.name: bad for path in files if (bad := _imported(path) & FORBIDDEN[package])}
    assert wrong == {}


def test_only_storage_opens_object_storage() -> None:
    users = {path.name for path in (ROOT / "jobs").glob("*.py") if _imported(path) & {"obstore", "boto3", "botocore"}}
    assert users == {"storage.py", "storage_clients.py", "storage_errors.py"}
    others = {path.name for path in (ROOT / "jobs").glob("*.py")} - users - {"storage_arrow.py"}
    rooms = re.compile(r"storage_(arrow|clients|errors)")
    knowing = {name for name in others if rooms.search((ROOT / "jobs" / name).read_text())}
    assert knowing == set()


def test_no_module_unpickles() -> None:
    modules = [path for package in FORBIDDEN for path in (ROOT / package).glob("*.py")]
    wrong = {path.name for path in modules if _imported(path) & {"pickle", "cloudpickle", "joblib", "dill", "shelve"}}
    assert wrong == set()


def test_every_package_is_listed_for_the_wheel() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert listed == sorted(FORBIDDEN, key=["jobs", "model", "tuning"].index)
