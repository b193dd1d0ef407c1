"""A trained detector as one folder of plain data, named by its content; nothing in it can execute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from model.artifact.files import ArtifactError

if TYPE_CHECKING:
    from model.artifact.loaded import Artifact
    from model.artifact.store import load_artifact, recalibrate_artifact, save_artifact

__all__ = ["Artifact", "ArtifactError", "load_artifact", "recalibrate_artifact", "save_artifact"]


def __getattr__(name: str) -> Any:
    # Importing torch takes 4 s. Whoever reads a registry needs the files of an artifact, not its tensors.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from model.artifact import store

    return getattr(store, name)
