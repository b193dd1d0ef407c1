"""YAML files of fields: what YAML makes of a text is undone, and what it would drop without a word is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from jobs.cli.help import list_flags
from jobs.config import as_config_path, rename_old_fields, split_at_commas
from jobs.errors import RequestError, one_line


def read_yaml(path: str, config_class: type[BaseModel]) -> dict[str, object]:
    """Reads a file of fields.

    Raises:
        RequestError: it cannot be read, or is no YAML mapping.
    """
    if not path.strip():
        raise RequestError(f"--config: expected a file, got {path!r}: perhaps a variable of the shell is empty")
    try:
        content = Path(as_config_path(path)).read_text(encoding="utf-8-sig")
        refuse_repeated_keys(yaml.compose(content, yaml.SafeLoader))
        loaded, texts = yaml.safe_load(content), yaml.load(content, yaml.BaseLoader)  # noqa: S506  # safe: texts alone
    except OSError as error:
        raise RequestError(f"--config {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"--config {path}: not YAML: {one_line(error)}") from error
    except ValueError as error:
        raise RequestError(f"--config {path}: {error}") from error
    if not isinstance(loaded, dict):
        found = "nothing" if loaded is None else type(loaded).__name__
        raise RequestError(f"--config {path}: expected a mapping of fields, got {found}")
    fields = rename_old_fields(loaded)
    restore_texts(config_class, fields, rename_old_fields(texts))
    return fields


def refuse_repeated_keys(root: yaml.Node | None) -> None:
    """Refuses a field that is given twice in one mapping, of which YAML takes the last without a word.

    Raises:
        ValueError: there is one.
    """
    waiting, seen = [root], set[int]()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:  # an alias may lead back
            continue
        seen.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if not isinstance(node, yaml.MappingNode):
            continue
        names = Counter(str(key.value) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge")
        repeated = [name for name, count in names.items() if count > 1]
        if repeated:
            raise ValueError(f"line {node.start_mark.line + 1} on gives {', '.join(repeated)} twice: leave one of them")
        waiting += [value for _, value in node.value]


def restore_texts(config_class: type[BaseModel], fields: dict[str, Any], texts: Mapping[str, Any]) -> None:
    """Gives fields that take text the text of the file: YAML makes numbers of 007, and truth values of true or no.

    Args:
        config_class: says which fields take text.
        fields: of a file, changed in place.
        texts: the same, every value as it was written.
    """
    for flag in list_flags(config_class):
        if not (flag.is_text or flag.is_text_list):
            continue
        *above, name = flag.name.replace("-", "_").split(".")
        found: Any = fields
        written: Any = texts
        for part in above:
            found, written = (one.get(part) if isinstance(one, dict) else None for one in (found, written))
        if not isinstance(found, dict) or not isinstance(written, dict) or found.get(name) is None:
            continue
        value = written.get(name)
        if isinstance(value, str):
            found[name] = split_at_commas(value) if flag.is_text_list else value
        elif isinstance(value, list) and all(isinstance(one, str) for one in value):
            found[name] = value
