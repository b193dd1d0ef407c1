"""Progress of a stream of batches in this process: a bar on a terminal, a line every few seconds in a job's log."""

from __future__ import annotations
