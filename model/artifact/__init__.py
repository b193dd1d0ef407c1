"""A trained detector as one folder of plain data, named by its content; nothing in it can execute."""

from model.artifact.files import ArtifactError
from model.artifact.store import Artifact, load_artifact, recalibrate_artifact, save_artifact

__all__ = ["Artifact", "ArtifactError", "load_artifact", "recalibrate_artifact", "save_artifact"]
