"""The page as text: complete, from nothing outside, and hostile names harmless. In a browser: test_browser.py."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from jobs.findings.digest import COLUMNS, RunDigest
from jobs.findings.page import draw_bars, format_time, judge_categories, render_page
from jobs.tables.schema import Status
from tests.jobs.findings.scores import make_scores

HOSTILE = "s3://archive/x/<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\x1b[31m\u202e.jpg"


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def _render(*rows: dict[str, object]) -> str:
    digest = RunDigest(top=10)
    digest.read([make_scores(*rows).select(COLUMNS)])
    judgements = judge_categories(digest, {}, {})
    return render_page(
        digest,
        record={"run_id": "night", "config": {"archive": HOSTILE}},
        judgements=judgements,
        pictures=[("", "storage: <b>no</b> \x1b[2J")] * len(digest.top),
        compared=False,
    )


def _list_tags(page: str) -> list[tuple[str, dict[str, str | None]]]:
    parser = _Tags()
    parser.feed(page)
    return parser.found


def test_hostile_names_make_no_tag_and_no_control_character() -> None:
    page = _render({"image_uri": HOSTILE, "image_key": HOSTILE, "category": HOSTILE, "site": HOSTILE})
    tags = _list_tags(page)
    assert [name for name, _ in tags].count("script") == 1
    assert not [attributes for name, attributes in tags if name in ("img", "b") and "onerror" in attributes]
    assert "\x1b" not in re.sub(r'data-uri="[^"]*"', "", page)


def test_the_uri_for_the_verdict_is_the_one_of_the_table() -> None:
    cards = [attributes for name, attributes in _list_tags(_render({"image_uri": HOSTILE})) if name == "figure"]
    assert [card["data-uri"] for card in cards] == [HOSTILE]


def test_a_browser_reads_line_breaks_of_a_key_as_they_are_stored() -> None:
    uri = "s3://archive/a\rb\r\nc\nd.jpg"
    page = _render({"image_uri": uri}).replace("\r\n", "\n").replace("\r", "\n")  # as HTML is read
    assert [attributes["data-uri"] for name, attributes in _list_tags(page) if name == "figure"] == [uri]


def test_nothing_comes_from_outside() -> None:
    tags = _list_tags(_render({}))
    links = [attributes.get(name) for _, attributes in tags for name in ("src", "href") if attributes.get(name)]
    assert all(str(link).startswith(("data:", "#")) for link in links)
    assert "default-src 'none'" in _render({})


def test_each_link_of_the_page_leads_to_a_part_of_it() -> None:
    tags = _list_tags(
        _render({"site": "north"}, {"site": "south", "status": Status.UNREADABLE, "error": "empty: no bytes"})
    )
    links = {str(attributes["href"])[1:] for name, attributes in tags if name == "a"}
    assert links == {"photos", "categories", "sites", "reasons", "record"}
    assert links <= {attributes.get("id") for _, attributes in tags}


def test_a_date_without_a_time_is_shown_as_a_date() -> None:
    assert format_time(datetime(2026, 3, 16, tzinfo=UTC)) == "2026-03-16"
    assert format_time(datetime(2026, 3, 16, 7, 5, tzinfo=UTC)) == "2026-03-16 07:05"


def test_a_run_without_scores_has_a_page_that_says_why() -> None:
    page = _render(
        {"status": Status.UNREADABLE, "error": "truncated: 3 of 9 bytes", "p_value": None, "tail_rank": None}
    )
    assert "No photo has a score." in page
    assert "truncated" in page


def test_a_page_that_was_asked_to_show_no_photo_does_not_say_that_none_has_a_score() -> None:
    digest = RunDigest(top=0)
    digest.read([make_scores({}).select(COLUMNS)])
    record = {"run_id": "night", "config": {}}
    page = render_page(digest, record=record, judgements={}, pictures=[], compared=False)
    assert "None is shown: --top is 0." in page
    assert "No photo has a score." not in page


def test_a_category_whose_calibration_supports_no_alarm_is_named() -> None:
    page = _render({}, {"category": "pole", "threshold": None, "is_anomaly": None})
    assert "<p>pole: no anomaly was possible, too few calibration photos" in page
    assert "no anomaly was possible" not in _render({})


def test_bars_are_level_for_uniform_p_values_and_hold_each_rate_within_its_bar() -> None:
    import numpy as np

    assert set(draw_bars(np.arange(1, 201) / 200)) == {20.0}
    assert draw_bars(np.array([0.05]))[0] > 0
    assert draw_bars(np.array([0.0501]))[0] == 0


def test_a_card_says_which_box_of_its_photo_it_shows() -> None:
    assert "a/1.jpg, box 10,20,300,40</div>" in _render({"image_key": "a/1.jpg", "box": "10,20,300,40"})
    assert "a/1.jpg</div>" in _render({"image_key": "a/1.jpg", "box": None})


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (
            {"listed": 59, "already_scored": 59},
            "no photo of its own: 59 of 59 photos listed are known from earlier runs.",
        ),
        ({"listed": 0, "already_scored": 0}, "no photo of its own: none was listed."),
    ],
)
def test_the_page_of_a_run_without_rows_says_why(record: dict[str, int], said: str) -> None:
    whole = {"run_id": "night", "config": {}, **record}
    page = render_page(RunDigest(top=10), record=whole, judgements={}, pictures=[], compared=False)
    assert said in page
    assert "Were all photos flawless" not in page
