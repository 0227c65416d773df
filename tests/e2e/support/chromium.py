"""The system's Chromium, driven by Playwright; screenshots are kept in ``artefacts/inbox``.

KUBECHAIN_CHROMIUM names a binary; otherwise the first of the usual names on PATH is taken. Without any the tests are
skipped and say so (.ci/run installs one).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

SCREENSHOTS = Path(__file__).resolve().parents[3] / "artefacts" / "inbox"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
TIMEOUT_MS = 10_000


def find_chromium() -> str | None:
    """The binary, or None."""
    named = os.environ.get("KUBECHAIN_CHROMIUM")
    found = [shutil.which(name) for name in ((named,) if named else NAMES)]
    return next((path for path in found if path), None)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A headless browser; skips the test when this machine has none."""
    binary = find_chromium()
    if binary is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium, or set KUBECHAIN_CHROMIUM")
    sandbox = [] if os.geteuid() else ["--no-sandbox"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=binary, args=[*sandbox, "--disable-gpu"])
        try:
            yield browser
        finally:
            browser.close()


def keep_screenshot(page: Page, name: str) -> None:
    """Keep what the page looks like."""
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{name}.png", animations="disabled")
