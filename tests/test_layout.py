"""The law of the layout: which package and which wing may import which, and that no import circle exists."""

from __future__ import annotations

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

from tests.support.places import ROOT

PACKAGES = ("jobs", "model", "tuning")
FORBIDDEN = {
    "model": {"ray", "jobs", "tuning", "pyarrow", "obstore", "boto3", "tests"},
    "jobs": {"tuning", "tests"},
    "tuning": {"tests"},
}
BELOW = {
    "storage": set[str](),
    "tables": {"storage"},
    "archive": {"storage", "tables", "decoding", "cluster"},
    "decoding": {"storage", "tables"},
    "cluster": {"storage", "tables", "decoding"},
    "detectors": {"storage", "tables", "archive", "decoding", "cluster"},
}
BELOW["scoring"] = BELOW["detectors"] | {"detectors"}
BELOW["training"] = BELOW["detectors"] | {"detectors"}
BELOW["evaluation"] = BELOW["training"] | {"scoring", "training"}
BELOW["synthetic"] = {"storage"}
BELOW["benchmarks"] = BELOW["evaluation"] | {"evaluation", "synthetic"}
"""The wings of jobs/, and which of the others each may import; all may import jobs/config.py, cli.py and errors.py."""
FOUNDATIONS = {"jobs.config", "jobs.cli", "jobs.errors"}


def python_files(root: Path) -> list[Path]:
    found = sorted(root.rglob("*.py"))
    assert found, f"{root} has no Python files: nothing would be checked"
    return found


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, root: Path) -> set[str]:
    """Every module that a file imports, wherever the import stands, as a full dotted name."""
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in _names(node, root)}


def _names(node: ast.AST, root: Path) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        for alias in node.names:
            inner = f"{node.module}.{alias.name}"
            yield inner if _is_module(inner, root) else str(node.module)


def _is_module(name: str, root: Path) -> bool:
    place = root.joinpath(*name.split("."))
    return place.with_suffix(".py").exists() or (place / "__init__.py").exists()


def wing(module: str) -> str | None:
    """The wing of a module of jobs/; None for commands and foundations, which lie beside the wings."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "jobs" and parts[1] in BELOW else None


def imports_against_the_law(root: Path) -> set[str]:
    """'file imports module' for each import that the law forbids."""
    wrong = set()
    for package in PACKAGES:
        for path in python_files(root / package):
            name = module_name(path, root)
            wrong |= {f"{name} imports {other}" for other in imported(path, root) if _is_forbidden(name, other)}
    return wrong


def _is_forbidden(importer: str, other: str) -> bool:
    package, top = importer.split(".")[0], other.split(".")[0]
    if top in FORBIDDEN[package]:
        return True
    ours = wing(importer)
    if top != "jobs" or other == "jobs" or (ours is None and importer not in FOUNDATIONS):
        return False
    theirs = wing(other)
    if importer in FOUNDATIONS:
        return theirs not in {None, "storage"}
    return other not in FOUNDATIONS if theirs is None else theirs not in BELOW[ours or ""] | {ours}


def import_circle(root: Path) -> list[str]:
    """The modules of one circle of imports, or none."""
    graph = {
        module_name(path, root): imported(path, root) for package in PACKAGES for path in python_files(root / package)
    }
    faces = {name: {other for other in found if other in graph and other != name} for name, found in graph.items()}
    try:
        graphlib.TopologicalSorter(faces).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def test_imports_follow_the_law() -> None:
    assert imports_against_the_law(ROOT) == set()


def test_there_is_no_import_circle() -> None:
    assert import_circle(ROOT) == []
