"""The page in a real browser, Debian's Chromium without a window: what a reviewer sees, presses and downloads."""

from __future__ import annotations

import csv
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from jobs.findings.digest import COLUMNS, RunDigest
from jobs.findings.page import judge_categories, render_page
from jobs.findings.thumbnails import encode_jpeg
from tests.jobs.findings.scores import make_scores

pytestmark = pytest.mark.slow
HOSTILE = 's3://archive/x/"><script>document.title = 1</script>, with a comma.jpg'


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of five photos: one has a hostile name, one is all height, one has no picture."""
    digest = RunDigest(top=5)
    rows = [{"tail_rank": 0.001 * (number + 1), "site": "north", "is_anomaly": number < 2} for number in range(4)]
    many = [{"p_value": (number + 1) / 200, "tail_rank": (number + 1) / 200} for number in range(200)]
    digest.read([make_scores({"image_uri": HOSTILE, "tail_rank": 1e-6}, *rows, *many).select(COLUMNS)])
    pixels = np.random.default_rng(0).integers(0, 256, (3, 64, 64), np.uint8).tobytes()
    picture = encode_jpeg({"pixels": pixels, "width": 300, "height": 200}, {}, side_px=64)
    line = np.zeros((3, 64, 64), np.uint8)
    line[:, :, 31] = 255
    tall = encode_jpeg({"pixels": line.tobytes(), "width": 2, "height": 9000}, {}, side_px=64)
    content = render_page(
        digest,
        record={"run_id": "night", "config": {"archive": f"s3://{'archive' * 20}"}},
        judgements=judge_categories(digest, {}, {}),
        pictures=[(picture, "")] * 3 + [(tall, ""), ("", "unreadable")],
        compared=False,
    )
    file = tmp_path_factory.mktemp("page") / "night.html"
    file.write_text(content)
    return file


@pytest.fixture
def browser(tmp_path: Path, page: Path) -> Iterator[webdriver.Chrome]:
    """Chromium with the page open; downloads go to ``tmp_path``."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not chromium or not driver:
        pytest.skip("needs Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(tmp_path)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    opened = webdriver.Chrome(options=options, service=Service(driver))
    opened.get(page.as_uri())
    yield opened
    opened.quit()


def _press(browser: webdriver.Chrome, *keys: str) -> None:
    ActionChains(browser).send_keys(*keys).perform()


def _list_verdicts(browser: webdriver.Chrome) -> list[str | None]:
    return [card.get_attribute("data-verdict") for card in browser.find_elements(By.CLASS_NAME, "card")]


def test_it_opens_without_a_console_message_and_every_picture_loads(browser: webdriver.Chrome) -> None:
    widths = browser.execute_script("return [...document.images].map((image) => image.naturalWidth)")
    assert widths == [64, 64, 64, 1]
    assert browser.get_log("browser") == []


def test_a_hostile_key_does_not_run(browser: webdriver.Chrome) -> None:
    assert browser.title == "night: 2 anomalies in 205 photos"
    assert browser.find_element(By.CLASS_NAME, "card").get_attribute("data-uri") == HOSTILE


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(browser: webdriver.Chrome, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [390, 1280])
def test_no_photo_is_higher_than_the_screen_of_a_phone(browser: webdriver.Chrome, width: int) -> None:
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    heights = "return [...document.querySelectorAll('.photo')].map((one) => one.getBoundingClientRect().height)"
    found = browser.execute_script(heights)
    assert len(found) == 5
    assert max(found) < 600


def test_keys_mark_photos_one_after_the_other_and_again_takes_the_mark_back(browser: webdriver.Chrome) -> None:
    _press(browser, "d", "g", "u", Keys.ARROW_LEFT, Keys.ARROW_LEFT, "g")
    assert _list_verdicts(browser) == ["defect", None, "unsure", None, None]
    assert browser.find_element(By.ID, "progress").text == "2 of 5 marked"


def test_a_key_marks_one_photo_however_long_it_is_held_and_also_as_a_capital(browser: webdriver.Chrome) -> None:
    _press(browser, "D")
    held = "document.dispatchEvent(new KeyboardEvent('keydown', { key: 'd', repeat: true }))"
    for _ in range(3):
        browser.execute_script(held)
    assert _list_verdicts(browser) == ["defect", None, None, None, None]


def test_the_photo_that_keys_move_to_is_not_behind_the_bar(browser: webdriver.Chrome) -> None:
    browser.set_window_size(500, 500)
    _press(browser, *[Keys.ARROW_RIGHT] * 5, *[Keys.ARROW_LEFT] * 2)
    hidden = "const top = (one) => one.getBoundingClientRect(); const bar = top(document.querySelector('.bar'));"
    assert browser.execute_script(f"{hidden} return top(document.activeElement).top - bar.bottom") >= 0


def test_marks_are_there_again_when_the_page_is_opened_again(browser: webdriver.Chrome) -> None:
    browser.find_element(By.CSS_SELECTOR, "button[data-verdict=defect]").click()
    browser.refresh()
    assert _list_verdicts(browser)[0] == "defect"


def test_verdicts_are_downloaded_as_csv_that_names_the_photos_as_stored(
    browser: webdriver.Chrome, tmp_path: Path
) -> None:
    _press(browser, "d", "g")
    browser.find_element(By.ID, "download").click()
    file, until = tmp_path / "verdicts.csv", time.monotonic() + 20
    while not file.exists() and time.monotonic() < until:
        time.sleep(0.1)
    with file.open(newline="") as content:
        rows = list(csv.DictReader(content))
    assert [(row["image_uri"], row["verdict"]) for row in rows] == [
        (HOSTILE, "defect"),
        ("s3://archive/insulator/a/photo-00001.jpg", "good"),
    ]
    assert rows[0]["image_etag"] == f"{0:032x}"
