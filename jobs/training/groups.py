"""The groups of a training's photos, which stay on one side of every split; and what is said of them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from jobs.archive.kinds import ArchiveKind, detect_kind
from jobs.archive.list_groups import GROUP, read_groups
from jobs.archive.mvtec import locate_flawless
from jobs.decoding.fingerprints import MAX_COMPARED_PHOTOS, group_fingerprints
from jobs.errors import JobError
from jobs.storage.uris import split
from jobs.tables.text import make_printable
from jobs.training.config import TrainConfig
from model.statistics.calibration import find_min_sample_size
from model.statistics.groups import count_groups, number_groups

EACH_PHOTO = "photo"
"""What --group-by may say in place of named groups of the key pattern; or GROUP, the column of a list."""
MAX_ADVISED_FRACTION = 0.5
"""Larger shares of the photos to calibrate are not advised: too few would train."""


def looks_for_near_duplicates(config: TrainConfig, *, photos: int) -> bool:
    """Tells whether near-duplicates are looked for: nobody named the groups, and there are not too many photos."""
    return not config.group_by and photos <= MAX_COMPARED_PHOTOS


@dataclass(frozen=True)
class GroupRequest:
    """What somebody says of which photos of a category belong together.

    Attributes:
        category: for messages.
        folder: URI of the folder that the photos are in, or of the list that names them.
        group_by: named groups of the key pattern; `EACH_PHOTO` or `GROUP` alone; empty looks for near-duplicates.
        key_pattern: matched at the beginning of each key below the folder.
    """

    category: str
    folder: str
    group_by: Sequence[str] = ()
    key_pattern: str | None = None


def group_photos(config: TrainConfig, fingerprints: pa.Table) -> npt.NDArray[np.int64]:
    """Groups the N readable photos of a training's category, (N,); see `group_as_asked`."""
    folder = config.good or locate_flawless(str(config.data), config.category)
    return group_as_asked(GroupRequest(config.category, folder, config.group_by, config.key_pattern), fingerprints)


def group_as_asked(asked: GroupRequest, fingerprints: pa.Table) -> npt.NDArray[np.int64]:
    """Groups the readable photos of a category, as ``group_by`` asks for.

    Args:
        asked: what belongs together.
        fingerprints: N FINGERPRINT rows.

    Returns:
        (N,) a number for each photo's group.

    Raises:
        JobError: group_by names groups, and no photo has one.
    """
    uris = fingerprints["image_uri"].to_pylist()
    if not asked.group_by:
        return group_fingerprints(fingerprints)
    if list(asked.group_by) == [EACH_PHOTO]:
        return group_fingerprints(fingerprints, named=np.arange(len(uris)))
    return group_fingerprints(fingerprints, named=number_groups(name_groups(asked, uris)))


def name_groups(asked: GroupRequest, uris: Sequence[str]) -> list[str]:
    """Returns the name of each photo's group by its key; its URI, which no other has, where the key says nothing.

    Args:
        asked: what belongs together.
        uris: of the photos.

    Raises:
        JobError: no photo has a group.
    """
    if list(asked.group_by) == [GROUP] and asked.key_pattern is None:
        names = read_groups(asked.folder)
    else:
        names = match_groups(uris, asked.group_by, pattern=re.compile(asked.key_pattern or ""), below=asked.folder)
    without = [uri for uri in uris if uri not in names]
    if not names:
        raise JobError(
            f"no photo of {asked.category} has a group {','.join(asked.group_by)}: --key-pattern is matched at the "
            f"start of each key below {asked.folder}, the first photo is {make_printable(uris[0])}"
        )
    if without:
        print(
            f"warning: {len(without)} of {len(uris)} photos of {asked.category} have no group "
            f"{','.join(asked.group_by)} and are groups by themselves, the first {make_printable(without[0])}",
            flush=True,
        )
    return [names.get(uri, uri) for uri in uris]


def match_groups(uris: Sequence[str], groups: Sequence[str], *, pattern: re.Pattern[str], below: str) -> dict[str, str]:
    """Returns URI -> what the named groups of the pattern say of its key; those that do not match are left out."""
    found = {}
    is_folder = detect_kind(below) is ArchiveKind.PREFIX
    for uri in uris:
        match = pattern.match(uri.removeprefix(below.rstrip("/") + "/") if is_folder else split(uri)[2])
        parts = [match[name] for name in groups] if match else [None]
        if all(parts):
            found[uri] = "\0".join(str(part) for part in parts)
    return found


def describe_groups(
    config: TrainConfig, groups: npt.NDArray[np.int64], parts: Mapping[str, npt.NDArray[np.int64]]
) -> str:
    """Says in one line how many groups there are, and in each part of the split; the calibration takes one photo each.

    Args:
        config: of one category.
        groups: (N,) of all photos.
        parts: name -> indices of the photos of a part.
    """
    shares = ", ".join(f"{count_groups(groups[chosen])} {name}" for name, chosen in parts.items() if len(chosen))
    different = count_groups(groups)
    if config.group_by == [EACH_PHOTO]:
        kind = "equal pixels together"
    elif config.group_by:
        kind = f"by {','.join(config.group_by)}"
    elif len(groups) > MAX_COMPARED_PHOTOS:
        kind = f"equal pixels together; more than {MAX_COMPARED_PHOTOS} photos are not compared, see --group-by"
    else:
        kind = "equal pixels and near-duplicates together"
    return f"{config.category}: {len(groups)} photos in {different} groups ({kind}): {shares}"


def describe_group_shortage(config: TrainConfig, groups: npt.NDArray[np.int64], *, calibrating: int) -> str | None:
    """Says that too few groups calibrate; None where they suffice, or where it was said of as many photos before.

    Args:
        config: of one category.
        groups: (N,) of all photos.
        calibrating: groups that calibrate.
    """
    needed = find_min_sample_size(config.false_alarm_rate, confidence=config.confidence)
    different = count_groups(groups)
    if calibrating >= needed or different == len(groups):
        return None
    advice = "add photos of other scenes"
    if (share := math.ceil(100 * needed / different) / 100) <= MAX_ADVISED_FRACTION:
        advice += f", or --calibration-fraction {share:g}"
    return (
        f"{calibrating} groups of {config.category} that calibrate, with one photo each, cannot support a false-alarm "
        f"rate of {config.false_alarm_rate:g}: {needed} are needed; with fewer no photo is ever flagged: {advice}"
    )
