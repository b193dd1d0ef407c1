"""Random samples of runs: which photos somebody was given to look at, whatever their scores.

Only such photos say what a detector misses, and only they may calibrate it: photos that were chosen by their score say
nothing of the others. Each sample is a Parquet file below the results, so that a verdict can be told to be on one.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jobs import storage
from jobs.errors import StorageError
from jobs.storage import uris
from jobs.tables.schema import SAMPLES

FOLDER = "samples"
"""Folder of the samples, below the results."""
PER_RUN, PER_CATEGORY, PER_SITE = "run", "category", "site"
"""What a sample may be drawn of: each stratum gives as many photos, whatever its size."""


def locate_sample(results: str, run_id: str, *, per: str, count: int, seed: int, ending: str) -> str:
    """Returns the URI of a file of a sample; the same request has the same name, and no other has it.

    A smaller sample of the same seed must not take the place of a larger one, which people may have marked already.
    """
    return uris.join(results, FOLDER, f"{run_id}.{per}.{count}.{seed}.{ending}")


def write_sample(uri: str, sample: pa.Table) -> None:
    """Writes SAMPLES rows."""
    buffer = io.BytesIO()
    pq.write_table(sample, buffer)
    storage.write(uri, buffer.getvalue())


def read_samples(results: str, *, run_id: str | None = None) -> pa.Table:
    """Reads the SAMPLES rows of all samples, or of those of one run.

    Raises:
        StorageError: a file is damaged, or storage refused.
    """
    tables = [SAMPLES.empty_table()]
    for info in storage.list_objects(uris.join(results, FOLDER)):
        if info.uri.endswith(".parquet"):
            tables.append(read_sample(info.uri))
    found = pa.concat_tables(tables)
    return found if run_id is None else found.filter(pc.equal(found["run_id"], run_id))


def read_sample(uri: str) -> pa.Table:
    """Reads the SAMPLES rows of one sample.

    Raises:
        MissingObjectError: there is none.
        StorageError: the file is damaged, or storage refused.
    """
    try:
        return pq.read_table(io.BytesIO(storage.read(uri))).cast(SAMPLES)
    except pa.ArrowException as error:
        raise StorageError(f"{uri} is damaged: expected a sample of jobs.sample; delete it") from error
