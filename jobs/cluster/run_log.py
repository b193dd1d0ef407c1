"""What a run does, as JSON lines that a log collector can search by run id: one object per event, on stderr.

In Ray's workers stderr is a file of the node's log folder, which the dashboard shows too.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

_LOGGER = logging.getLogger("attentdiffernet")


class JsonLines(logging.Formatter):
    """A record as one JSON object: time, level, event, and whatever the event says of itself."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns one line; an exception's traceback is a field of it."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class RunLog:
    """Events of one run; it travels to workers."""

    def __init__(self, run_id: str) -> None:
        """``run_id``: a field of every event."""
        self._run_id = run_id

    def event(self, name: str, fields: Mapping[str, Any] | None = None) -> None:
        """Logs an event; nobody sees it before `log_as_json`.

        Args:
            name: what happened, snake_case.
            fields: JSON values about it.
        """
        _LOGGER.info(name, extra={"fields": {"run_id": self._run_id, **(fields or {})}})


def log_as_json() -> None:
    """Writes events of this process, and its libraries' warnings, as JSON lines to stderr from here on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.getLogger().handlers[:] = [handler]
    _LOGGER.setLevel(logging.INFO)
