"""Numbers of photos as people write them."""

from __future__ import annotations

import pytest

from jobs.sizing.quantities import format_quantity, parse_quantity


@pytest.mark.parametrize(
    ("text", "number"),
    [("10M", 10**7), ("2.5B", 2_500_000_000), ("800k", 800_000), ("1_000", 1000), (" 7 ", 7), ("0.1m", 100_000)],
)
def test_a_quantity_is_a_number_with_a_letter(text: str, number: int) -> None:
    assert parse_quantity(text) == number


@pytest.mark.parametrize("text", ["", "ten", "0", "-3M", "1.5", "10T", "1e6", "M"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a whole number from 1 to 1000B, such as 800k, 10M or 2\.5B, got "):
        parse_quantity(text)


@pytest.mark.parametrize("value", [0, -5, 1.5, float("inf"), float("nan"), True, None, 1e30, "99999B", [1]])
def test_a_number_of_yaml_or_of_a_flag_is_checked_like_a_text(value: object) -> None:
    with pytest.raises(ValueError, match=r"expected a whole number from 1 to 1000B"):
        parse_quantity(value)


def test_a_whole_number_of_yaml_is_taken() -> None:
    assert [parse_quantity(value) for value in (7, 1e7, 10**12)] == [7, 10**7, 10**12]


@pytest.mark.parametrize("text", ["1", "999", "10k", "2.5M", "1B"])
def test_a_quantity_is_shown_as_it_is_read(text: str) -> None:
    assert format_quantity(parse_quantity(text)) == text
