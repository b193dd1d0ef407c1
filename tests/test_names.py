"""Names as the house wants them: functions are verbs, classes are unique, errors and limits say what they are."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from jobs.__main__ import COMMANDS
from tests.support.places import ROOT

PACKAGES = ("jobs", "model", "tuning")
VERBS_IN_ED = {"embed", "feed", "need", "seed", "shed", "speed"}
IRREGULAR = {"drawn", "found", "given", "held", "hidden", "kept", "known", "lost", "made", "sent", "taken", "written"}
PROPERTIES = {"property", "cached_property"}
MAX_FILES_PER_FOLDER = 16


@cache
def trees() -> dict[str, ast.Module]:
    """Returns the syntax tree of every file of ours, by its path below the checkout."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            found[path.relative_to(ROOT).as_posix()] = ast.parse(path.read_text())
    return found


def definitions(*kinds: type[ast.AST]) -> Iterator[tuple[str, ast.AST]]:
    """Yields every definition of these kinds, with the file it stands in."""
    for path, tree in trees().items():
        yield from ((path, node) for node in ast.walk(tree) if isinstance(node, kinds))


def is_property(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Tells whether a function is read like an attribute, whose name may be a noun or a participle."""
    return any(isinstance(decorator, ast.Name) and decorator.id in PROPERTIES for decorator in function.decorator_list)


def begins_with_a_participle(name: str) -> bool:
    """Tells whether a name begins with a past participle, as ``scored`` or ``_kept_rows`` do."""
    first = name.strip("_").split("_")[0]
    return first in IRREGULAR or (first.endswith("ed") and first not in VERBS_IN_ED)


@pytest.mark.parametrize("name", ["scored", "_kept_rows", "decoded_photos", "lost"])
def test_a_participle_is_known(name: str) -> None:
    assert begins_with_a_participle(name)


@pytest.mark.parametrize("name", ["score", "_keep_rows", "read_rows", "seed_everything", "is_fixed", "need"])
def test_a_verb_is_no_participle(name: str) -> None:
    assert not begins_with_a_participle(name)


def test_no_function_is_named_by_a_participle() -> None:
    found = [
        f"{path}: {node.name}"
        for path, node in definitions(ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not is_property(node)
        and begins_with_a_participle(node.name)
    ]
    assert found == []


def test_no_class_name_occurs_twice() -> None:
    places = defaultdict(list)
    for path, node in definitions(ast.ClassDef):
        if isinstance(node, ast.ClassDef):
            places[node.name].append(path)
    assert {name: paths for name, paths in places.items() if len(paths) > 1} == {}


def test_every_error_is_called_an_error() -> None:
    bases = {
        node.name: {base.id for base in node.bases if isinstance(base, ast.Name)}
        for _, node in definitions(ast.ClassDef)
        if isinstance(node, ast.ClassDef)
    }
    errors = {"Exception", "BaseException", "ValueError", "RuntimeError", "KeyError", "OSError"}
    while more := {name for name, above in bases.items() if above & errors} - errors:
        errors |= more
    assert [name for name in sorted(errors & bases.keys()) if not name.endswith("Error")] == []


def test_limits_are_called_max_and_min() -> None:
    names = [node.id for _, node in definitions(ast.Name) if isinstance(node, ast.Name)]
    assert sorted({name for name in names if re.match(r"_?(MOST|FEWEST|LARGEST|SMALLEST)_", name)}) == []


def python_folders() -> list[Path]:
    """Returns every folder with Python files, tests included."""
    return sorted({path.parent for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py")})


@pytest.mark.parametrize("folder", python_folders(), ids=lambda folder: folder.relative_to(ROOT).as_posix())
def test_a_folder_is_small_enough_to_be_read(folder: Path) -> None:
    # A command is a door of a few lines with a name of its own: a list of doors may be long.
    doors = {ROOT.joinpath(*module.split(".")).with_suffix(".py") for module, _ in COMMANDS.values()}
    files = [path.name for path in folder.glob("*.py") if path.name != "__init__.py" and path not in doors]
    assert len(files) <= MAX_FILES_PER_FOLDER
