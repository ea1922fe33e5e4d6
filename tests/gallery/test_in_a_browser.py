"""The gallery in headless Chromium: it loads, sorts, filters, marks, and is used by keyboard and in a narrow window."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sfc.data.images import write_mask
from sfc.gallery.gallery import Entry, write_gallery

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

COUNT = 500


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs 0, 1, ...: doubt falls with the number; every third is tagged and shows no dog; one is gone."""
    root = tmp_path_factory.mktemp("gallery")
    entries = []
    for number in range(COUNT):
        mask = np.zeros((30, 40), np.uint8)
        mask[: 1 + number % 20] = 1
        if number % 3:
            mask[-5:] = 2
        photograph, file = root / f"{number:03}, x.jpg", root / f"{number:03}.png"
        if number < 40:
            Image.new("RGB", (40, 30), (number, 120, 150)).save(photograph)
        write_mask(file, mask, 1 - number / COUNT)
        entries.append(Entry(f"{number:03}, x", photograph, file, ("cat", "dog")))
    page = write_gallery(root / "page", "Cats & <dogs>", entries, ("cat", "dog"))
    (root / "page" / "overlays" / "001, x.jpg").unlink()
    return page


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, gallery: Path) -> Iterator[Any]:
    """A fresh window, whose scripts must not fail."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, accept_downloads=True)
    page = context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(gallery.as_uri())
    yield page
    assert faults == []
    context.close()


def names(page: Any, most: int = 3) -> list[str]:
    return [text.removesuffix(", x") for text in page.locator(".card .name").all_inner_texts()[:most]]


def test_it_loads_the_least_certain_first_and_not_all_at_once(page: Any) -> None:
    assert page.title() == "Cats & <dogs>"
    assert names(page) == ["000", "001", "002"]
    assert page.locator(".card").count() == 200
    assert page.locator("#count").inner_text() == "500 of 500, 0 marked"
    first = page.locator(".card").first
    assert first.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    assert "cat 3 %" in first.inner_text()
    assert "in doubt 100.0 %" in first.inner_text()
    page.evaluate("window.scrollTo(0, document.body.scrollHeight)")
    page.wait_for_function("document.querySelectorAll('.card').length > 200")


def test_a_missing_picture_says_so(page: Any) -> None:
    page.wait_for_function("document.querySelectorAll('.card .gone').length > 0")
    assert "not there any more" in page.locator(".card").nth(1).inner_text()


def test_order(page: Any) -> None:
    page.select_option("#order", "small")
    assert names(page, 1) == ["000"]
    page.select_option("#order", "large")
    assert int(names(page, 1)[0]) % 20 == 19
    page.select_option("#order", "name")
    assert names(page) == ["000", "001", "002"]


def test_filters(page: Any) -> None:
    dog = page.locator(".classes button", has_text="dog")
    assert dog.inner_text() == "dog 333"
    dog.click()
    assert dog.get_attribute("aria-pressed") == "true"
    assert names(page) == ["001", "002", "004"]
    assert page.locator("#count").inner_text() == "333 of 500, 0 marked"
    dog.click()
    page.click("#lost")
    assert names(page) == ["000", "003", "006"]
    assert "dog: tagged, no pixel" in page.locator(".card").first.inner_text()


def test_marks_are_kept_and_saved(page: Any, tmp_path: Path) -> None:
    page.locator(".card").first.focus()
    page.keyboard.press("x")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert page.locator("#count").inner_text() == "500 of 500, 2 marked"
    page.reload()
    assert page.locator(".card.marked").count() == 2
    page.click("#marked")
    assert names(page) == ["000", "002"]
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "exclude.csv"
    download.value.save_as(tmp_path / "exclude.csv")
    with (tmp_path / "exclude.csv").open(newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["000, x", "002, x"]


def test_one_photograph_by_keyboard(page: Any) -> None:
    page.locator(".card").nth(3).focus()
    page.keyboard.press("Enter")
    assert page.locator("dialog .name").inner_text() == "003, x"
    assert page.locator("#photo").evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    assert page.locator("#mask").evaluate("image => image.decode().then(() => image.naturalWidth)") == 40
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    assert page.locator("dialog .name").inner_text() == "004, x"
    assert page.locator("#mark").inner_text() == "not wrong"
    page.keyboard.press("Escape")
    assert not page.locator("dialog").is_visible()
    # The browser tells of a closed dialog a moment later.
    page.wait_for_function("document.activeElement.getAttribute('aria-label') === '004, x'", timeout=10_000)


def test_a_narrow_window_needs_no_sideways_scrolling(page: Any) -> None:
    page.set_viewport_size({"width": 320, "height": 600})
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    page.locator(".card").first.click()
    assert page.locator("dialog").evaluate("dialog => dialog.getBoundingClientRect().right") <= 320
