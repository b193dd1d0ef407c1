"""Decoding in a process of its own: a photo that kills or occupies its decoder costs its own row and nothing else."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from jobs.archive.manifest import list_archive
from jobs.decoding.decoder import DecodedPart, DecodeLimits, Decoder, UndecodedError, share_decoder
from jobs.decoding.fetch import FetchDecode
from jobs.errors import JobError
from jobs.tables.schema import Status
from model.image import decode_image
from tests.support.bad_objects import bad_objects, encode, jpeg, photo
from tests.support.hostile_files import jpeg_of_many_scans
from tests.support.kills import assert_it_ends
from tests.support.places import ROOT
from tests.support.poison import poison

SIZE = 48
POISONED = "tests.support.poison"


@pytest.fixture(scope="module")
def decoder() -> Iterator[Decoder]:
    """One for all tests, whose child obeys poison, with a short time limit."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jobs.decoding.decoder.CHILD_MODULE", POISONED)
        started = Decoder(DecodeLimits(timeout_s=1.0))
        decoded(started, jpeg())
        yield started
        started.stop()


def decoded(decoder: Decoder, *photos: bytes) -> list[bytes | tuple[Status, str]]:
    """Pixels, or status and code, of photos decoded one after the other."""

    async def all_of_them() -> None:
        for data in photos:
            file = os.memfd_create("pixels")
            try:
                await decoder.decode(data, [DecodedPart(SIZE, at=5)], max_pixels=10**7, into=file)
                found.append(os.pread(file, 10**6, 0)[5:])
            except UndecodedError as error:
                found.append((error.status, error.code))
            os.close(file)

    found: list[bytes | tuple[Status, str]] = []
    asyncio.run(all_of_them())
    return found


def plainly(data: bytes) -> bytes:
    return decode_image(data, size=SIZE).numpy().tobytes()


def workers(decoder: Decoder) -> list[tuple[int, str]]:
    """Process ids and states of the nursery's children."""
    assert decoder.child is not None
    pid = decoder.child.pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [(int(child), Path(f"/proc/{child}/stat").read_text().rsplit(")", 1)[1].split()[0]) for child in children]


def test_photos_come_out_as_model_image_gives_them(decoder: Decoder) -> None:
    photos = [jpeg(), encode(photo(300, 20), "PNG"), encode(photo(), "WEBP")]
    assert decoded(decoder, *photos) == [plainly(data) for data in photos]


def test_every_bad_object_gets_the_reason_that_model_image_gives(decoder: Decoder) -> None:
    bad = [item for item in bad_objects() if item.code is not None]
    assert decoded(decoder, *(item.data for item in bad)) == [(Status.UNREADABLE, item.code) for item in bad]


@pytest.mark.parametrize("deed", ["segfault", "exit"])
def test_a_photo_that_kills_its_decoder_fails_and_the_next_is_decoded(decoder: Decoder, deed: str) -> None:
    found = decoded(decoder, jpeg(), poison(deed), jpeg())
    assert found == [plainly(jpeg()), (Status.FAILED, "decoder_died"), plainly(jpeg())]


def test_a_killer_is_tried_twice_and_the_row_says_what_happened(decoder: Decoder) -> None:
    before = decoder.requests_sent
    with pytest.raises(UndecodedError, match=r"decoder_died.*the decoder ended with signal SIGSEGV, 2 times"):
        asyncio.run(decoder.decode(poison("segfault"), [DecodedPart(SIZE, 0)], max_pixels=1, into=decoder.photo_file))
    assert decoder.requests_sent == before + 2


@pytest.mark.slow
def test_a_photo_over_the_time_limit_is_tried_once_and_fails(decoder: Decoder) -> None:
    before, began = decoder.requests_sent, time.monotonic()
    assert decoded(decoder, poison("hang"), jpeg()) == [(Status.FAILED, "decode_timeout"), plainly(jpeg())]
    assert 1.0 <= time.monotonic() - began < 30
    assert decoder.requests_sent == before + 2


@pytest.mark.slow
def test_a_small_file_of_endless_scans_is_stopped_by_the_time_limit(decoder: Decoder) -> None:
    endless = jpeg_of_many_scans(Image.new("RGB", (2000, 2000)), 5000)
    assert len(endless) < 10**6
    assert decoded(decoder, endless, jpeg()) == [(Status.FAILED, "decode_timeout"), plainly(jpeg())]


def test_a_photo_over_the_memory_limit_fails_and_the_decoder_lives(decoder: Decoder) -> None:
    decoded(decoder, jpeg())  # whatever happened before, there is a worker now
    before = workers(decoder)
    assert decoded(decoder, poison("hoard"), jpeg()) == [(Status.FAILED, "out_of_memory"), plainly(jpeg())]
    assert [pid for pid, _ in workers(decoder)] == [pid for pid, _ in before]


def test_deaths_leave_no_zombies_and_cost_no_import(decoder: Decoder) -> None:
    assert decoder.child is not None
    nursery = decoder.child.pid
    decoded(decoder, *[poison("exit")] * 5, jpeg())
    assert decoder.child.pid == nursery
    ((_, state),) = workers(decoder)
    assert state != "Z"


@pytest.mark.parametrize("who", ["worker", "nursery"])
@pytest.mark.slow
def test_a_decoder_killed_while_idle_is_replaced(decoder: Decoder, who: str) -> None:
    decoded(decoder, jpeg())
    ((worker, _),) = workers(decoder)
    assert decoder.child is not None
    os.kill(worker if who == "worker" else decoder.child.pid, signal.SIGKILL)
    assert_it_ends(worker)
    assert decoded(decoder, jpeg(), jpeg()) == [plainly(jpeg())] * 2


@pytest.mark.slow
def test_a_request_that_was_given_up_does_not_answer_the_next(decoder: Decoder) -> None:
    before = decoder.requests_sent

    async def give_up() -> None:
        file = os.memfd_create("pixels")
        task = asyncio.create_task(decoder.decode(poison("hang"), [DecodedPart(SIZE, 0)], max_pixels=10**7, into=file))
        await asyncio.sleep(0)  # until it waits for the answer
        task.cancel()
        os.close(file)
        with pytest.raises(asyncio.CancelledError, match=r"^$"):
            await task

    asyncio.run(give_up())
    assert decoder.requests_sent == before + 1
    assert decoded(decoder, encode(photo(), "PNG")) == [plainly(encode(photo(), "PNG"))]


def test_a_decoder_that_cannot_start_ends_the_run_and_not_every_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(JobError, match="ended at its start with exit code 1"):
        decoded(Decoder(DecodeLimits()), jpeg())


@pytest.mark.slow
def test_a_decoder_ends_with_its_process_even_in_the_middle_of_a_photo() -> None:
    script = (
        "import asyncio, os; from jobs.decoding import decoder; from pathlib import Path\n"
        "from jobs.decoding.decoder import DecodedPart, Decoder, DecodeLimits\n"
        f"decoder.CHILD_MODULE = {POISONED!r}\n"
        "async def main():\n"
        "    decoder, file = Decoder(DecodeLimits()), os.memfd_create('x')\n"
        "    try: await decoder.decode(b'', [DecodedPart(8, 0)], max_pixels=9, into=file)\n"
        "    except Exception: pass\n"
        "    pid = decoder.child.pid\n"
        "    print(pid, Path(f'/proc/{pid}/task/{pid}/children').read_text(), flush=True)\n"
        f"    await decoder.decode({poison('hang')!r}, [DecodedPart(8, 0)], max_pixels=9, into=file)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        owner.kill()
    assert len(pids) == 2
    for pid in pids:
        assert_it_ends(pid)


def test_a_decoder_says_nothing_about_damaged_files(decoder: Decoder, capfd: pytest.CaptureFixture[str]) -> None:
    tiff = encode(photo(), "TIFF", compression="tiff_lzw")
    noisy = [tiff[:at] + b"\xff" + tiff[at + 1 :] for at in range(8, len(tiff), 97)]
    decoded(decoder, *noisy)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_in_the_stage_one_killer_costs_one_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobs.decoding.decoder.CHILD_MODULE", POISONED)
    for name, data in (("a", jpeg()), ("b", poison("segfault")), ("c", jpeg()), ("d", b""), ("e", jpeg())):
        (tmp_path / f"{name}.jpg").write_bytes(data)
    limits = DecodeLimits(timeout_s=7)  # others than the default, so that no other test's decoder is taken
    fetch = FetchDecode(image_sizes={"x": SIZE}, max_pixels=10**7, concurrency=2, limits=limits)
    listing = list_archive(f"file://{tmp_path}", key_pattern="(?P<category>)")
    rows = fetch(listing.set_column(5, "category", [["x"] * 4 + ["other"]]))
    assert [(row["error"] or "").split(":")[0] for row in rows.to_pylist()] == [
        "",
        "decoder_died",
        "",
        "empty",
        "no_detector",
    ]
    expected = plainly(jpeg())
    assert rows["pixels"].to_pylist() == [expected, None, expected, None, None]
    rows.validate(full=True)
    child = share_decoder(limits).child
    fetch(listing)
    assert share_decoder(limits).child is child
    share_decoder(limits).stop()


def test_fetching_imports_no_torch() -> None:
    check = "import sys, jobs.decoding.fetch; sys.exit('torch' in sys.modules or 'PIL' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], cwd=ROOT, check=False).returncode == 0
