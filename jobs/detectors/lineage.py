"""Where a detector comes from: what its metrics.json and card say of data, code and configuration.

None of it is part of the detector's content id, which names what decides scores and p-values, and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from model.versions import read_versions

COMMIT_VARIABLE = "ATTENTDIFFERNET_COMMIT"
"""Names the code's git commit where there is no repository: a container image, or the upload of `ray job submit`."""
MAX_TRAINING_PHOTOS = 100_000
"""Photos of one detector that metrics.json lists: about 3 MB by name and entity tag, 2 MB by pixels."""
_COMMIT = re.compile(r"[0-9a-f]{40,64}(-dirty)?")
_ROOT = Path(__file__).parents[2]


def build_lineage(config_json: Mapping[str, Any], *, manifest_hash: str, parent: str | None = None) -> dict[str, Any]:
    """Builds the JSON object that belongs under ``metrics["lineage"]`` of a new detector.

    Call it in the driver: a worker of another machine may run from an upload without the repository.

    Args:
        config_json: the command's whole configuration, ``config.model_dump(mode="json")``.
        manifest_hash: see ``hash_manifest``: of the photos that it was trained on, or recalibrated with.
        parent: the detector that a recalibration started from; None for a detector trained from scratch.

    Returns:
        manifest_hash, parent, seed (None where the configuration has no detector), config, git_commit (or None),
        versions (Python, Ray and the libraries that decide a score) and created_at (UTC, ISO 8601).
    """
    return {
        "manifest_hash": manifest_hash,
        "parent": parent,
        "seed": config_json.get("detector", {}).get("seed"),
        "config": dict(config_json),
        "git_commit": read_git_commit(),
        "versions": read_versions(),
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def read_git_commit() -> str | None:
    """Returns the commit of the running code, ``-dirty`` where files differ from it; None where nobody can tell.

    From the repository that these files are the top of (an installed package may lie below somebody else's), else
    from the environment variable ``ATTENTDIFFERNET_COMMIT``.
    """
    said = describe_commit() if (_ROOT / ".git").exists() else os.environ.get(COMMIT_VARIABLE, "")
    return said if _COMMIT.fullmatch(said) else None


def describe_commit() -> str:
    """Asks git for the commit of this checkout; empty where git does not answer."""
    command = ["git", "-C", str(_ROOT), "describe", "--always", "--dirty", "--abbrev=64", "--exclude=*"]
    # Without optional locks: another git command of the user must not fail because a job looks at the index.
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        answer = subprocess.run(command, capture_output=True, text=True, timeout=20, env=environment)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def hash_json(value: object) -> str:
    """Names a configuration or a request, 16 hex digits: equal JSON gives the same hash, whatever the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def hash_manifest(manifest: pa.Table) -> str:
    """Names a set of photos, 64 hex digits: the same keys, bytes and boxes give the same hash.

    Args:
        manifest: columns ``image_uri``, ``image_etag`` and ``box``, in any order of rows.
    """
    columns = [[str(value or "") for value in manifest[name].to_pylist()] for name in ("image_uri", "box")]
    photos = sorted(zip(*columns, map(str, manifest["image_etag"].to_pylist()), strict=True))
    lines = [f"{uri} {etag} {box}" if box else f"{uri} {etag}" for uri, box, etag in photos]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def hash_training_photos(manifest: pa.Table) -> list[str] | None:
    """Returns what belongs under ``metrics["training_photos"]``: the photos that must never calibrate this detector.

    Args:
        manifest: columns ``image_uri`` and ``image_etag`` of every photo that the weights or the moment of stopping
            depend on (training and validation photos), and of no other.

    Returns:
        Short hashes of uris and etags, sorted; None where there are more than ``MAX_TRAINING_PHOTOS``.
    """
    if len(manifest) > MAX_TRAINING_PHOTOS:
        return None
    names = {*manifest["image_uri"].to_pylist(), *label_etags(manifest["image_etag"].to_pylist())}
    return sorted({hash_name(name) for name in names})


def list_training_pixels(hashes: Iterable[str]) -> list[str] | None:
    """Returns what belongs under ``metrics["training_pixels"]``, to know copies of training photos under other names.

    Args:
        hashes: of the decoded pixels (`jobs.decoding.fingerprints.hash_pixels`) of the photos that
            `hash_training_photos` is told of.

    Returns:
        The hashes, sorted; None where there are more than ``MAX_TRAINING_PHOTOS``.
    """
    found = sorted(set(hashes))
    return found if len(found) <= MAX_TRAINING_PHOTOS else None


def is_training_photo(manifest: pa.Table, *, recorded: Collection[str]) -> list[bool]:
    """Tells which photos a detector was trained on: those of a recorded uri, and copies of the same etag.

    A hash of 32 bits takes a new photo for a known one with a probability of at most 1e-4 (100,000 photos recorded),
    whatever its score, so that leaving it out does no harm. A copy is recognised where the store keeps its etag: in S3
    and the like, but not among local files.

    Args:
        manifest: N MANIFEST rows.
        recorded: what ``hash_training_photos`` gave.

    Returns:
        N truth values.
    """
    known = frozenset(recorded)
    uris, etags = manifest["image_uri"].to_pylist(), manifest["image_etag"].to_pylist()
    return [
        not known.isdisjoint(hash_name(name) for name in (uri, *label_etags([etag])))
        for uri, etag in zip(uris, etags, strict=True)
    ]


def label_etags(etags: Iterable[str | None]) -> list[str]:
    """Returns etags as text that no uri equals; leaves out those that are empty."""
    return [f"etag {etag}" for etag in etags if etag]


def hash_name(name: str) -> str:
    """Returns 8 hex digits, 32 bits, of a name."""
    return hashlib.sha256(name.encode()).hexdigest()[:8]
