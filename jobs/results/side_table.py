"""Delta tables beside the scores that rows are only added to, such as verdicts and maps."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from jobs.errors import StorageError, one_line
from jobs.results.access import make_location, make_storage_options
from jobs.results.delta import HOOKS, explain_errors


def append_rows(uri: str, rows: pa.Table, *, name: str, description: str) -> None:
    """Adds rows in one commit; makes the table if need be.

    Args:
        uri: of the table.
        rows: with the columns of the table.
        name: of a new table.
        description: of a new table.

    Raises:
        StorageError: the storage refused, or the table is damaged.
    """
    with explain_errors(uri, needs="write"):
        try:
            write_deltalake(
                make_location(uri),
                rows,
                mode="append",
                name=name,
                description=f"attentdiffernet-ray: {description}",
                storage_options=make_storage_options(uri),
                post_commithook_properties=HOOKS,
            )
        except CommitFailedError as error:
            raise StorageError(f"{uri}: the commit failed: {one_line(error)[:200]}; run again") from error


def read_table(uri: str, *, schema: pa.Schema, filters: list[tuple[str, str, Any]] | None = None) -> pa.Table | None:
    """Reads the rows of a table, or of those of its rows that pass the filters; None where there is no table yet.

    Args:
        uri: of the table.
        schema: columns that are read.
        filters: (column, operator, value), all of which hold; as pyarrow's.

    Raises:
        StorageError: the table is damaged, or storage refused.
    """
    with explain_errors(uri):
        try:
            table = DeltaTable(make_location(uri), storage_options=make_storage_options(uri))
        except TableNotFoundError:
            return None
        return pa.table(table.to_pyarrow_table(columns=list(schema.names), filters=filters)).cast(schema)
