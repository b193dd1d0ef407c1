"""Aliases by conditional put: of two promotions at once one wins, and the history cannot disagree with the alias."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from jobs import storage
from jobs.detectors import aliases as module
from jobs.detectors.aliases import MAX_CHANGES, find_previous, is_rolled_back, read_aliases, read_history, set_alias
from jobs.errors import ConflictError, RequestError
from jobs.storage import uris

A, B, C = "a" * 16, "b" * 16, "c" * 16


@pytest.fixture
def detectors(tmp_path: Path) -> str:
    """An empty registry."""
    return f"file://{tmp_path}/registry"


@pytest.fixture(params=["file", pytest.param("s3", marks=pytest.mark.s3)])
def anywhere(request: pytest.FixtureRequest) -> str:
    """An empty registry, as local files and in a bucket of the real S3 server."""
    return str(request.getfixturevalue("detectors" if request.param == "file" else "bucket"))


def _all_at_once(actions: Sequence[Callable[[], object]], monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Runs the actions in threads that have all read before any writes; returns what each gave or raised."""
    barrier, read = threading.Barrier(len(actions)), storage.read_with_etag
    arrived = threading.local()

    def reading(uri: str) -> tuple[bytes, str]:
        try:
            return read(uri)
        finally:
            if not getattr(arrived, "once", False):
                arrived.once = True
                barrier.wait(timeout=30)

    monkeypatch.setattr(storage, "read_with_etag", reading)

    def outcome(action: Callable[[], object]) -> object:
        try:
            return action()
        except ConflictError as error:
            return error

    with ThreadPoolExecutor(len(actions)) as threads:
        found = list(threads.map(outcome, actions))
    monkeypatch.undo()
    return found


def test_an_alias_moves_and_the_others_stay(detectors: str) -> None:
    assert set_alias(detectors, "cap", alias="champion", detector_id=A) is None
    set_alias(detectors, "cap", alias="candidate", detector_id=B)
    assert set_alias(detectors, "cap", alias="champion", detector_id=B) == A
    assert read_aliases(detectors, "cap") == {"champion": B, "candidate": B}


@pytest.mark.parametrize("first", [True, False], ids=["the first promotion ever", "a later promotion"])
@pytest.mark.slow
def test_of_two_promotions_at_once_exactly_one_wins(
    anywhere: str, monkeypatch: pytest.MonkeyPatch, first: bool
) -> None:
    if not first:
        set_alias(anywhere, "cap", alias="champion", detector_id=A)
    actions = [lambda to=to: set_alias(anywhere, "cap", alias="champion", detector_id=to) for to in (B, C)]
    outcomes = _all_at_once(actions, monkeypatch)
    lost = [isinstance(outcome, ConflictError) for outcome in outcomes]
    assert sorted(lost) == [False, True]
    winner = (B, C)[lost.index(False)]
    assert read_aliases(anywhere, "cap") == {"champion": winner}
    assert [change.after for change in read_history(anywhere, "cap")] == ([] if first else [A]) + [winner]
    assert f"champion of cap was not changed, another promotion won: it is {winner}" in str(outcomes[lost.index(True)])


@pytest.mark.slow
def test_units_of_a_fleet_that_set_their_own_aliases_at_once_all_succeed(
    anywhere: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {f"differnet.seed{number}": f"{number:016x}" for number in range(8)}
    actions = [
        lambda alias=alias, to=to: set_alias(anywhere, "cap", alias=alias, detector_id=to)
        for alias, to in wanted.items()
    ]
    assert _all_at_once(actions, monkeypatch) == [None] * 8
    assert read_aliases(anywhere, "cap") == wanted
    assert sorted(change.alias for change in read_history(anywhere, "cap")) == sorted(wanted)


def test_two_that_promote_the_same_detector_at_once_both_succeed(
    detectors: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    action = lambda: set_alias(detectors, "cap", alias="champion", detector_id=A)  # noqa: E731
    assert _all_at_once([action, action], monkeypatch) == [None, None]
    assert len(read_history(detectors, "cap")) == 1


def test_a_writer_that_always_loses_gives_up(detectors: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(uri: str, data: bytes, *, if_absent: bool, if_etag: str | None) -> None:
        raise ConflictError(uri)

    monkeypatch.setattr(storage, "write", refuse)
    monkeypatch.setattr(module, "_LONGEST_WAIT_S", 0.0)
    with pytest.raises(ConflictError, match="champion of cap was not changed"):
        set_alias(detectors, "cap", alias="champion", detector_id=A)


def test_a_promotion_that_expects_another_detector_changes_nothing(detectors: str) -> None:
    with pytest.raises(ConflictError, match=f"champion of cap is none, not {A}"):
        set_alias(detectors, "cap", alias="champion", detector_id=B, expected=A)
    set_alias(detectors, "cap", alias="champion", detector_id=A, expected="none")
    with pytest.raises(ConflictError, match=f"champion of cap is {A}, not none"):
        set_alias(detectors, "cap", alias="champion", detector_id=B, expected="none")
    set_alias(detectors, "cap", alias="champion", detector_id=B, expected=A)
    assert read_aliases(detectors, "cap") == {"champion": B}


def test_the_history_says_who_changed_what_when_and_why(detectors: str) -> None:
    before = datetime.now(UTC)
    set_alias(detectors, "cap", alias="champion", detector_id=A, reason="first")
    set_alias(detectors, "cap", alias="champion", detector_id=B, reason="better on new photos")
    first, second = read_history(detectors, "cap")
    assert (first.before, first.after, first.reason, first.action) == (None, A, "first", "promote")
    assert (second.before, second.after, second.reason) == (A, B, "better on new photos")
    assert before <= first.at <= second.at <= datetime.now(UTC)
    assert "@" in first.by


def test_setting_what_is_set_already_is_no_change(detectors: str) -> None:
    set_alias(detectors, "cap", alias="champion", detector_id=A)
    assert set_alias(detectors, "cap", alias="champion", detector_id=A) == A
    assert len(read_history(detectors, "cap")) == 1


def test_the_history_is_bounded_and_keeps_the_latest(detectors: str) -> None:
    for number in range(MAX_CHANGES + 3):
        set_alias(detectors, "cap", alias="champion", detector_id=f"{number:016x}")
    kept = read_history(detectors, "cap")
    assert len(kept) == MAX_CHANGES
    assert kept[-1].after == f"{MAX_CHANGES + 2:016x}"


def test_aliases_without_a_history_are_read_and_get_one(detectors: str) -> None:
    storage.write(uris.join(detectors, "cap", "aliases.json"), json.dumps({"champion": A}).encode())
    assert read_aliases(detectors, "cap") == {"champion": A}
    set_alias(detectors, "cap", alias="champion", detector_id=B)
    assert find_previous(detectors, "cap", alias="champion") == (B, A)


def _promote(detectors: str, *ids: str) -> None:
    for detector_id in ids:
        set_alias(detectors, "cap", alias="champion", detector_id=detector_id)


def _roll_back(detectors: str) -> None:
    current, before = find_previous(detectors, "cap", alias="champion")
    set_alias(detectors, "cap", alias="champion", detector_id=before, expected=current, action="rollback")


def test_rolling_back_twice_goes_back_two_promotions(detectors: str) -> None:
    _promote(detectors, A, B, C)
    _roll_back(detectors)
    assert read_aliases(detectors, "cap") == {"champion": B}
    _roll_back(detectors)
    assert read_aliases(detectors, "cap") == {"champion": A}
    with pytest.raises(RequestError, match=f"knows no detector that champion was before {A}"):
        _roll_back(detectors)


def test_what_was_rolled_back_does_not_come_again(detectors: str) -> None:
    _promote(detectors, A, B)
    _roll_back(detectors)
    _promote(detectors, C)
    assert find_previous(detectors, "cap", alias="champion") == (C, A)


def test_what_was_rolled_back_is_known_until_it_is_promoted_again(detectors: str) -> None:
    _promote(detectors, A, B)
    assert not is_rolled_back(detectors, "cap", alias="champion", detector_id=B)
    _roll_back(detectors)
    assert is_rolled_back(detectors, "cap", alias="champion", detector_id=B)
    assert not is_rolled_back(detectors, "cap", alias="champion", detector_id=A)
    _promote(detectors, C)
    assert is_rolled_back(detectors, "cap", alias="champion", detector_id=B)
    _promote(detectors, B, A)
    assert not is_rolled_back(detectors, "cap", alias="champion", detector_id=B)


def test_a_rollback_after_promoting_an_older_detector_again_undoes_that(detectors: str) -> None:
    _promote(detectors, A, B, A)
    assert find_previous(detectors, "cap", alias="champion") == (A, B)


def test_a_rollback_still_works_where_the_history_was_cut_off(detectors: str) -> None:
    _promote(detectors, A, B)
    set_alias(detectors, "cap", alias="other", detector_id=A)
    place = uris.join(detectors, "cap", "aliases.json")
    content = json.loads(storage.read(place))
    content[".history"] = content[".history"][1:]
    storage.write(place, json.dumps(content).encode())
    assert find_previous(detectors, "cap", alias="champion") == (B, A)


def test_an_alias_that_is_not_set_cannot_be_rolled_back(detectors: str) -> None:
    set_alias(detectors, "cap", alias="candidate", detector_id=A)
    with pytest.raises(RequestError, match="cap has no alias 'champion' to roll back; it has candidate"):
        find_previous(detectors, "cap", alias="champion")


@pytest.mark.parametrize("alias", ["", ".history", "a b", "../x", "0123456789abcdef", "x" * 101, "a\n"])
def test_a_name_that_is_no_alias_is_refused(detectors: str, alias: str) -> None:
    with pytest.raises(RequestError, match="expected the name of an alias"):
        set_alias(detectors, "cap", alias=alias, detector_id=A)


@pytest.mark.parametrize(
    "content",
    [
        b"[",
        b"[]",
        b'{"champion": "../../etc"}',
        b'{"champion": 3}',
        b'{".history": {}}',
        b'{".history": [{"alias": "champion"}]}',
        b"[" * 100_000,
    ],
)
def test_damaged_aliases_are_refused(detectors: str, content: bytes) -> None:
    storage.write(uris.join(detectors, "cap", "aliases.json"), content)
    with pytest.raises(RequestError, match=r"aliases\.json is damaged"):
        read_aliases(detectors, "cap")
