"""Who wins a search: the best trial, if it leads the best preset by more than luck may."""

from __future__ import annotations

import pytest

from tuning.choice.finalists import Finalist, choose_finalists, put_winner_first
from tuning.trials.records import TrialRecord


def _record(number: int, auroc: float, *, preset: str | None = None, status: str = "done") -> TrialRecord:
    return TrialRecord.model_validate(
        {
            "number": number,
            "key": f"key{number}",
            "name": preset or f"placement {number}",
            "preset": preset,
            "parameters": {},
            "distributions": {},
            "detector": {},
            "optimizer": {},
            "status": status,
            "reason": None,
            "epochs": 8,
            "metrics": {"auroc": auroc},
            "seconds": 1.0,
            "copy_of": None,
        }
    )


TRIAL = Finalist(_record(7, 0.95), [0.93, 0.91], None)
OTHER = Finalist(_record(8, 0.94), [0.92, 0.91], None)
PRESET = Finalist(_record(1, 0.90, preset="attentdiffernet_se"), [0.91, 0.90], None)


@pytest.mark.parametrize(("margin", "winner"), [(0.02, 1), (0.0149, 7), (0.0, 7)])
def test_a_trial_wins_if_it_leads_the_best_preset_by_more_than_the_margin(margin: float, winner: int) -> None:
    found, why = put_winner_first([TRIAL, OTHER, PRESET], margin=lambda auroc: margin)
    assert [one.record.number for one in found] == [winner, *(n for n in (7, 8, 1) if n != winner)]
    assert ("leads preset attentdiffernet_se by 0.0150" in why) == (winner == 1)


def test_the_margin_is_asked_for_at_the_presets_metric() -> None:
    asked: list[float] = []
    put_winner_first([TRIAL, PRESET], margin=lambda auroc: asked.append(auroc) or 0.0)  # type: ignore[func-returns-value]
    assert asked == [pytest.approx(0.905)]


def test_a_preset_that_is_ahead_or_failed_changes_nothing() -> None:
    ahead = [PRESET, TRIAL]
    assert put_winner_first(ahead, margin=lambda auroc: 1.0) == (ahead, "")
    failed = [TRIAL, Finalist(PRESET.record, [], "it diverged")]
    assert put_winner_first(failed, margin=lambda auroc: 1.0) == (failed, "")


def test_the_best_preset_that_was_not_stopped_is_a_finalist_however_many_trials_are_better() -> None:
    records = [
        _record(0, 0.99, preset="differnet", status="stopped"),
        _record(1, 0.90, preset="attentdiffernet_se"),
        _record(2, 0.91, preset="attentdiffernet_best"),
        *(_record(number, 0.9 + number / 100) for number in (3, 4, 5)),
    ]
    found = choose_finalists(records, objective="auroc", count=2)
    assert [one.number for one in found] == [5, 4, 2]
    assert [one.number for one in choose_finalists(records, objective="auroc", count=4)] == [5, 4, 3, 2]
