"""A small archive of procedural power-line photos with its training data and its answers, for the demo and the tests.

The same seed gives the same bytes with the same Pillow and numpy.
"""

from __future__ import annotations

import csv
import io
import struct
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jobs.errors import RequestError
from jobs.synthetic.photo import Defect, draw_photo

__all__ = ["CATEGORY", "DemoCounts", "draw_archive", "draw_photo"]

CATEGORY = "insulator"
SITES = ("line-07", "line-12", "line-31")
DATES = ("2026-03-02", "2026-03-09", "2026-03-16")


@dataclass(frozen=True)
class DemoCounts:
    """How many photos of each kind `draw_archive` wrote; the archive holds all but ``train_good``."""

    train_good: int
    test_good: int
    missing_cap: int
    rust: int
    broken: int


def draw_archive(
    folder: Path,
    *,
    seed: int = 0,
    size_px: int = 384,
    train_good: int = 160,
    test_good: int = 40,
    missing_cap: int = 16,
    rust: int = 16,
) -> DemoCounts:
    """Draws labelled data, an unlabelled archive and the archive's answers.

    Writes ``data/insulator/{train/good,test/good,test/missing_cap,test/rust}/NNNN.jpg`` (MVTec layout),
    ``archive/insulator/<site>/<date>/IMG_NNNN.jpg`` (the test photos shuffled, and five broken files), and
    ``archive_labels.csv`` with the columns path (below ``archive/``) and label (good, missing_cap, rust or broken).

    Args:
        folder: created if need be; what an equal call wrote is replaced.
        seed: every photo depends on this, its kind and its number alone, not on how many others there are.
        size_px: side of each square photo in pixels.
        train_good: flawless photos to train on.
        test_good: flawless photos to test on and archive.
        missing_cap: photos of a string that lacks a cap, to test on and archive.
        rust: photos of stained caps, to test on and archive.

    Raises:
        RequestError: the folder holds data or an archive of something else, which would mix with these.
    """
    training = [draw_jpeg((seed, 0, number), defect="good", size_px=size_px) for number in range(train_good)]
    tests: tuple[tuple[Defect, int], ...] = (("good", test_good), ("missing_cap", missing_cap), ("rust", rust))
    tested = {
        defect: [draw_jpeg((seed, split, number), defect=defect, size_px=size_px) for number in range(count)]
        for split, (defect, count) in enumerate(tests, start=1)
    }
    broken = make_broken_files(draw_jpeg((seed, 4, 0), defect="good", size_px=size_px))
    labelled = [(photo, str(defect)) for defect, photos in tested.items() for photo in photos]
    labelled += [(content, "broken") for content in broken]
    files = number_photos("train/good", training) | shuffle_archive(labelled, rng=np.random.default_rng((seed, 5)))
    for defect, photos in tested.items():
        files |= number_photos(f"test/{defect}", photos)
    write_files(folder, files)
    return DemoCounts(train_good, test_good, missing_cap, rust, len(broken))


def draw_jpeg(seeds: tuple[int, int, int], *, defect: Defect, size_px: int) -> bytes:
    """Draws a photo of side ``size_px`` and returns its JPEG bytes."""
    stream = io.BytesIO()
    draw_photo(np.random.default_rng(seeds), size_px=size_px, defect=defect).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def number_photos(place: str, photos: Sequence[bytes]) -> dict[str, bytes]:
    """Returns photos by their path below the archive, numbered in their order."""
    return {f"data/{CATEGORY}/{place}/{number:04d}.jpg": photo for number, photo in enumerate(photos)}


def shuffle_archive(labelled: Sequence[tuple[bytes, str]], *, rng: np.random.Generator) -> dict[str, bytes]:
    """Returns the archive's files in random order under names that give nothing away, and their labels."""
    files: dict[str, bytes] = {}
    labels = io.StringIO()
    rows = csv.writer(labels, lineterminator="\n")
    rows.writerow(("path", "label"))
    for number, chosen in enumerate(rng.permutation(len(labelled))):
        content, label = labelled[chosen]
        path = f"{CATEGORY}/{rng.choice(SITES)}/{rng.choice(DATES)}/IMG_{number:04d}.jpg"
        files[f"archive/{path}"] = content
        rows.writerow((path, label))
    return files | {"archive_labels.csv": labels.getvalue().encode()}


def make_broken_files(photo: bytes) -> list[bytes]:
    """Returns what lies beside photos: nothing, half a photo, an error page, a note, a header of 3.6 gigapixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    bomb = (
        b"\x89PNG\r\n\x1a\n" + encode_png_chunk(b"IHDR", header) + encode_png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    )
    page = b"<!DOCTYPE html><html><body><h1>503 Service Unavailable</h1></body></html>\n"
    return [b"", photo[: len(photo) // 2], page, b"crew 4: camera battery empty, photos follow tomorrow\n", bomb]


def encode_png_chunk(kind: bytes, content: bytes) -> bytes:
    """Returns a chunk of a PNG file: length, kind, content and checksum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Writes files below ``folder``. Raises RequestError where it holds others."""
    present = [path for tree in ("archive", "data") for path in (folder / tree).rglob("*") if path.is_file()]
    strangers = sorted(str(path) for path in present if path.relative_to(folder).as_posix() not in files)
    if strangers:
        raise RequestError(f"expected an empty folder or an equal demo's, got {strangers[0]}: take another folder")
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
