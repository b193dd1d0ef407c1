"""What a rerun of the same run id may ask for: what the plan has is refused, the rest is obeyed."""

from __future__ import annotations

from typing import Any

import pytest

from jobs.errors import RequestError
from jobs.scoring.config import ScoreConfig
from jobs.scoring.preparation import check_same_run


def _config(**more: Any) -> ScoreConfig:
    return ScoreConfig.model_validate({"archive": "/a", "detectors": "/d", "results": "/r", "run_id": "n"} | more)


@pytest.mark.parametrize(
    ("scoring", "said"),
    [
        ({"precision": "fp32"}, r"scoring\.precision was 'auto' and is now 'fp32'"),
        ({"max_pixels": 9}, r"scoring\.max_pixels was 160000000 and is now 9"),
    ],
)
def test_settings_that_the_plan_has_decided_are_refused(scoring: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        check_same_run(_config(scoring=scoring), _config().model_dump(mode="json"))


def test_settings_that_a_rerun_obeys_may_change() -> None:
    changes = {"scoring": {"actors": 3, "fetch_concurrency": 8, "decode_timeout_s": 5}, "top": 3, "min_alarm_rows": 9}
    check_same_run(_config(**changes), _config().model_dump(mode="json"))
    said_afterwards = {"report": True, "fail_on_drift": True, "explain": "top:3", "log_format": "json"}
    check_same_run(_config(**said_afterwards), _config().model_dump(mode="json"))


def test_a_field_that_the_earlier_version_did_not_have_counts_with_its_default() -> None:
    earlier = _config().model_dump(mode="json")
    del earlier["alias"]
    del earlier["scoring"]["precision"]
    check_same_run(_config(), earlier)
    with pytest.raises(RequestError, match="alias was 'champion' and is now 'candidate'"):
        check_same_run(_config(alias="candidate"), earlier)
