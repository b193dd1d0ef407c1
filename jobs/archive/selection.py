"""Which objects of an archive are its photos: what file managers, cameras' boxes and Hadoop leave there is left out.

What is left out is counted by its kind and named, so that nobody misses it without knowing.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from jobs.tables.text import make_printable

_JUNK_FOLDERS = (
    "@eadir",  # Synology's thumbnails
    "#recycle",
    "@recycle",
    "@recently-snapshot",
    r"\$recycle\.bin",
    "system volume information",
    "__macosx",
    r"lost\+found",
)
_JUNK_FILES = (
    r"thumbs\.db",
    r"ehthumbs(_vista)?\.db",
    r"desktop\.ini",
    "synophoto_thumb_.*",
    "_success",
    r".*_\$folder\$",
)
_HIDDEN_FOLDER = r"(^|/)\.([^./]|\.[^/])[^/]*/"  # in a bucket . and .. are names, and hide nothing
_HIDDEN_FILE = r"(^|/)\.[^/]*$"
_IN_JUNK = f"(?i)(^|/)({'|'.join(_JUNK_FOLDERS)})(/|$)"
_JUNK = f"(?i)(^|/)({'|'.join(_JUNK_FILES)})$"


class Selection:
    """Decides object by object, and counts what it leaves out.

    Args:
        include: patterns of the keys to take, such as ``*.jpg``; empty takes all.
        exclude: patterns of the keys to leave out.
        own_folders: URIs of folders that commands write to; what lies below them is no photo unless a list names it.

    A pattern is matched with the key below the archive, or with what follows one of its slashes, such as the name of
    the file. ``*`` stands for anything, also for slashes; upper and lower case are the same.

    Attributes:
        left_out: kind -> how many objects.
        examples: kind -> the first key of that kind.
    """

    def __init__(
        self, include: Sequence[str] = (), exclude: Sequence[str] = (), *, own_folders: Sequence[str] = ()
    ) -> None:
        """Keeps the patterns."""
        self._own_folders = own_folders
        self._include, self._exclude = compile_patterns(include), compile_patterns(exclude)
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def select(self, batch: pa.RecordBatch, keys: pa.Array, *, is_list: bool) -> pa.RecordBatch:
        """Returns the LISTED rows that are photos, as far as their keys tell.

        Args:
            batch: LISTED rows.
            keys: the key of each below the archive.
            is_list: whether each was named by hand; then a hidden folder may be where all the photos lie.
        """
        kinds = self._sort_out(keys, batch, is_list=is_list)
        for number, kind in enumerate(kinds.to_pylist() if kinds.null_count < len(kinds) else ()):
            if kind is not None:
                self.left_out[kind] += 1
                self.examples.setdefault(kind, keys[number].as_py())
        return batch.filter(pc.is_null(kinds))

    def summarize(self) -> str:
        """Returns one line of what was left out; an empty text where nothing was."""
        if not self.left_out:
            return ""
        parts = [
            f"{count} {make_printable(kind)} ({make_printable(self.examples[kind])})"
            for kind, count in self.left_out.most_common()
        ]
        return f"left out: {', '.join(parts)}"

    def _sort_out(self, keys: pa.Array, batch: pa.RecordBatch, *, is_list: bool) -> pa.Array:
        nothing, sizes = pa.scalar(None, pa.string()), batch.column("image_bytes")
        is_marker = pc.and_(pc.ends_with(keys, "/"), pc.equal(pc.coalesce(sizes, pa.scalar(0, pa.int64())), 0))
        kinds = {
            "folder markers": is_marker,
            "in folders of thumbnails and of the system": pc.match_substring_regex(keys, _IN_JUNK),
            "thumbnail and system files": pc.match_substring_regex(keys, _JUNK),
            "hidden files": pc.match_substring_regex(keys, _HIDDEN_FILE),
        }
        if not is_list:
            kinds["in hidden folders"] = pc.match_substring_regex(keys, _HIDDEN_FOLDER)
            for folder in self._own_folders:
                kinds[f"in {folder}"] = pc.starts_with(batch.column("image_uri"), f"{folder}/")
        if self._exclude:
            kinds["by --exclude"] = pc.match_substring_regex(keys, self._exclude)
        if self._include:
            kinds["not named by --include"] = pc.invert(pc.match_substring_regex(keys, self._include))
        found = pa.nulls(len(keys), pa.string())
        for kind, is_kind in kinds.items():
            found = pc.coalesce(found, pc.if_else(is_kind, kind, nothing))
        return found


def compile_patterns(patterns: Sequence[str]) -> str:
    """Returns one regular expression of RE2 for patterns with ``*`` and ``?``; empty for none."""
    found = [re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".") for pattern in patterns]
    return f"(?is)^(.*/)?({'|'.join(found)})$" if found else ""
