"""Configuration of the commands: one pydantic model each is the YAML file, the flags and the --help text.

Here is what several commands share. A command's own is in its wing, such as jobs.training.config.
"""

from jobs.config.base import JobConfig, merge, rename_old_fields, rename_old_flag
from jobs.config.modes import list_changed, refuse_ignored
from jobs.config.photos import (
    ARCHIVE_HELP,
    BOXES,
    DEFAULT_KEY_PATTERN,
    EXCLUDE,
    EXCLUSION,
    GROUP_BY,
    GROUP_BY_DEFAULT,
    GROUP_BY_HELP,
    INCLUDE,
    KEY_PATTERN,
    Exclusion,
    Patterns,
    check_group_names,
    is_place,
)
from jobs.config.places import (
    SUBMITTED_JOB_VARIABLE,
    LocalPath,
    PlaceKind,
    Uri,
    as_config_path,
    as_path,
    is_relative,
    list_uri_fields,
)
from jobs.config.resources import ScoringResources
from jobs.config.values import AskedPrecision, Confidence, Name, Texts, Trackers, as_name, split_at_commas

__all__ = [
    "ARCHIVE_HELP",
    "BOXES",
    "DEFAULT_KEY_PATTERN",
    "EXCLUDE",
    "EXCLUSION",
    "GROUP_BY",
    "GROUP_BY_DEFAULT",
    "GROUP_BY_HELP",
    "INCLUDE",
    "KEY_PATTERN",
    "SUBMITTED_JOB_VARIABLE",
    "AskedPrecision",
    "Confidence",
    "Exclusion",
    "JobConfig",
    "LocalPath",
    "Name",
    "Patterns",
    "PlaceKind",
    "ScoringResources",
    "Texts",
    "Trackers",
    "Uri",
    "as_config_path",
    "as_name",
    "as_path",
    "check_group_names",
    "is_place",
    "is_relative",
    "list_changed",
    "list_uri_fields",
    "merge",
    "refuse_ignored",
    "rename_old_fields",
    "rename_old_flag",
    "split_at_commas",
]
