"""A box as the column ``box`` of every table writes it: x,y,width,height in whole pixels of the photo as stored."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from jobs.tables.text import make_printable

Box = tuple[int, int, int, int]
NO_BOX = ""
"""Value of a row whose list has boxes, and none for this row; null is a whole photo."""
MAX_PX = 2**31
"""Largest number of pixels that a box may speak of: no photo has such a side."""
MAX_TEXT = 100
"""Longest text that is kept of what is no box."""
_BOX = re.compile(r"(-?\d{1,10}),(-?\d{1,10}),(\d{1,10}),(\d{1,10})")


def format_box(numbers: Sequence[Any]) -> str:
    """Formats x, y, width and height, numbers or text of them, by their edges rounded to whole pixels.

    What is no box keeps its text, so that `parse_box` refuses it by name; no number at all is `NO_BOX`.
    """
    if all(is_absent(number) for number in numbers):
        return NO_BOX
    try:
        x, y, width, height = (float(number) for number in numbers)
        is_box = all(abs(number) <= MAX_PX for number in (x, y, width, height)) and width > 0 and height > 0
    except (TypeError, ValueError, OverflowError):
        is_box = False
    if not is_box or any(isinstance(number, bool) for number in numbers):
        return keep_text(",".join("" if number is None else str(number) for number in numbers))
    left, top, right, bottom = (math.floor(edge + 0.5) for edge in (x, y, x + width, y + height))
    return f"{left},{top},{max(right - left, 1)},{max(bottom - top, 1)}"


def format_value(value: Any) -> str:
    """Formats one value of a column ``box``: text x,y,width,height, or four numbers as a list, see `format_box`."""
    if value is None:
        return NO_BOX
    if isinstance(value, str):
        parts = re.split(r"[,;\s]+", value.strip(" \t\r\n()[]"))
        return format_box(parts) if len(parts) == 4 and "" not in parts else keep_text(value)
    numbers = list(value.values()) if isinstance(value, dict) else value
    return format_box(numbers) if isinstance(numbers, list) and len(numbers) == 4 else keep_text(str(value))


def is_absent(number: Any) -> bool:
    """Tells whether a value of a list stands for none: null, empty text, or NaN, as pandas writes what is missing."""
    return number is None or (isinstance(number, str) and not number.strip()) or number != number


def keep_text(text: str) -> str:
    """Returns what is no box as it may stand in a table: on one line, and not endless."""
    return make_printable(" ".join(text.split()))[:MAX_TEXT]


def parse_box(text: str) -> Box:
    """Returns x, y, width and height of a value of the column ``box``.

    Raises:
        ValueError: it is none; the message says why.
    """
    if text == NO_BOX:
        raise ValueError("its list has boxes and none for this photo: whole photos go into a list without boxes")
    found = _BOX.fullmatch(text)
    if found is None:
        raise ValueError(f"expected four finite numbers x,y,width,height, got {text!r}{explain_commas(text)}")
    x, y, width, height = (int(part) for part in found.groups())
    if not width or not height:
        raise ValueError(f"expected a width and a height above 0, got {text!r}")
    return x, y, width, height


def explain_commas(text: str) -> str:
    """Says of what is no box that its decimals may be written with commas, as spreadsheets in many languages do."""
    has_too_many = "," in text and len(re.split(r"[,;\s]+", text)) > 4
    return ": decimals need a point, 10.5 in place of 10,5" if has_too_many else ""


def name_part(uri: str, box: str | None) -> str:
    """Returns what tells a person which photo is meant, or which box of one, of which there may be many."""
    return f"{uri} box {box}" if box else uri
