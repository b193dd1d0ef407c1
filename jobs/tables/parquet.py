"""Parquet in storage as streams of record batches: read a few row groups ahead, never a table as a whole."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import DamagedFileError, RequestError, StorageError, one_line

BATCH_ROWS = 65_536
_SMALL_FILES_AHEAD = 32
_DAMAGED = re.compile(r"decompress|deserialize|Thrift|corrupt|page header|end of stream", re.IGNORECASE)
_PATHS = re.compile(r"^.*?Parquet input source '[^']*': |\. Detail: .*$")


def scan_parquet(
    files: Sequence[str], *, columns: Sequence[str], schema: pa.Schema, small: bool = False
) -> Iterator[pa.RecordBatch]:
    """Streams Parquet files of one schema, in order; columns that a file lacks are null.

    Args:
        files: their URIs.
        columns: the columns wanted.
        schema: what the files hold, or some of it.
        small: whether the files are so small that many should be on their way at once.

    Raises:
        DamagedFileError: a file is no whole Parquet file.
        StorageError: a file is missing, or cannot be reached.
    """
    scan, wanted = scan_small_files if small else scan_row_groups, pa.schema([schema.field(name) for name in columns])
    for group in filter(None, [files] if small else [[uri] for uri in files]):
        try:
            yield from scan(group, columns, schema)
        except (OSError, pa.ArrowInvalid) as error:
            raise explain_read_error(error, group, schema=wanted) from error


def explain_read_error(error: Exception, files: Sequence[str], *, schema: pa.Schema) -> StorageError:
    """Translates what pyarrow raises while it reads some files at once, of which it may not say which it was.

    Args:
        error: what was raised.
        files: their URIs.
        schema: columns that were read.
    """
    uri = next((uri for uri in files if storage.resolve_filesystem(uri)[1] in str(error)), None)
    if uri is None:
        uri, error = find_unreadable(files, schema) or (files[0], error)
    said = one_line(error)
    if isinstance(error, pa.ArrowInvalid) or _DAMAGED.search(said):
        return DamagedFileError(f"{uri} is damaged, it is no whole Parquet file: {_PATHS.sub('', said)[:200]}")
    return storage.translate_error(error, uri)


def find_unreadable(files: Sequence[str], schema: pa.Schema) -> tuple[str, Exception] | None:
    """Finds the first of some files that cannot be read, and what is raised then; reads one after the other."""
    for uri in files:
        try:
            for _ in scan_row_groups([uri], schema.names, schema):
                pass
        except (OSError, pa.ArrowInvalid) as error:
            return uri, error
    return None


def scan_small_files(files: Sequence[str], columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Streams many small files of one schema, with 32 of them on their way at once."""
    import pyarrow.dataset  # 0.3 s of CPU, which those who only write Parquet or read a file need not spend

    filesystem = storage.resolve_filesystem(files[0])[0]
    paths = [storage.resolve_filesystem(uri)[1] for uri in files]
    dataset = pyarrow.dataset.dataset(paths, schema=schema, filesystem=filesystem)
    yield from dataset.to_batches(
        columns=list(columns),
        batch_size=BATCH_ROWS,
        batch_readahead=_SMALL_FILES_AHEAD,
        fragment_readahead=_SMALL_FILES_AHEAD,
    )


def find_files(files: Sequence[str], *, column: str, values: pa.Array) -> set[str]:
    """Finds those Parquet files that have one of some values in a column, which alone is read of them.

    Raises:
        StorageError: a file is missing, damaged or cannot be reached.
    """
    import pyarrow.dataset  # see above

    if not files:
        return set()
    filesystem = storage.resolve_filesystem(files[0])[0]
    by_path = {storage.resolve_filesystem(uri)[1]: uri for uri in files}
    schema = pa.schema([pa.field(column, values.type)])
    try:
        dataset = pyarrow.dataset.dataset(list(by_path), schema=schema, filesystem=filesystem)
        found: set[str] = set()
        for batch in dataset.to_batches(
            columns=["__filename"], filter=pc.field(column).isin(values), fragment_readahead=_SMALL_FILES_AHEAD
        ):
            found.update(pc.unique(batch.column(0)).to_pylist())
    except (OSError, pa.ArrowInvalid) as error:
        raise explain_read_error(error, files, schema=schema) from error
    return {by_path[path] for path in found}


def scan_row_groups(files: Sequence[str], columns: Sequence[str], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Reads one row group at a time: a dataset would read half a gigabyte ahead while its consumer sorts."""
    wanted = pa.schema([schema.field(name) for name in columns])
    for uri in files:
        filesystem, path = storage.resolve_filesystem(uri)
        with pq.ParquetFile(path, filesystem=filesystem) as file:
            have = [name for name in wanted.names if name in file.schema_arrow.names]
            for batch in file.iter_batches(BATCH_ROWS, columns=have):
                absent = {field.name: pa.nulls(len(batch), field.type) for field in wanted if field.name not in have}
                found = absent | dict(zip(batch.schema.names, batch.columns, strict=True))
                yield pa.RecordBatch.from_arrays(
                    [found[field.name].cast(field.type) for field in wanted], schema=wanted
                )


def read_schema(uri: str) -> pa.Schema:
    """Reads the schema of one Parquet file.

    Raises:
        RequestError: it is no Parquet file.
        StorageError: it is missing or cannot be reached.
    """
    filesystem, path = storage.resolve_filesystem(uri)
    try:
        return pq.read_schema(path, filesystem=filesystem)
    except pa.ArrowInvalid as error:
        raise RequestError(f"{uri} is no Parquet file: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise storage.translate_error(error, uri) from error


def cast_batches(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """Yields the same rows with the columns, order and types of ``schema``."""
    for batch in batches:
        columns = [batch.column(field.name).cast(field.type) for field in schema]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def write_parquet(table: pa.Table, uri: str, *, row_group_rows: int = 100_000) -> None:
    """Writes one table as one zstd Parquet object, in one atomic put."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd", row_group_size=row_group_rows)
    storage.write(uri, buffer.getvalue())
