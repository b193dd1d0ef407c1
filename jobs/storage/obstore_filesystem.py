"""obstore's clients as a filesystem of pyarrow, for the stores and settings that pyarrow's own do not know.

pyarrow's client of S3 cannot pay for its requests, and those of Google and Azure read other settings than obstore's.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from obstore.fsspec import FsspecStore
from pyarrow import fs

from jobs.storage.clients import open_store


class StoreFilesystem(FsspecStore):
    """The buckets of one scheme, each reached by the client that reads photos; pickled, it is its scheme alone."""

    cachable = False  # jobs.storage.arrow keeps one

    def _construct_store(self, bucket: str) -> Any:
        return open_store(str(self.protocol), bucket)


class StoreHandler(fs.FSSpecHandler):  # type: ignore[misc]  # pyarrow has no types
    """As pyarrow's, but files take any buffer: pyarrow's copies write signed bytes, which obstore refuses."""

    def open_output_stream(self, path: str, metadata: Any) -> pa.PythonFile:
        """Opens an object to be written from its beginning."""
        return pa.PythonFile(_Writer(self.fs.open(path, mode="wb")), mode="w")


class _Writer:
    def __init__(self, file: Any) -> None:
        self._file = file

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def write(self, data: Any) -> int:
        return int(self._file.write(memoryview(data).cast("B")))

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def open_obstore_filesystem(scheme: str) -> fs.PyFileSystem:
    """Opens all buckets of ``s3``, ``gs`` or ``az``; paths begin with the bucket."""
    protocol: Any = scheme
    return fs.PyFileSystem(StoreHandler(StoreFilesystem(protocol)))
