"""The law of the layout: which package and which wing may import which, and that no import circle exists."""

from __future__ import annotations

import ast
import graphlib
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from setuptools import find_packages

from jobs.__main__ import COMMANDS
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
BELOW["results"] = {"storage", "tables"}
BELOW["review"] = {"storage", "tables", "results", "decoding"}
BELOW["datasets"] = BELOW["archive"] | {"archive"}
BELOW["explanation"] = BELOW["detectors"] | {"detectors", "results"}
BELOW["scoring"] = BELOW["detectors"] | {"detectors", "results", "review", "explanation"}
BELOW["training"] = BELOW["detectors"] | {"detectors", "results", "review"}
BELOW["evaluation"] = BELOW["training"] | {"datasets", "results", "scoring", "training"}
BELOW["findings"] = BELOW["scoring"] | {"scoring"}
BELOW["nights"] = BELOW["scoring"] | {"scoring"}
BELOW["synthetic"] = {"storage", "tables"}
BELOW["benchmarks"] = BELOW["evaluation"] | {"evaluation", "synthetic"}
BELOW["sizing"] = BELOW["benchmarks"] | {"benchmarks"}
"""The wings of jobs/ and which others each may import; all may import jobs.config, cli and errors, by their faces."""
MAX_FILES = 16
FOUNDATIONS = {"jobs.config", "jobs.cli", "jobs.errors"}


def python_files(root: Path) -> list[Path]:
    found = sorted(root.rglob("*.py"))
    assert found, f"{root} has no Python files: nothing would be checked"
    return found


def module_name(path: Path, root: Path) -> str:
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def list_imports(path: Path, root: Path) -> set[str]:
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
            wrong |= {f"{name} imports {other}" for other in list_imports(path, root) if _is_forbidden(name, other)}
    return wrong


def _is_forbidden(importer: str, other: str) -> bool:
    package, top = importer.split(".")[0], other.split(".")[0]
    if top in FORBIDDEN[package]:
        return True
    ours = wing(importer)
    is_foundation = bool({importer, importer.rpartition(".")[0]} & FOUNDATIONS)
    if top != "jobs" or other == "jobs" or (ours is None and not is_foundation):
        return False
    theirs = wing(other)
    if is_foundation:
        return theirs not in {None, "storage"}
    return other not in FOUNDATIONS if theirs is None else theirs not in BELOW[ours or ""] | {ours}


def import_circle(root: Path) -> list[str]:
    """The modules of one circle of imports, or none."""
    graph = {
        module_name(path, root): list_imports(path, root)
        for package in PACKAGES
        for path in python_files(root / package)
    }
    faces = {name: {other for other in found if other in graph and other != name} for name, found in graph.items()}
    try:
        graphlib.TopologicalSorter(faces).prepare()
    except graphlib.CycleError as error:
        return list(error.args[1])
    return []


def empty_wings(root: Path) -> set[str]:
    """The wings of the law that hold no module beside their __init__.py: nothing of them would be checked."""
    folders = {name: root / "jobs" / name for name in BELOW}
    return {name for name, folder in folders.items() if not set(folder.rglob("*.py")) - {folder / "__init__.py"}}


def imports_of(top_levels: set[str], root: Path) -> set[str]:
    """The modules that import one of some top-level packages."""
    paths = [path for package in PACKAGES for path in python_files(root / package)]
    return {
        module_name(path, root)
        for path in paths
        if {name.split(".")[0] for name in list_imports(path, root)} & top_levels
    }


def package_folders(root: Path) -> list[Path]:
    """Every folder that holds Python files of the packages."""
    return sorted({path.parent for package in PACKAGES for path in python_files(root / package)})


def plant(root: Path, **files: str) -> None:
    """Writes a tiny tree: an empty module in each wing, and ``files``, whose names have __ for each /."""
    modules = {f"jobs/{name}/one": "" for name in BELOW} | dict.fromkeys(("model/one", "tuning/one"), "")
    modules |= {name.replace("__", "/"): text for name, text in files.items()}
    for name, text in modules.items():
        place = root / f"{name}.py"
        place.parent.mkdir(parents=True, exist_ok=True)
        (place.parent / "__init__.py").touch()
        place.write_text(text)


def test_imports_follow_the_law() -> None:
    assert imports_against_the_law(ROOT) == set()


def test_there_is_no_import_circle() -> None:
    assert import_circle(ROOT) == []


def test_no_wing_is_empty() -> None:
    assert empty_wings(ROOT) == set()


def test_a_lawful_tree_is_found_to_be_one(tmp_path: Path) -> None:
    plant(tmp_path, jobs__scoring__one="from jobs.storage import one\nfrom model.one import x\nimport jobs.config")
    assert (imports_against_the_law(tmp_path), import_circle(tmp_path), empty_wings(tmp_path)) == (set(), [], set())


@pytest.mark.parametrize(
    ("importer", "line"),
    [
        ("jobs__storage__one", "from jobs.scoring.one import x"),
        ("jobs__tables__one", "import jobs.cluster.one"),
        ("jobs__archive__one", "from jobs.scoring import one"),
        ("jobs__training__one", "from jobs.evaluation.one import x"),
        ("jobs__scoring__one", "from jobs.training.one import x"),
        ("jobs__scoring__one", "from jobs import score"),
        ("jobs__config", "from jobs.detectors.one import x"),
        ("jobs__config__places", "from jobs.detectors.one import x"),
        ("model__one", "import jobs.config"),
        ("model__one", "import ray"),
        ("jobs__scoring__one", "from tuning.one import x"),
        ("tuning__one", "from tests import support"),
    ],
)
@pytest.mark.parametrize("place", ["{line}", "def f():\n    {line}", "if TYPE_CHECKING:\n    {line}"])
def test_an_upward_import_is_found_wherever_it_stands(tmp_path: Path, importer: str, line: str, place: str) -> None:
    plant(tmp_path, jobs__score="", **{importer: place.format(line=line)})
    (wrong,) = imports_against_the_law(tmp_path)
    assert wrong.startswith(importer.replace("__", "."))


@pytest.mark.parametrize("place", ["{line}", "def f():\n    {line}", "if TYPE_CHECKING:\n    {line}"])
def test_a_circle_is_found_wherever_its_imports_stand(tmp_path: Path, place: str) -> None:
    files = {"model__a": "from model.b import x", "model__b": place.format(line="import model.c"), "model__c": ""}
    plant(tmp_path, **files)
    assert import_circle(tmp_path) == []
    plant(tmp_path, **files | {"model__c": place.format(line="from model import a")})
    assert set(import_circle(tmp_path)) == {"model.a", "model.b", "model.c"}


def test_an_empty_wing_is_found(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "jobs" / "decoding" / "one.py").unlink()
    assert empty_wings(tmp_path) == {"decoding"}


def test_a_missing_package_is_no_pass(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="nothing would be checked"):
        imports_against_the_law(tmp_path)


def test_only_storage_opens_object_storage() -> None:
    users = imports_of({"obstore", "boto3", "botocore", "azure", "google"}, ROOT)
    rooms = ("azure", "clients", "errors", "google", "listing", "objects", "obstore_filesystem", "odd_keys")
    assert users == {f"jobs.storage.{name}" for name in (*rooms, "s3_settings")}


def test_storage_is_known_by_its_face_alone() -> None:
    rooms = {f"jobs.storage.{name}" for name in ("arrow", "clients", "errors", "listing", "objects")}
    paths = [path for package in PACKAGES for path in python_files(ROOT / package)]
    outside = [path for path in paths if wing(module_name(path, ROOT)) != "storage"]
    assert {module_name(path, ROOT) for path in outside if list_imports(path, ROOT) & rooms} == set()


def test_no_module_unpickles() -> None:
    assert imports_of({"pickle", "cloudpickle", "joblib", "dill", "shelve"}, ROOT) == set()


def test_every_folder_is_a_package_of_the_wheel() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    found = set(find_packages(str(ROOT), include=tool["packages"]["find"]["include"]))
    assert found == {module_name(folder / "__init__.py", ROOT) for folder in package_folders(ROOT)}
    assert [folder for folder in package_folders(ROOT) if not (folder / "__init__.py").exists()] == []


def test_every_package_tells_type_checkers_of_its_types() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert all("py.typed" in tool["package-data"][package] for package in PACKAGES)
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


def test_no_folder_holds_more_files_than_a_reader_takes_in() -> None:
    # Commands are the names on the doors, one file each, and not rooms.
    doors = {ROOT.joinpath(*module.split(".")).with_suffix(".py") for module, _ in COMMANDS.values()}
    files = {folder: set(folder.glob("*.py")) - doors for folder in package_folders(ROOT)}
    sizes = {str(folder.relative_to(ROOT)): len(found) for folder, found in files.items()}
    assert {name: count for name, count in sizes.items() if count > MAX_FILES} == {}
