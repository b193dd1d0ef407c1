"""Numbers of photos as people write them: ``10M``, ``2.5B``, ``800k``."""

from __future__ import annotations

import math
import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator

from jobs.config import split_at_commas

MAX_QUANTITY = 10**12
"""Beyond this a number is a slip of the keyboard."""
_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_QUANTITY = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kmbg]?)", re.IGNORECASE)


def parse_quantity(value: Any) -> Any:
    """Returns the number that a text such as ``2.5M`` stands for, or that a number is.

    Raises:
        ValueError: it is no number, or no whole one from 1 to MAX_QUANTITY.
    """
    number = _read_number(value)
    if not 1 <= number <= MAX_QUANTITY or number.denominator != 1:
        most = format_quantity(MAX_QUANTITY)
        raise ValueError(f"expected a whole number from 1 to {most}, such as 800k, 10M or 2.5B, got {value!r}")
    return int(number)


def _read_number(value: Any) -> Fraction:
    """Reads a number with a letter, or one that YAML has read; 0 where it is none."""
    if isinstance(value, str):
        found = _QUANTITY.fullmatch(value.strip())
        return Fraction(found[1].replace("_", "")) * _FACTORS[found[2].lower()] if found else Fraction(0)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return Fraction(value) if is_number else Fraction(0)


def format_quantity(number: int) -> str:
    """Formats a number as `parse_quantity` reads it: 2500000 is ``2.5M``."""
    for factor, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= factor and number * 1000 % factor == 0:
            return f"{number / factor:g}{letter}"
    return str(number)


Quantities = Annotated[
    list[int],
    BeforeValidator(lambda given: [parse_quantity(one) for one in split_at_commas(given)] if given else given),
]
