"""A detector by one URI: a folder of its own, its category in a registry, or a registry and a category."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jobs import storage
from jobs.detectors import registry
from jobs.detectors.aliases import DETECTOR_ID
from jobs.detectors.loading import load_detector
from jobs.errors import MissingObjectError, RequestError
from jobs.storage import uris
from jobs.storage.local_files import locate
from model.artifact import Artifact, load_artifact
from model.artifact.files import ALIASES_FILE, ARTIFACT_FILES, CONFIG, WEIGHTS, ArtifactError


def find_detector(uri: str, *, category: str | None, alias: str) -> Artifact:
    """Loads a detector onto the CPU.

    Args:
        uri: folder of an artifact, ``<registry>/<category>``, or with ``category`` the registry.
        category: asset category, or None.
        alias: which detector of the category.

    Raises:
        RequestError: there is none, or it is damaged.
        StorageError: it cannot be read.
    """
    try:
        if category is not None:
            return load_detector(uri, category, alias=alias)
        if has_file(uri, ALIASES_FILE):
            above, _, name = uri.rpartition("/")
            return load_detector(above, name, alias=alias)
        if has_file(uri, CONFIG):
            return load_folder(uri)
    except ArtifactError as error:
        raise RequestError(f"the detector of {uri} is damaged: {error}") from error
    known = ", ".join(registry.list_categories(uri)[:5])
    raise RequestError(
        f"{uri} is a registry, with {known}: say which by --category"
        if known
        else f"no detector in {uri}: expected an artifact's folder, REGISTRY/CATEGORY, or a registry and --category"
    )


def has_file(folder: str, name: str) -> bool:
    """Tells whether a small file is in a folder."""
    try:
        storage.read(uris.join(folder, name))
    except MissingObjectError:
        return False
    return True


def load_folder(uri: str) -> Artifact:
    """Loads the artifact of a folder, which is verified; from object storage it is downloaded for the time being."""
    scheme, _, key = uris.split(uri)
    name = uri.rpartition("/")[2]
    expected_id = name if DETECTOR_ID.fullmatch(name) else None
    if scheme == "file":
        return load_artifact(Path(locate(key)), expected_id=expected_id)
    with tempfile.TemporaryDirectory() as scratch:
        for file in ARTIFACT_FILES:
            try:
                (Path(scratch) / file).write_bytes(storage.read(uris.join(uri, file)))
            except MissingObjectError:
                if file == WEIGHTS:
                    raise
        return load_artifact(Path(scratch), expected_id=expected_id)
