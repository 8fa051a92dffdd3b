"""A headless Chromium that is already on the machine; without one these tests are skipped."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def _executable(playwright) -> str | None:
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return found
    own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


@pytest.fixture(scope="session")
def browser():
    """The browser, for the whole session."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        executable = _executable(playwright)
        if executable is None:
            pytest.skip(f"there is no browser: none of {', '.join(NAMES)}, nor playwright's own")
        try:
            launched = playwright.chromium.launch(executable_path=executable)
        except sync_api.Error as error:
            pytest.skip(f"{executable} does not start: {str(error).splitlines()[0]}")
        yield launched
        launched.close()
