"""Pages and API of a running demonstration, seen through a real browser and compared with what the exchange says."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from playwright.sync_api import Browser, Page, expect, sync_playwright
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance

TOKEN = "a-token-nobody-would-guess"
PAIRS = 60
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


@dataclass(frozen=True, slots=True)
class Demo:
    url: str  # of the dashboard
    exchange: str  # of the exchange's REST
    process: subprocess.Popen[str]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=10) as answer:
            return json.load(answer)

    def truth(self, path: str) -> Any:
        for _ in range(20):
            with urllib.request.urlopen(f"{self.exchange}/api/v1/contract/{path}", timeout=10) as answer:
                said = json.load(answer)
            if said["success"]:
                return said["data"]
            time.sleep(0.5)  # the bot and we share one budget
        pytest.fail(f"the exchange does not answer: {said}")

    def act(self, action: str, token: str = TOKEN) -> Any:
        request = urllib.request.Request(
            f"{self.url}/api/v1/actions/{action}", method="POST", headers={"Authorization": f"Bearer {token}"}
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    log = folder / "log"
    ours = {
        "PERPWATCH_HEALTH__PORT": "0",
        "PERPWATCH_DASHBOARD__PORT": "0",
        "PERPWATCH_DASHBOARD__TOKEN": TOKEN,
        "PERPWATCH_REST__REQUESTS_PER_SECOND": "8",
    }
    others = {name: value for name, value in os.environ.items() if not name.startswith("PERPWATCH_")}
    command = [sys.executable, "-c", "from perpwatch.app.cli import main; main()"]
    command += ["demo", "--pairs", str(PAIRS), "--format", "log", "--duration", "600"]
    with log.open("w") as errors:
        process = subprocess.Popen(command, stderr=errors, env=others | ours, cwd=folder, text=True)
        try:
            deadline_s = time.monotonic() + 40
            while True:
                text = log.read_text()
                url, exchange = (
                    re.search(r"dashboard at (http\S+)", text),
                    re.search(r"exchange at ws(://\S+)/edge", text),
                )
                if url and exchange:
                    break
                assert time.monotonic() < deadline_s, text
                assert process.poll() is None, text
                time.sleep(0.1)
            one = Demo(url[1], f"http{exchange[1]}", process)
            while (
                one.get("/api/v1/status")["health"]["contracts"]["warm"] < 10
                or one.get("/api/v1/symbols?limit=1")["rows"][0]["turnover_24h"] is None
            ):
                assert time.monotonic() < deadline_s, one.get("/api/v1/status")
                time.sleep(0.2)
            yield one
        finally:
            process.send_signal(signal.SIGCONT)
            process.terminate()
            process.wait(20)


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


def refusal_of(call: Any) -> tuple[int, str, dict[str, Any]]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        call()
    error = caught.value
    return error.code, error.headers["Content-Type"], json.load(error)


def test_prices_and_candles_are_those_of_the_exchange(demo: Demo) -> None:
    page = demo.get("/api/v1/symbols?limit=2000")
    assert page["total"] == len(page["rows"]) > PAIRS // 2
    turnovers = [row["turnover_24h"] for row in page["rows"]]
    assert turnovers == sorted(turnovers, reverse=True)
    symbol = page["rows"][1]["symbol"]
    ours = demo.get(f"/api/v1/symbols/{symbol}/candles?limit=30")["candles"]
    # The newest closed minute may still be corrected between the two questions.
    closed = {one["open_time_ms"] // 1_000: one for one in ours[:-2] if one["finality"] != "open"}
    theirs = demo.truth(f"kline/{symbol}?interval=Min1&start={min(closed)}&end={max(closed)}")
    compared = 0
    for place, opened_s in enumerate(theirs["time"]):
        if opened_s in closed:
            one = closed[opened_s]
            assert (one["close"], one["contracts"]) == (theirs["close"][place], theirs["vol"][place])
            compared += 1
    assert compared >= 20


def test_errors_say_why_as_problem_json(demo: Demo) -> None:
    code, kind, body = refusal_of(lambda: demo.get("/api/v1/symbols/NO_SUCH"))
    assert (code, kind, body["status"]) == (404, "application/problem+json", 404)
    assert "NO_SUCH is not watched" in body["detail"]
    code, kind, body = refusal_of(lambda: demo.get("/api/v1/symbols?limit=0"))
    assert (code, kind) == (422, "application/problem+json")
    assert "limit" in body["detail"]
    code, _, body = refusal_of(lambda: demo.act("rules/nothing/pause"))
    assert (code, "default" in body["detail"]) == (422, True)
    assert refusal_of(lambda: demo.act("test-alert", token="wrong"))[0] == 401


async def test_a_test_alert_reaches_every_reader_who_can_resume(demo: Demo) -> None:
    socket_url = demo.url.replace("http", "ws") + "/api/v1/stream"
    async with asyncio.timeout(20), aiohttp.ClientSession() as session:
        async with session.ws_connect(socket_url) as socket:
            await asyncio.to_thread(demo.act, "test-alert")
            while (first := await socket.receive_json())["type"] != "alert" or first["alert"]["rule"] != "test":
                pass
        await asyncio.to_thread(demo.act, "test-alert")
        async with session.ws_connect(f"{socket_url}?last_id={first['id']}") as socket:
            while (second := await socket.receive_json())["type"] != "alert" or second["alert"]["rule"] != "test":
                pass
        assert second["alert"]["key"] != first["alert"]["key"]
        async with session.get(demo.url + "/api/v1/events", params={"last_id": first["id"], "for_s": 1}) as answer:
            assert f"id: {second['id']}\n" in await answer.text()
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(socket_url, origin="http://evil.example")


def test_every_answer_is_what_the_document_says(demo: Demo) -> None:
    document = schemathesis.openapi.from_url(f"{demo.url}/api/v1/openapi.json")
    # The stream of events has no end of its own, and wrong tokens would lock this address out of the other tests.
    schema = document.exclude(path_regex="/events$|/actions/|/log(in|out)$")
    asked = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @settings(
            max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            nonlocal asked
            asked += 1
            answer = case.call(timeout=10)
            case.validate_response(answer, checks=[not_a_server_error, response_schema_conformance])

        ask()
    assert asked >= 60


def test_actions_change_the_watch(demo: Demo) -> None:
    symbol = demo.get("/api/v1/symbols?limit=5")["rows"][4]["symbol"]
    demo.act(f"symbols/{symbol}/pin")
    demo.act(f"symbols/{symbol}/mute")
    detail = demo.get(f"/api/v1/symbols/{symbol}")
    assert (detail["is_pinned"], detail["is_muted"]) == (True, True)
    demo.act(f"symbols/{symbol}/unpin")
    demo.act(f"symbols/{symbol}/unmute")
    demo.act("rules/default/pause")
    assert {rule["name"]: rule["is_paused"] for rule in demo.get("/api/v1/rules")}["default"]
    demo.act("rules/default/resume")
    source = demo.get("/api/v1/connections")[0]["source"]
    demo.act(f"connections/{source}/restart")
    deadline_s = time.monotonic() + 15
    while demo.get("/api/v1/connections")[0]["reconnects"] == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)


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
