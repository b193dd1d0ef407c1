"""Values that many commands take: names, texts with commas, probabilities, precisions."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field


def as_name(value: str) -> str:
    """Returns ``value`` if it can name a category, an alias or a run.

    Raises:
        ValueError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", value):
        raise ValueError(
            f"expected 1-100 letters, digits, '.', '_' or '-', beginning with a letter or digit, got {value!r}"
        )
    return value


def split_at_commas(given: Any) -> Any:
    """Splits a text, or each text of a list, at its commas, as flags and YAML give several values.

    Anything else stays as it is.
    """
    if isinstance(given, str):
        return [part.strip() for part in given.split(",") if part.strip()]
    if isinstance(given, list):
        return [part for one in given for part in (split_at_commas(one) if isinstance(one, str) else [one])]
    return given


Name = Annotated[str, AfterValidator(as_name)]
Texts = Annotated[list[str], BeforeValidator(split_at_commas)]

TRACKERS = ("mlflow", "wandb")


def check_tracker_names(names: list[str]) -> list[str]:
    """Returns the names of trackers. Raises ValueError for one that there is not."""
    if unknown := [name for name in names if name not in TRACKERS]:
        raise ValueError(f"expected {' or '.join(TRACKERS)}, got {unknown[0]!r}")
    return names


Trackers = Annotated[list[str], BeforeValidator(split_at_commas), AfterValidator(check_tracker_names)]
Confidence = Annotated[
    float | None,
    Field(
        gt=0,
        lt=1,
        description="probability, over the draw of the calibration photos, with which this very detector keeps to "
        "false_alarm_rate (training-conditional guarantee): a higher threshold, and more calibration photos needed; "
        "default: the rate is kept on average over calibration sets",
    ),
]
AskedPrecision = Literal["auto", "fp32", "bf16"]
