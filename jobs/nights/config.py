"""Configuration of the nightly command."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from jobs.config import JobConfig, LocalPath, Name


def check_head_url(value: str) -> str:
    """Returns the URL of a head's dashboard without a slash at its end.

    Raises:
        ValueError: it is none.
    """
    try:
        parts = urlsplit(value)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half a bracket
        is_url = False
    if not is_url:
        raise ValueError(f"expected the URL of the cluster's dashboard, such as http://10.0.0.1:8265, got {value!r}")
    return value.rstrip("/")


class NightlyConfig(JobConfig):
    """Submit tonight's scoring run to a Ray cluster, wait for it, and continue it when it was cut off."""

    head: Annotated[str, AfterValidator(check_head_url)] = Field(
        description="URL of the cluster's dashboard, such as http://10.0.0.1:8265; a token is taken from where Ray "
        "looks for one (RAY_AUTH_TOKEN)"
    )
    score_config: LocalPath = Field(
        description="YAML file with the fields of jobs.score, without run_id; it is sent along. Its places are URIs"
    )
    name: Name = Field(
        "nightly", description="of the archive: the night's run id is NAME-DATE, its tries NAME-DATE-1, -2, and so on"
    )
    night: date = Field(
        default_factory=lambda: datetime.now(UTC).date(), description="date of the night; default: today's (UTC)"
    )
    python: str = Field("python", min_length=1, description="Python of the cluster's nodes, by name or path there")
    tries: int = Field(3, ge=1, le=20, description="submissions at most: each continues where the one before stopped")
    pause_s: float = Field(
        60,
        ge=0,
        le=86_400,
        description="seconds before a second try, twice as long before each later one: a cluster that has "
        "lost nodes needs time",
    )
    hours: float | None = Field(
        None,
        gt=0,
        le=8760,
        description="from now on, after which the run is stopped; the next night goes on from the table",
    )
    head_timeout_min: float = Field(
        10, gt=0, le=10_080, description="minutes to wait for a head that does not answer: it may be starting again"
    )
    poll_s: float = Field(15, gt=0, le=600, description="seconds between two looks at the run")
    upload_code: bool = Field(
        False, description="send this installation's code along; default: the cluster's image has it"
    )

    @property
    def run_id(self) -> str:
        """Returns the run id of the night."""
        return f"{self.name}-{self.night.isoformat()}"
