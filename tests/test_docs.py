"""What the README and infra/docs say is checked here without running it: commands, flags, links and names of files."""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from jobs import cli
from jobs.__main__ import COMMANDS
from jobs.benchmark import BENCHMARKS
from jobs.errors import RequestError
from tests.support.pages import PAGES, README, blocks, inline_code, names, shell_lines
from tests.support.places import ROOT
from tuning.config import SearchConfig

DECISIONS = sorted((ROOT / "infra" / "decisions").glob("*.md"))
LINKING = [*PAGES, *DECISIONS, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"]
MAKEFILE = (ROOT / "Makefile").read_text()
INSTALLING = ("python3.11 -m venv ", ".venv/bin/pip install .", ". .venv/bin/activate")
CLUSTER = (
    "kubectl ",
    "helm install ",
    "docker ",
    "ray up ",
    "ray dashboard ",
    "export RAY_AUTH_MODE=",
    "ray job submit ",
)
"""What the pages do with others' tools; tests/infra/test_cluster_page.py looks at the files that cluster.md names."""
SCRIPTS = ("infra/first-nights.sh", "ROLES=yes infra/first-nights.sh ")
"""Run by tests/infra/test_first_nights.py."""
COMMAND = re.compile(r"(?:python -m ((?:jobs|tuning)\.\w+)|attentdiffernet ([a-z-]+))(?: (.*))?$")
PHOTOS = "--data /d --category c"
MINIMAL = {
    "jobs.train": f"{PHOTOS} --detectors /r",
    "jobs.score": "--archive /a --detectors /r --results /o --run-id night",
    "jobs.evaluate": "--data /d --detectors /r",
    "jobs.report": "--results /o --run-id night",
    "jobs.sample": "--results /o --run-id night",
    "jobs.nightly": "--head http://10.0.0.1:8265 --score-config infra/runs/score.yaml",
    "jobs.recalibrate": f"{PHOTOS} --detectors /r",
    "jobs.verdicts": "add marks.csv --results /o",
    "jobs.comparison": "--data /d --output /o",
    "jobs.dataset": "convert --layout visa --source /d --output /o",
    "jobs.benchmark": "peers",
    "jobs.capacity": "--photos 10M",
    "jobs.cli.completion": "--shell bash",
    "tuning.search": f"{PHOTOS} --results /o",
}
"""The shortest complete request of each command whose flags the pages show apart from a command."""


class Parsed(Exception):  # noqa: N818  # not an error: a command line was accepted, and its command stops here
    """Carries the configuration that a command line gave."""

    def __init__(self, config: BaseModel) -> None:
        super().__init__(type(config).__name__)
        self.config = config


@pytest.fixture(autouse=True)
def _stop_at_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every command ends where it has read its command line; files are found as from the checkout."""
    real = cli.parse_config

    def parse_and_stop(config_class: type[BaseModel], argv: Sequence[str], **settings: Any) -> BaseModel:
        raise Parsed(real(config_class, argv, **settings))

    for command in (*MINIMAL, "jobs.detectors.commands", "jobs.results.commands"):
        importlib.import_module(command)
    for name, module in list(sys.modules.items()):
        if name.startswith(("jobs", "tuning")) and getattr(module, "parse_config", None) is real:
            monkeypatch.setattr(module, "parse_config", parse_and_stop)
    monkeypatch.chdir(ROOT)


def parse(module: str, argv: Sequence[str]) -> BaseModel:
    """The configuration that a command makes of its arguments.

    Raises:
        RequestError: it refuses them.
    """
    try:
        importlib.import_module(module).main(list(argv))
    except Parsed as parsed:
        check(parsed.config)
        return parsed.config
    raise AssertionError(f"{module} ended without reading {argv}")


def check(config: BaseModel) -> None:
    """Looks at what a command checks after it has read its command line."""
    if isinstance(config, SearchConfig):
        from tuning.space.presets import build_presets
        from tuning.space.space import check_space, read_space

        check_space(read_space(config))
        assert build_presets(read_space(config))


def commands(page: Path) -> Iterator[tuple[str, list[str]]]:
    """Module and arguments of every command of ours on a page, in blocks and, if it has flags, in the text."""
    shown = [line.split(" -- ", 1)[-1] if line.startswith("ray job submit") else line for line in shell_lines(page)]
    for line in [*shown, *(code for code in inline_code(page) if " --" in code)]:
        if found := COMMAND.match(line):
            module, installed, arguments = found.groups()
            module = module or ("tuning.search" if installed == "search" else f"jobs.{installed.replace('-', '_')}")
            yield module, shlex.split(arguments or "")


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_command_of_a_page_is_accepted(page: Path) -> None:
    for module, arguments in commands(page):
        assert parse(module, arguments)


def test_the_pages_show_every_command_that_people_need() -> None:
    shown = {module for page in PAGES for module, _ in commands(page)}
    assert shown >= {f"jobs.{name}" for name in ("train", "score", "evaluate", "registry", "recalibrate", "comparison")}
    assert shown >= {"jobs.benchmark", "tuning.search"}


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_line_of_a_page_is_a_command_that_is_known(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for line in shell_lines(page):
        made = re.match(r"make ([a-z-]+)", line)
        assert (
            COMMAND.match(line) or line.startswith((*INSTALLING, *CLUSTER, *SCRIPTS)) or (made and made[1] in targets)
        ), line


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_make_target_of_a_page_exists(page: Path) -> None:
    named = {code.split()[1] for code in inline_code(page) if code.startswith("make ")}
    assert named <= set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))


@pytest.mark.parametrize(("benchmark", "at_least"), [("peers", 3), ("engines", 1)])
def test_the_arguments_of_a_benchmark_with_a_target_of_its_own_are_accepted(benchmark: str, at_least: int) -> None:
    given = re.findall(rf'{benchmark.upper()}_ARGS="([^"]*)"', "".join(page.read_text() for page in PAGES))
    assert len(given) >= at_least
    for arguments in given:
        assert parse("jobs.benchmark", [benchmark, *shlex.split(arguments)])


def fragments(page: Path) -> list[str]:
    """Flags that stand in the text apart from any command, such as ``--detector.image-size 224 --detector.views 4``."""
    return [code for code in inline_code(page) if code.startswith("--") and "*" not in code]


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_flags_in_the_text_are_accepted_by_a_command(page: Path) -> None:
    for fragment in fragments(page):
        words = shlex.split(fragment)
        if len(words) == 1:
            assert words[0] in ("--config", "--help") or words[0] in all_flags(), fragment
        else:
            said = refusals(words)
            assert not said, f"{fragment}: {said}"


def refusals(words: Sequence[str]) -> list[str]:
    """What each command says to these flags; nothing where one of them takes them."""
    said = []
    for module, minimal in MINIMAL.items():
        try:
            parse(module, [*minimal.split(), *words])
            return []
        except (RequestError, ValueError) as error:
            said.append(str(error))
    return said


@cache
def all_flags() -> frozenset[str]:
    """Every flag of the commands, at every level."""
    configurations = [type(parse(module, minimal.split())) for module, minimal in MINIMAL.items()]
    return frozenset(flag for configuration in configurations for flag in _flags(configuration, prefix="--"))


def _flags(model: type[BaseModel], *, prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        flag = prefix + name.replace("_", "-")
        yield flag
        if field.annotation in (bool, bool | None):
            yield f"{prefix}no-{name.replace('_', '-')}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _flags(field.annotation, prefix=f"{flag}.")


@pytest.mark.parametrize("variant", ["differnet", "attentdiffernet_se", "attentdiffernet_cbam", "attentdiffernet_best"])
def test_the_cpu_advice_fits_every_preset(variant: str) -> None:
    (advice,) = [fragment for fragment in fragments(README) if "--detector.image-size" in fragment]
    assert parse("jobs.train", [*MINIMAL["jobs.train"].split(), "--variant", variant, *shlex.split(advice)])


def test_a_wrong_flag_in_the_text_would_be_found() -> None:
    advice = shlex.split("--detector.image-size 100 --detector.scales 4")  # 100 px are no multiple of 8
    assert refusals(advice)


@pytest.mark.parametrize("page", LINKING, ids=names)
def test_every_link_leads_to_a_file(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    targets = [target.split("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text)]
    assert [t for t in targets if "://" not in t and not (page.parent / t).exists()] == []


@pytest.mark.parametrize("page", LINKING, ids=names)
def test_every_file_that_a_page_names_exists(page: Path) -> None:
    named = [code for code in inline_code(page) if re.fullmatch(r"(?:infra|model|jobs|tuning|tests)/[\w./-]*", code)]
    assert [code for code in named if not (ROOT / code).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=names)
def test_every_module_that_a_page_names_exists(page: Path) -> None:
    for module in set(re.findall(r"python -m ((?:jobs|tuning)\.\w+)", page.read_text())):
        assert (ROOT / (module.replace(".", "/") + ".py")).exists(), module


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 120


def test_readme_and_architecture_name_every_wing() -> None:
    tops = ("jobs", "model", "tuning")
    packages = {path.parent.name for top in tops for path in (ROOT / top).glob("*/__init__.py")}
    drawn = README.read_text().split("jobs/    ")[1].split("```")[0]
    architecture = (ROOT / "infra" / "docs" / "architecture.md").read_text()
    for wing in packages - {"cli", "config", "errors"}:
        assert re.search(rf"\b{wing}\b", drawn), f"README.md lacks {wing}"
        assert f"`{wing}/`" in architecture, f"architecture.md lacks {wing}/"


def test_the_list_of_commands_is_whole() -> None:
    table = (ROOT / "infra" / "docs" / "operating.md").read_text().split("## Commands")[1].split("\n## ")[0]
    for name, (module, _) in COMMANDS.items():
        assert f"`python -m {module}`" in table or f"attentdiffernet {name} " in table, f"operating.md lacks {name}"
    assert {name for name in BENCHMARKS if f"`{name}`" not in table} == set()


def test_python_of_the_pages_compiles_and_imports_what_exists() -> None:
    found = [block for page in PAGES for block in blocks(page, "python")]
    assert len(found) >= 5
    for block in found:
        compile(block, "page", "exec")
        for module, imported in re.findall(r"^from ((?:jobs|model|tuning)[\w.]*) import (\w+)", block, re.MULTILINE):
            assert hasattr(importlib.import_module(module), imported), f"{module}.{imported}"


def test_the_index_lists_every_decision_once() -> None:
    index = (ROOT / "infra" / "decisions" / "README.md").read_text()
    listed = re.findall(r"^\| \[\d{4} .*?\]\((\S+?)\) \|", index, re.MULTILINE)
    assert sorted(listed) == [page.name for page in DECISIONS if page.name != "README.md"]


def test_no_two_decisions_have_one_number() -> None:
    numbers = [page.name[:4] for page in DECISIONS if page.name != "README.md"]
    assert sorted(set(numbers)) == numbers
