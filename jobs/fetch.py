"""Ray Data stage FetchDecode: MANIFEST rows -> pixels. Whatever happens to one object, its row goes on with a reason.

Kept apart from the scoring stage so that a decoding process need not import the network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from jobs import storage
from jobs.errors import DeniedError, MissingObjectError, StorageError
from jobs.schema import MANIFEST, Status, reason
from model.image import ImageError, decode_image

DECODED = MANIFEST.append(pa.field("status", pa.string())).append(pa.field("error", pa.string()))
DECODED = DECODED.append(pa.field("pixels", pa.large_binary()))
"""FetchDecode's output: ``pixels`` is uint8 (3, S, S) in C order, null together with a status that is final."""

_Outcome = tuple[str | None, str | None, bytes | None]


class FetchDecode:
    """MANIFEST rows to DECODED rows: concurrent GETs, decoding while later GETs are under way.

    Args:
        image_sizes: category -> side in pixels of its detector's input; photos of other categories are not fetched.
        max_pixels: largest photo decoded.
        concurrency: GETs under way at once.
    """

    def __init__(self, *, image_sizes: Mapping[str, int], max_pixels: int, concurrency: int) -> None:
        """Keeps the arguments; nothing is opened yet."""
        self._image_sizes = dict(image_sizes)
        self._max_pixels = max_pixels
        self._concurrency = concurrency

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Fetches and decodes one batch, in order."""
        prepare_process()
        known = rows.select(["uri", "etag", "size_bytes", "category"]).to_pylist()
        outcomes = asyncio.run(self._all(known))
        for name in ("etag", "size_bytes"):  # a list of URIs may have left them to be found out
            found = pa.array([row[name] for row in known], MANIFEST.field(name).type)
            rows = rows.set_column(rows.schema.get_field_index(name), name, found)
        statuses, errors, pixels = zip(*outcomes, strict=True) if outcomes else ((), (), ())
        columns = [pa.array(statuses, pa.string()), pa.array(errors, pa.string()), pa.array(pixels, pa.large_binary())]
        return pa.Table.from_arrays([*rows.cast(MANIFEST).columns, *columns], schema=DECODED)

    async def _all(self, rows: Sequence[dict[str, Any]]) -> list[_Outcome]:
        limit = asyncio.Semaphore(self._concurrency)
        return await asyncio.gather(*(self._one(row, limit) for row in rows))

    async def _one(self, row: dict[str, Any], limit: asyncio.Semaphore) -> _Outcome:
        size = self._image_sizes.get(row["category"])
        if size is None:
            detail = (
                "the key does not match --key-pattern" if row["category"] is None else "no detector for this category"
            )
            return Status.NO_DETECTOR, reason("no_detector", detail), None
        try:
            async with limit:
                data, etag = await storage.read_async(row["uri"])
            if _is_changed(row, etag, len(data)):
                return Status.MISSING, reason("changed", "replaced after it was listed; the next run scores it"), None
            return None, None, decode_image(data, size=size, max_pixels=self._max_pixels).numpy().tobytes()
        except ImageError as error:
            return Status.UNREADABLE, reason(error.code, error.detail), None
        except MissingObjectError:
            return Status.MISSING, reason("deleted", "deleted after it was listed"), None
        except DeniedError as error:
            return Status.UNREADABLE, reason("access_denied", str(error)), None
        except StorageError as error:
            return Status.UNREADABLE, reason("storage", str(error)), None


def _is_changed(row: dict[str, Any], etag: str, size_bytes: int) -> bool:
    """Whether these are other bytes than those listed; what the listing did not know is noted in ``row``."""
    is_changed = bool(etag and row["etag"] and etag != row["etag"])
    row["etag"] = row["etag"] or etag or None
    row["size_bytes"] = size_bytes if row["size_bytes"] is None else row["size_bytes"]
    return is_changed


def prepare_process() -> None:
    """Sets what every process of ours that computes needs.

    One thread, because Ray shares the cores out, a worker each; and no TF32, which cuDNN takes for fp32 by default:
    scores must not depend on the device.
    """
    torch.set_num_threads(1)
    torch.backends.cudnn.allow_tf32 = False


def as_images(pixels: pa.ChunkedArray, *, size: int) -> np.ndarray:
    """The ``pixels`` column of N decoded rows as one uint8 array (N, 3, size, size)."""
    images = np.empty((len(pixels), 3, size, size), np.uint8)
    for number, scalar in enumerate(pixels):
        images[number] = np.frombuffer(scalar.as_buffer(), np.uint8).reshape(3, size, size)
    return images
