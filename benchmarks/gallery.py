"""Time and bytes of a gallery, made and made again, and how long a browser needs until it can be used.

    python benchmarks/gallery.py [--photographs 10000]

Photographs are 640 × 480, masks have three classes. The browser is Chromium, where there is one.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from sfc.data.images import write_mask
from sfc.gallery.gallery import Entry, write_gallery

DIFFERENT = 50
"""Photographs that are made; the others are links to them."""
CLASSES = tuple(f"class {k}" for k in range(20))


def entries_of(root: Path, count: int) -> list[Entry]:
    """Photographs and masks on disk."""
    (root / "photographs").mkdir()
    (root / "masks").mkdir()
    entries = []
    for number in range(count):
        photograph, mask = root / "photographs" / f"{number}.jpg", root / "masks" / f"{number}.png"
        if number < DIFFERENT:
            random = np.random.default_rng(number)
            small = random.integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(small).resize((640, 480), Image.Resampling.BICUBIC).save(photograph)
            labels = np.kron(random.integers(0, 4, (6, 8), dtype=np.uint8), np.ones((80, 80), np.uint8))
            write_mask(mask, labels, float(random.random()))
        else:
            os.link(root / "photographs" / f"{number % DIFFERENT}.jpg", photograph)
            os.link(root / "masks" / f"{number % DIFFERENT}.png", mask)
        entries.append(Entry(f"holiday/{number}", photograph, mask, CLASSES[:2]))
    return entries


def seconds_in_a_browser(page: Path) -> tuple[float, float] | None:
    """Until the first pictures can be seen, and to sort and filter once; None without a browser."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        return None
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        window = browser.new_page()
        start = time.perf_counter()
        window.goto(page.as_uri())
        window.wait_for_function("document.querySelector('.card img')?.complete")
        loaded = time.perf_counter() - start
        start = time.perf_counter()
        window.select_option("#order", "large")
        window.locator(".classes button").first.click()
        window.wait_for_function("document.querySelector('#count').textContent.includes(' of ')")
        chosen = time.perf_counter() - start
        browser.close()
    return loaded, chosen


def main() -> None:
    """Prints the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=int, default=10_000)
    count = parser.parse_args().photographs
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        entries = entries_of(root, count)
        for words in ("made", "made again"):
            start = time.perf_counter()
            page = write_gallery(root / "gallery", "Masks", entries, CLASSES)
            seconds = time.perf_counter() - start
            print(f"{words}: {seconds:.1f} s, {1000 * seconds / count:.1f} ms a photograph")
        pictures = sum(path.stat().st_size for path in (root / "gallery" / "overlays").rglob("*.jpg"))
        print(f"page {page.stat().st_size / 1e6:.1f} MB, pictures {pictures / 1e6:.0f} MB")
        times = seconds_in_a_browser(page)
        if times:
            print(f"in a browser: seen after {times[0]:.1f} s, sorted and filtered in {times[1]:.2f} s")


if __name__ == "__main__":
    main()
