"""Pages of a running demonstration, seen through a real browser and compared with what the exchange says."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright
from running_demo import TOKEN, Demo, running_demo

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
needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="Debian's chromium is not installed")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    with running_demo(tmp_path_factory.mktemp("demo")) as one:
        yield one


@pytest.fixture
def browser() -> Iterator[Browser]:
    # Closed with each test: while it is open its event loop is the thread's, and others could run none of their own.
    with sync_playwright() as playwright:
        one = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield one
        one.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    one = browser.new_page(viewport={"width": 1280, "height": 800})
    errors: list[str] = []
    one.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    one.on("pageerror", lambda error: errors.append(str(error)))
    one.set_default_timeout(10_000)
    yield one
    one.close()
    assert [error for error in errors if "WebSocket" not in error] == []


@needs_browser
def test_the_market_page_is_live_sorts_filters_and_finds(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    rows = demo.get("/api/v1/symbols?limit=2000")["rows"]
    page.wait_for_function(f"perpwatch.rows.size === {len(rows)} && document.body.dataset.rows === '{len(rows)}'")
    first = page.locator(".ag-center-cols-container .ag-row[row-index='0']")
    shown = {key: first.locator(f"[col-id={key}]") for key in ("price", "trust")}
    symbol = rows[0]["symbol"]
    before = shown["price"].inner_text()
    expect(shown["price"]).not_to_have_text(before)  # it moves
    last = float(shown["price"].inner_text())
    trades = demo.get(f"/api/v1/symbols/{symbol}/candles?limit=3")["candles"]
    assert min(one["low"] for one in trades) <= last <= max(one["high"] for one in trades)
    page.locator(".ag-header-cell[col-id=price] .ag-header-cell-label").click()
    page.wait_for_timeout(300)
    prices = [
        float(page.locator(f".ag-center-cols-container .ag-row[row-index='{row}'] [col-id=price]").inner_text())
        for row in (0, 4, 8)
    ]
    assert prices == sorted(prices)
    page.fill("#pw-filter", symbol)
    expect(page.locator(".ag-pinned-left-cols-container .ag-row")).to_have_count(1)
    page.locator("body").press("Escape")
    page.locator(".pw-brand").focus()
    page.keyboard.press("/")
    page.keyboard.type(rows[3]["symbol"][:4].lower())
    expect(page.locator("#pw-found a").first).to_be_visible()
    page.keyboard.press("Enter")
    page.wait_for_url("**/symbol/*")
    expect(page.locator("[data-figure=price]")).not_to_have_text("–")


@needs_browser
def test_the_views_open_without_errors(demo: Demo, page: Page) -> None:
    pictures = os.environ.get("PICTURES_FOLDER")
    symbol = demo.get("/api/v1/symbols?limit=1")["rows"][0]["symbol"]
    for name, path, sign in (
        ("market", "/", ".ag-row"),
        ("signals", "/signals", ".pw-card:visible, .pw-empty:visible"),
        ("symbol", f"/symbol/{symbol}", ".nicegui-echart canvas"),
        ("health", "/health", "[data-connections] .ag-row"),
        ("rules", "/rules", "[data-rule=default]"),
    ):
        page.goto(demo.url + path)
        page.locator(sign).first.wait_for()
        if pictures:
            page.wait_for_timeout(3_500)
            Path(pictures).mkdir(parents=True, exist_ok=True)
            page.screenshot(path=f"{pictures}/{name}.png")
    page.goto(f"{demo.url}/symbol/{symbol}")
    page.get_by_text("Min5", exact=True).click()
    expect(page.locator(".pw-button.on")).to_have_text("Min5")
    page.set_viewport_size({"width": 390, "height": 800})
    for path in ("/", "/signals", f"/symbol/{symbol}", "/health", "/rules"):
        page.goto(demo.url + path)
        page.locator("#pw-state:has-text('UTC')").wait_for()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path


@needs_browser
def test_names_are_shown_as_text(demo: Demo, page: Page) -> None:
    page.on("dialog", lambda dialog: pytest.fail(f"a script ran: {dialog.message}"))
    page.goto(f"{demo.url}/symbol/%3Cimg%20src=x%20onerror=alert(1)%3E")
    expect(page.get_by_text("<img src=x onerror=alert(1)> is not watched.")).to_be_visible()


@needs_browser
def test_signing_in_on_the_page_lets_one_act(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/rules")
    page.locator("[data-rule=build_up]").wait_for()
    pause = page.locator(".pw-panel", has=page.locator("[data-rule=build_up]")).get_by_role("button", name="pause")
    pause.click()
    expect(page.get_by_text("Sign in to act.")).to_be_visible()
    page.get_by_text("Sign in", exact=True).click()
    page.fill("#token", TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/rules")
    pause.click()
    expect(page.locator("[data-rule=build_up]")).to_have_text("paused")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in page.content()
    page.context.clear_cookies()


@needs_browser
def test_stale_data_is_said_and_forgotten_when_the_bot_is_back(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    page.locator(".ag-row").first.wait_for()
    demo.process.send_signal(signal.SIGSTOP)
    try:
        expect(page.locator("#pw-stale")).to_contain_text("Data is stale", timeout=10_000)
    finally:
        demo.process.send_signal(signal.SIGCONT)
    expect(page.locator("#pw-stale")).to_be_hidden(timeout=15_000)
