"""Tables for people: aligned, numbers to the right, nothing in them can command a terminal."""

from __future__ import annotations

from jobs.tables.text import format_table


def test_columns_are_aligned_with_numbers_to_the_right() -> None:
    rows = [["cap", 0.5, None], ["insulator", 12.25, "12 left out"]]
    assert format_table(["category", "loss", "remark"], rows).splitlines() == [
        "category    loss  remark",
        "cap          0.5  -",
        "insulator  12.25  12 left out",
    ]


def test_a_table_without_rows_is_its_heading() -> None:
    assert format_table(["category", "loss"], []) == "category  loss"


def test_a_markdown_table_says_which_columns_are_numbers() -> None:
    assert format_table(["", "AUROC"], [["`se`", "94.10 ± 2.00"]], markdown=True).splitlines() == [
        "|      |        AUROC |",
        "| ---- | -----------: |",
        "| `se` | 94.10 ± 2.00 |",
    ]


def test_names_that_could_command_a_terminal_are_escaped() -> None:
    assert "\x1b" not in format_table(["name"], [["\x1b[2Jboo"]])
