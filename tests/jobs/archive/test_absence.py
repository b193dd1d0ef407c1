"""What a command says where there is no photo: empty, misspelt and laid out otherwise are told apart."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from jobs import storage
from jobs.archive.absence import explain_absence, suggest_folder
from jobs.archive.manifest import list_archive
from jobs.errors import RequestError


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A folder with photos of an insulator, once as local files and once on the real S3 server."""
    root = f"file://{tmp_path}" if request.param == "file" else str(request.getfixturevalue("bucket"))
    storage.write(f"{root}/data/insulator/train/Good/1.jpg", b"x")
    storage.write(f"{root}/flat/1.jpg", b"x")
    return root


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("data/insulator/train/good", "data/insulator/train has no folder good; .* did you mean Good?"),
        ("data/insulatr/train/good", "data has no folder insulatr; .* did you mean insulator?"),
        ("flat/1/2", "flat has no folder 1; it has 1 files"),
        ("elsewhere", "has no folder elsewhere; it has the folders data, flat"),
    ],
)
def test_what_is_misspelt_is_answered_with_what_is_there(place: str, folder: str, said: str) -> None:
    assert re.search(said.replace("?", r"\?"), explain_absence(f"{place}/{folder}"))


def test_an_empty_folder_and_a_file_are_no_misspellings(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.jpg").touch()
    assert explain_absence(f"file://{tmp_path}/empty") == "that folder is empty"
    assert explain_absence(f"file://{tmp_path}/photo.jpg") == "that is a file, not a folder"


@pytest.mark.parametrize(
    ("data", "category", "flags"),
    [
        ("flat", "pole", "--good {}/flat --category pole"),
        ("flat", None, "--good {}/flat --category NAME"),
        ("data", "insulator", "--good {}/data/insulator/train/Good --category insulator"),
        ("data/insulator", None, "--good {}/data/insulator/train/Good --category NAME"),
    ],
)
def test_photos_in_another_layout_are_found_and_the_flags_for_them_named(
    place: str, data: str, category: str | None, flags: str
) -> None:
    assert suggest_folder(f"{place}/{data}", category).endswith(flags.format(place))


def test_nothing_is_suggested_where_nothing_is(tmp_path: Path) -> None:
    assert suggest_folder(f"file://{tmp_path}", "pole") == ""


@pytest.mark.parametrize("name", ["list.csv", "list.csv.gz", "list.txt", "list.parquet", "boxes.json", "manifest.json"])
def test_a_list_that_is_not_there_is_a_fault_of_the_request(name: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"/x/{name} does not exist: correct its name in the request"):
        list_archive(f"file://{tmp_path}/x/{name}")


def test_boxes_that_are_not_there_are_a_fault_of_the_request(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"boxes\.json does not exist: correct its name in the request"):
        list_archive(f"file://{tmp_path}", boxes=f"file://{tmp_path}/boxes.json")
