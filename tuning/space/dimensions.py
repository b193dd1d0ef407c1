"""Dimensions of a search space, as data: a list of values, a range, or one value, which fixes the dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self, TypeAlias

from pydantic import Field, model_validator

from jobs.config import JobConfig

Value: TypeAlias = str | int | float | bool | None


class Range(JobConfig):
    """Numbers from ``low`` to ``high``, both included: whole ones if both ends and the step are."""

    low: int | float = Field(description="smallest value")
    high: int | float = Field(description="largest value")
    step: int | float | None = Field(None, gt=0, description="distance of neighbouring values; default: 1, or none")
    log: bool = Field(False, description="spread evenly over magnitudes; needs low > 0 and no step")

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"expected low < high, got {self.low:g} and {self.high:g}: one value alone fixes it")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError(f"log needs low > 0 and no step, got low {self.low:g} and step {self.step}")
        if self.step is not None and not math.isclose((self.high - self.low) / self.step % 1, 0, abs_tol=1e-9):
            raise ValueError(f"steps of {self.step:g} from {self.low:g} do not end at {self.high:g}")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether all values are whole numbers."""
        return all(isinstance(part, int) for part in (self.low, self.high, self.step or 1))


Dimension: TypeAlias = Range | Sequence[Value] | Value
"""What one choice may be: a Range, a list of values, or the only value."""


def values(dimension: Dimension) -> list[Value]:
    """All values of a dimension that is no Range."""
    if isinstance(dimension, Range):
        raise ValueError(f"a range of {dimension.low:g} to {dimension.high:g} has no list of values")
    if dimension is None or isinstance(dimension, str | int | float):
        return [dimension]
    return list(dimension)


def contains(dimension: Dimension, value: Any) -> bool:
    """Whether ``value`` can be chosen."""
    if not isinstance(dimension, Range):
        return any(value == known and isinstance(value, bool) == isinstance(known, bool) for known in values(dimension))
    if isinstance(value, bool) or not isinstance(value, int | float) or not dimension.low <= value <= dimension.high:
        return False
    step = dimension.step or (1 if dimension.is_whole else None)
    return step is None or math.isclose((value - dimension.low) / step, round((value - dimension.low) / step))


def is_fixed(dimension: Dimension) -> bool:
    """Whether there is nothing to choose."""
    return not isinstance(dimension, Range) and len(values(dimension)) == 1
