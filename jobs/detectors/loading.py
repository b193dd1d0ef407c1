"""A registered detector for use in this process, wherever its registry is."""

from __future__ import annotations

from jobs.detectors import registry
from jobs.detectors.aliases import read_aliases
from jobs.detectors.node_cache import hold_detector
from jobs.errors import RequestError
from jobs.storage import uris
from model.artifact import Artifact, load_artifact


def load_detector(detectors: str, category: str, *, alias: str = "champion", device: str = "cpu") -> Artifact:
    """Loads the detector behind an alias; ``score_file`` and ``score_bytes`` of it score photos without Ray.

    Args:
        detectors: the registry, a URI or a path.
        category: asset category.
        alias: which of its detectors.
        device: where it goes, "cpu" or "cuda".

    Raises:
        RequestError: the category has no such alias.
        StorageError: the registry cannot be read.
    """
    place = uris.normalize(detectors)
    aliases = read_aliases(place, category)
    if alias not in aliases:
        known = ", ".join(sorted(aliases)) or f"none; the registry has {registry.list_categories(place) or 'nothing'}"
        raise RequestError(f"{category} has no alias {alias!r} in {place}; it has {known}")
    with hold_detector(place, category, detector_id=aliases[alias]) as folder:
        return load_artifact(folder, device=device, from_cache=True)
