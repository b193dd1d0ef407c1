"""Numbers of photos as people write them: ``10M``, ``2.5B``, ``800k``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import BeforeValidator

from jobs.config import split_at_commas

_FACTORS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9}
_QUANTITY = re.compile(r"(\d[\d_]*(?:\.\d+)?)\s*([kmbg]?)", re.IGNORECASE)


def parse_quantity(value: Any) -> Any:
    """Returns the number that a text such as ``2.5M`` stands for; what is no text stays as it is.

    Raises:
        ValueError: it is no number, or no whole one of at least 1.
    """
    if not isinstance(value, str):
        return value
    found = _QUANTITY.fullmatch(value.strip())
    number = Fraction(found[1].replace("_", "")) * _FACTORS[found[2].lower()] if found else Fraction(0)
    if number < 1 or number.denominator != 1:
        raise ValueError(f"expected a whole number of at least 1, such as 800k, 10M or 2.5B, got {value!r}")
    return int(number)


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
