"""The explain command: photos of any place, a detector by any of its names, one picture."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest
from PIL import Image

from jobs import explain, storage
from jobs.errors import EXIT_DONE, JobError, RequestError
from jobs.explain import name_images
from jobs.explanation.config import ExplainConfig
from jobs.explanation.detector import find_detector
from jobs.explanation.photos import ShownPhoto, fetch_photos
from jobs.scoring.config import ScoreConfig
from jobs.storage import uris
from model.pictures.rules import PixelRules, Resize, Tiles


@pytest.mark.parametrize(
    "argv",
    [
        ["a,b.jpg", "--detector", "/d", "c.jpg"],
        ["--detector=/d", "a,b.jpg", "c.jpg"],
        ["--detector", "/d", "a,b.jpg", "c.jpg"],
    ],
)
def test_photos_stand_before_or_after_the_flags(argv: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[ExplainConfig] = []

    def take(config: ExplainConfig) -> int:
        found.append(config)
        return 0

    monkeypatch.setattr("jobs.explanation.run.explain_images", take)
    assert explain.main(argv) == 0
    assert found[0].images == [uris.normalize("a,b.jpg"), uris.normalize("c.jpg")]
    assert found[0].detector == "file:///d"


def test_help_is_no_flag_that_takes_a_photo() -> None:
    assert name_images(["--help", "a.jpg"]) == ["--help", "--images", '["a.jpg"]']


@pytest.mark.parametrize("count", [0, 101])
def test_too_many_photos_for_one_picture_are_refused(count: int) -> None:
    images = [f"{number}.jpg" for number in range(count)]
    with pytest.raises(RequestError, match="--images"):
        explain.main([*images, "--detector", "/d"])


def test_a_detector_is_found_by_each_of_its_names(local_config: ScoreConfig, tmp_path: Path) -> None:
    registry = local_config.detectors
    found = [
        find_detector(registry, category="pole", alias="champion"),
        find_detector(f"{registry}/pole", category=None, alias="champion"),
        find_detector(uris.normalize(str(tmp_path / "artifact")), category=None, alias="champion"),
    ]
    by_id = find_detector(f"{registry}/pole/{found[0].detector_id}", category=None, alias="champion")
    assert {one.detector_id for one in found} == {by_id.detector_id}


def test_a_place_without_a_detector_is_refused_with_what_is_there(local_config: ScoreConfig, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a registry, with pole: say which by --category"):
        find_detector(local_config.detectors, category=None, alias="champion")
    with pytest.raises(RequestError, match=r"no detector in .*flat: expected an artifact's folder"):
        find_detector(local_config.archive, category=None, alias="champion")
    with pytest.raises(RequestError, match="pole has no alias 'best'"):
        find_detector(f"{local_config.detectors}/pole", category=None, alias="best")
    (tmp_path / "artifact" / "detector.safetensors").write_bytes(b"{}")
    with pytest.raises(RequestError, match="is damaged"):
        find_detector(uris.normalize(str(tmp_path / "artifact")), category=None, alias="champion")


@pytest.mark.slow  # starts a process that decodes
def test_photos_that_cannot_be_read_are_rows_and_the_others_go_on(
    local_config: ScoreConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flat = Path(local_config.archive.removeprefix("file://"))
    images = [str(flat / name) for name in ("0.jpg", "broken.jpg", "gone.jpg", "1.jpg")]
    output = tmp_path / "out.png"
    assert explain.main([*images, "--detector", f"{local_config.detectors}/pole", "--output", str(output)]) == EXIT_DONE
    said = capsys.readouterr()
    assert "2 of 4 photos explained by detector" in said.out
    assert "broken.jpg: not_an_image" in said.err
    assert "gone.jpg: missing: there is no such photo" in said.err
    assert Image.open(output).height > 2 * 320


@pytest.mark.slow  # starts a process that decodes
def test_without_a_photo_that_can_be_read_it_fails(local_config: ScoreConfig, tmp_path: Path) -> None:
    output = tmp_path / "out.png"
    with pytest.raises(JobError, match=r"none of 1 photos could be read, the first: /nope\.jpg: missing") as caught:
        explain.main(["/nope.jpg", "--detector", f"{local_config.detectors}/pole", "--output", str(output)])
    assert caught.value.exit_code == 1
    assert not output.exists()


@pytest.mark.slow  # starts a process that decodes
def test_a_real_photo_is_shown_in_its_own_proportions_and_a_box_in_the_box_s(shared: Path) -> None:
    uri = uris.normalize(str(sorted((shared / "data/mtd_full/tile/test/crack").glob("*.jpg"))[0]))
    width, height = Image.open(uri.removeprefix("file://")).size
    whole, part = fetch_photos(
        [{"image_uri": uri, "image_etag": None}, {"image_uri": uri, "image_etag": None, "box": "0,0,60,20"}],
        size=64,
        rules=PixelRules(),
        shown_px=200,
        max_pixels=10**7,
    )
    assert isinstance(whole, ShownPhoto)
    assert isinstance(part, ShownPhoto)
    assert whole.seen.shape == part.seen.shape == (3, 64, 64)
    assert max(whole.shown.size) == 200
    assert whole.shown.width / whole.shown.height == pytest.approx(width / height, rel=0.02)
    assert part.shown.size == (200, 67)


@pytest.mark.slow  # starts a process that decodes
@pytest.mark.parametrize(("resize", "shown"), [("stretch", (128, 128)), ("crop", (128, 64))])
def test_of_a_photo_in_tiles_people_see_what_its_detector_sees(
    local_config: ScoreConfig, resize: Resize, shown: tuple[int, int]
) -> None:
    (found,) = fetch_photos(
        [{"image_uri": f"{local_config.archive}/0.jpg", "image_etag": None}],
        size=64,
        rules=PixelRules(resize=resize, tiles=Tiles(1, 2)),
        shown_px=128,
        max_pixels=10**7,
    )
    assert isinstance(found, ShownPhoto)
    assert found.seen.shape == (3, 64, 128)
    assert found.shown.size == shown


@pytest.mark.slow
def test_photos_detector_and_picture_may_lie_in_object_storage(
    bucket: str, local_config: ScoreConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, name in ((local_config.archive, "archive"), (local_config.detectors, "detectors")):
        for info in list(storage.list_objects(folder)):
            storage.write(f"{bucket}/{name}{info.uri.removeprefix(folder)}", storage.read(info.uri))
    shutil.rmtree(local_config.detectors.removeprefix("file://"))
    output = f"{bucket}/pictures/why.png"
    for detector in ("detectors/pole", "detectors/pole/" + _find_id(f"{bucket}/detectors/pole")):
        assert explain.main([f"{bucket}/archive/0.jpg", "--detector", f"{bucket}/{detector}", "--output", output]) == 0
        assert Image.open(io.BytesIO(storage.read(output))).format == "PNG"
    assert f"1 of 1 photos explained by detector {_find_id(f'{bucket}/detectors/pole')}: {output}" in (
        capsys.readouterr().out
    )


def _find_id(category: str) -> str:
    (found,) = {info.uri.split("/")[-2] for info in storage.list_objects(category) if info.uri.endswith("config.json")}
    return found
