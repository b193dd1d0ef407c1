"""A few hundred of the mutations of `make fuzz`: every file is decoded or refused, whatever was done to it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from tests.support.fuzzing import PromiseBrokenError, mutations, outcome, seeds


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(mutations(seeds()))
@pytest.mark.slow
def test_a_mutated_file_is_decoded_or_refused_in_time(data: bytes) -> None:
    assert outcome(data)


def test_the_seeds_themselves_are_decoded() -> None:
    assert [outcome(data) for data in seeds()] == ["decoded"] * len(seeds())


def test_the_fuzzer_notices_a_broken_promise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.support.fuzzing.decode_image", lambda *_, **__: 1 / 0)
    with pytest.raises(PromiseBrokenError, match="ZeroDivisionError"):
        outcome(b"")
