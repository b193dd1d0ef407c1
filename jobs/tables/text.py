"""Tables and names as text: for a terminal, a Markdown page or a spreadsheet."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Sequence

from jobs.errors import make_printable

__all__ = ["format_table", "make_printable"]

_NUMBER = re.compile(r"[-+]?\d[-+±.,e\d ]*%?|-")


def format_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, markdown: bool = False) -> str:
    """Formats rows as aligned lines below their heading; columns of numbers stand to the right.

    Args:
        columns: heading of each column.
        rows: a value for each column: floats get six significant digits, None and "" are a dash, and what could
            command a terminal is escaped.
        markdown: as a Markdown table instead of plain columns.
    """
    cells = [[format_cell(value) for value in row] for row in rows]
    widths = [max(3, *map(len, column)) for column in zip(columns, *cells, strict=True)]
    right = [all(_NUMBER.fullmatch(row[place]) for row in cells) for place in range(len(columns))]

    def align(row: Sequence[str]) -> list[str]:
        places = zip(row, widths, right, strict=True)
        return [cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in places]

    lines = [align(row) for row in [columns, *cells]]
    if not markdown:
        return "\n".join("  ".join(line).rstrip() for line in lines)
    rule = ["-" * (width - 1) + (":" if is_right else "-") for width, is_right in zip(widths, right, strict=True)]
    return "\n".join(f"| {' | '.join(line)} |" for line in [lines[0], rule, *lines[1:]])


def format_cell(value: object) -> str:
    """Formats one value of a table."""
    if isinstance(value, float):
        return f"{value:.6g}"
    return "-" if value is None or value == "" else make_printable(str(value))


def format_csv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Formats rows as a CSV that people may open as a spreadsheet.

    Every cell is in quotation marks: a spreadsheet that parts cells at semicolons would else take for a formula what
    follows one in a hostile key. And it reads letters beyond ASCII only behind a byte order mark.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n", quoting=csv.QUOTE_ALL)
    writer.writerows([columns, *rows])
    content = text.getvalue()
    return content.encode("utf-8" if content.isascii() else "utf-8-sig")
