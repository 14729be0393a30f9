"""Takes the screenshots of a report in `docs/images`, without internet access.

Usage: `python scripts/picture_report.py RUN_FOLDER`. Needs `playwright` and a Chromium.
"""

from __future__ import annotations

import argparse
import io
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

IMAGES = Path(__file__).parents[1] / "docs" / "images"
CHROMIUM_OPTIONS = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
VIEWER_STARTED = "document.querySelector('.first').hidden"


def main() -> None:
    """Opens the report from disk and saves its first screen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run directory with report.html")
    parser.add_argument("--map", help="name of the map to choose in the viewer")
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    arguments = parser.parse_args()
    with sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=arguments.chromium, args=CHROMIUM_OPTIONS)
        context = browser.new_context(viewport={"width": 1400, "height": 1770}, offline=True)
        page = context.new_page()
        page.goto((arguments.run / "report.html").resolve().as_uri())
        while not page.evaluate(VIEWER_STARTED):
            page.wait_for_timeout(100)
        if arguments.map:
            page.get_by_role("radio", name=arguments.map).first.check()
        page.wait_for_timeout(2000)
        save(page, "report.png")
        browser.close()


def save(page: Any, name: str) -> None:
    """Writes a screenshot as PNG in full color, so that color scales have no bands."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(IMAGES / name, optimize=True)
    print(IMAGES / name, (IMAGES / name).stat().st_size)


if __name__ == "__main__":
    main()
