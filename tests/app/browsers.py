"""Fixtures: a real browser, and a page of it, for the files of tests that name this file as their plugin."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Dialog, Page

CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def screenshots() -> Path:
    """Where each test that uses a browser leaves a picture of its page."""
    folder = Path(os.environ.get("SCREENSHOTS_FOLDER", Path(__file__).parents[2] / "build" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Debian's chromium is not installed")
    from playwright.sync_api import sync_playwright  # only here: few tests need it

    # Closed with each file of tests, in which there must be no coroutines: while it is open its event loop is the
    # thread's, and others could run none of their own.
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        one.close()


@pytest.fixture
def page(browser: Browser, screenshots: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A page on whose console nothing goes wrong, except that a watch that was stopped cannot be reached."""
    one = browser.new_page(viewport={"width": 1280, "height": 800}, color_scheme="dark")
    errors: list[str] = []

    def on_dialog(dialog: Dialog) -> None:
        errors.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    one.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    one.on("pageerror", lambda error: errors.append(str(error)))
    one.on("dialog", on_dialog)
    one.set_default_timeout(10_000)
    yield one
    one.screenshot(path=screenshots / f"{re.sub(r'[^a-z0-9_]+', '-', request.node.name)}.png")
    one.close()
    assert [error for error in errors if not re.search(r"WebSocket|ERR_CONNECTION_(REFUSED|RESET)", error)] == []
