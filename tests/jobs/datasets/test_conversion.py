"""Data sets written in MVTec's layout or as a list: the source stays, and nothing that is there is overwritten."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jobs import dataset
from jobs.archive.mvtec import list_labelled
from jobs.errors import RequestError

NAMES = ("street/good/1.png", "street/good/2.png", "street/good/deep/1.png", "street/burr/1.png", "chip/good/1.png")


@pytest.fixture
def wafers(tmp_path: Path) -> Path:
    """Wafers as folders with class labels; two photos have one name."""
    source = tmp_path / "wafers"
    for name in NAMES:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(name.encode())
    return source


def convert(source: Path, output: Path, *flags: str) -> int:
    asked = ["convert", "--layout", "wafer", "--source", str(source), "--output", str(output), "--test-share", "0.01"]
    return dataset.main([*asked, *flags])


@pytest.mark.parametrize("kind", ["links", "copies"])
def test_each_photo_is_written_once_with_its_bytes(wafers: Path, tmp_path: Path, kind: str) -> None:
    assert convert(wafers, tmp_path / "out", "--write", kind) == 0
    rows = list_labelled(f"file://{tmp_path}/out").to_pylist()
    found = [Path(row["image_uri"].removeprefix("file://")) for row in rows]
    assert sorted(path.read_bytes().decode() for path in found) == sorted(NAMES)
    assert {path.is_symlink() for path in found} == {kind == "links"}
    assert sorted(str(path.relative_to(wafers)) for path in wafers.rglob("*.png")) == sorted(NAMES)


@pytest.mark.parametrize("kind", ["links", "copies"])
def test_the_same_again_writes_nothing(
    wafers: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(wafers, tmp_path / "out", "--write", kind)
    convert(wafers, tmp_path / "out", "--write", kind)
    assert capsys.readouterr().out.splitlines()[-1].startswith("0 photos written to ")


@pytest.mark.parametrize("kind", ["links", "copies"])
def test_another_file_of_that_name_is_left_alone(wafers: Path, tmp_path: Path, kind: str) -> None:
    mine = tmp_path / "out/street/test/burr/1.png"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    with pytest.raises(
        RequestError, match=r"out/street/test/burr/1\.png is there and is not .*: take an empty --output"
    ):
        convert(wafers, tmp_path / "out", "--write", kind)
    assert mine.read_bytes() == b"mine"


def test_an_output_in_the_source_is_refused(wafers: Path) -> None:
    with pytest.raises(RequestError, match=r"--output must lie outside of .*wafers, which stays as it is"):
        convert(wafers, wafers / "converted")


def test_links_need_local_files(wafers: Path) -> None:
    with pytest.raises(
        RequestError, match=r"--write links needs local files, got s3://.*: take --write copies or list"
    ):
        dataset.main(["convert", "--layout", "wafer", "--source", str(wafers), "--output", "s3://bucket/out"])


@pytest.mark.parametrize("name", ["photos.csv", "photos.parquet"])
def test_a_list_with_labels_can_be_read_again_and_is_not_overwritten(wafers: Path, tmp_path: Path, name: str) -> None:
    convert(wafers, tmp_path / name, "--write", "list")
    flags = ["--layout", "list", "--source", str(tmp_path / name), "--output", str(tmp_path / "again")]
    assert dataset.main(["convert", *flags]) == 0
    assert len(list_labelled(f"file://{tmp_path}/again")) == len(NAMES)
    with pytest.raises(RequestError, match=f"{name} is there: take another --output"):
        convert(wafers, tmp_path / name, "--write", "list")


def test_a_list_has_the_columns_that_lists_have(wafers: Path, tmp_path: Path) -> None:
    convert(wafers, tmp_path / "photos.parquet", "--write", "list")
    assert pq.read_schema(tmp_path / "photos.parquet").names == ["image_uri", "category", "split", "label"]


def test_a_photo_that_the_list_names_and_is_not_there_is_named(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("image_uri,label,category\nlost.jpg,dent,x\n")
    flags = ["--layout", "list", "--source", str(tmp_path / "list.csv"), "--output", str(tmp_path / "out")]
    with pytest.raises(RequestError, match=r"lost\.jpg is in the data set's list and does not exist"):
        dataset.main(["convert", *flags])
