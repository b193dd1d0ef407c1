"""Every flag that names a place: what cannot be there is refused before any work, in all commands."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

import jobs
import tuning
from jobs import report
from jobs.benchmarks.config import FidelityBenchmarkConfig
from jobs.config import JobConfig
from jobs.config.base import FILES, FOLDERS
from jobs.errors import RequestError

FREE = ("archive", "good", "source", "images", "photos", "measure", "exclude", "scratch", "folder")
"""Fields that take a folder or a list, or check what is there by themselves."""


def list_configs(base: type[JobConfig] = JobConfig) -> Iterator[type[JobConfig]]:
    for package in (jobs, tuning):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("config") or module.name in ("jobs.manifest", "jobs.demo", "jobs.pretext_sheet"):
                importlib.import_module(module.name)
    for config in base.__subclasses__():
        yield config
        yield from list_configs(config)


PLACES = [
    (config, name)
    for config in dict.fromkeys(list_configs())
    for name, field in config.model_fields.items()
    if any(function in f"{field.annotation} {field.metadata}" for function in ("as_uri", "as_path", "as_exclusion"))
]


def complain(config: type[JobConfig], field: str, place: str) -> str:
    """Says what the configuration finds wrong with one field; what else it needs is not asked for."""
    is_list = "list[" in str(config.model_fields[field].annotation)
    with pytest.raises(ValidationError, match=field) as refusal:
        config.model_validate({field: [place] if is_list else place})
    return "; ".join(str(error["msg"]) for error in refusal.value.errors() if error["loc"][:1] == (field,))


def test_every_place_of_every_command_is_a_folder_a_file_or_free() -> None:
    assert {name for _, name in PLACES} - {"output"} <= {*FOLDERS, *FILES, *FREE}


@pytest.mark.parametrize(("config", "field"), PLACES, ids=lambda value: getattr(value, "__name__", value))
def test_a_place_where_nothing_can_be_is_refused(config: type[JobConfig], field: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "nowhere").symlink_to("gone")
    for place, said in {
        f"{tmp_path}/file/below": "Not a directory",
        f"{tmp_path}/loop": "Too many levels of symbolic links",
        f"{tmp_path}/nowhere": "is a link to nothing",
        f"/{'x' * 300}": "File name too long",
        "/a\0b": "without a zero byte",
        "/": "below the root",
    }.items():
        assert said in complain(config, field, place)
    if field != "exclude" and config is not FidelityBenchmarkConfig:  # patterns are taken too, and many places
        assert "perhaps a variable of the shell is empty" in complain(config, field, " ")
        assert "expected two slashes, such as s3://bucket" in complain(config, field, "s3:/bucket/x")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (config, field)
        for config, field in PLACES
        if field in FOLDERS or (field == "output" and config.output_kind == "folder")
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_file_where_a_folder_is_needed_is_refused(config: type[JobConfig], field: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"expected a folder, but file://{tmp_path}/file is a file" in complain(config, field, f"{tmp_path}/file")


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (config, field)
        for config, field in PLACES
        if field in (*FILES, "exclude") or (field == "output" and config.output_kind == "file")
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_folder_where_a_file_is_needed_is_refused(config: type[JobConfig], field: str, tmp_path: Path) -> None:
    assert f"{tmp_path} is a folder" in complain(config, field, str(tmp_path))
    assert "/dev/null is a device, pipe or socket" in complain(config, field, "/dev/null")


def test_results_that_are_a_file_end_a_report_as_a_mistake_of_the_request(tmp_path: Path) -> None:
    (tmp_path / "results").touch()
    with pytest.raises(RequestError, match=r"--results: expected a folder, but file://.*/results is a file"):
        report.main(["--results", str(tmp_path / "results"), "--run-id", "night"])
