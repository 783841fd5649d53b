"""Pages of a running demonstration, seen through a real browser and compared with what the exchange says."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page, expect
from running_demo import TOKEN, Demo, running_demo

from perpwatch.app.usual import USUAL_CANDLES
from perpwatch.exchanges.mexc.normalize import asset_class

pytest_plugins = ("browsers",)

VIEWS = ("/", "/signals", "/symbol/{symbol}", "/health", "/rules")
STREAMS = '["ticker", "kline_Min1", "kline_Min5", "kline_Min15", "kline_Min60", "deals"]'


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    folder = tmp_path_factory.mktemp("demo")
    with running_demo(
        folder,
        PERPWATCH_WEBSOCKET__SUBSCRIPTION_TYPES=STREAMS,
        PERPWATCH_ALERTS__CHANNELS__TERMINAL__TYPE="console",
    ) as one:
        yield one


def figure(page: Page, key: str) -> str:
    return page.locator(f"[data-figure={key}]").inner_text()


def option(page: Page, name: str) -> Any:
    """What a chart draws."""
    return page.evaluate(f"getElement(+document.querySelector('[data-chart={name}]').id.slice(1)).chart.getOption()")


def sign_in(page: Page) -> None:
    page.get_by_text("Sign in", exact=True).click()
    page.fill("#token", TOKEN)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(re.compile(r"^(?!.*/login)"))


# --- Market ----------------------------------------------------------------------------------------------------------


def test_the_market_page_is_live_and_sorts(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    rows = demo.get("/api/v1/symbols?limit=2000")["rows"]
    page.wait_for_function(f"perpwatch.rows.size === {len(rows)} && document.body.dataset.rows === '{len(rows)}'")
    first = page.locator(".ag-center-cols-container .ag-row[row-index='0']")
    price = first.locator("[col-id=price]")
    symbol = rows[0]["symbol"]
    before = price.inner_text()
    expect(price).not_to_have_text(before)  # it moves
    last = float(price.inner_text())
    candles = demo.get(f"/api/v1/symbols/{symbol}/candles?limit=3")["candles"]
    assert min(one["low"] for one in candles) <= last <= max(one["high"] for one in candles)
    for direction in (1, -1):
        page.locator(".ag-header-cell[col-id=price] .ag-header-cell-label").click()
        page.wait_for_timeout(300)
        prices = [
            float(page.locator(f".ag-center-cols-container .ag-row[row-index='{row}'] [col-id=price]").inner_text())
            for row in (0, 4, 8)
        ]
        assert prices == sorted(prices)[::direction]


def test_each_row_of_the_market_is_what_the_exchange_says(demo: Demo, page: Page) -> None:
    page.set_viewport_size({"width": 1700, "height": 1000})
    page.goto(demo.url)
    page.locator(".ag-center-cols-container .ag-row").first.wait_for()
    listed = {one["symbol"]: one for one in demo.truth("detail")}
    tickers = {one["symbol"]: one for one in demo.truth("ticker")}
    texts = page.evaluate(
        """() => [...document.querySelectorAll(".ag-pinned-left-cols-container .ag-row")].map((left) => {
             const right = document.querySelector(`.ag-center-cols-container .ag-row[row-index="${left.getAttribute("row-index")}"]`);
             const cells = [...right.querySelectorAll(".ag-cell")].map((cell) => [cell.getAttribute("col-id"), cell.innerText]);
             return { symbol: left.innerText.trim(), ...Object.fromEntries(cells) };
           })"""  # noqa: E501 - a script
    )
    assert len(texts) >= 10
    classes = set()
    for row in texts:
        ticker, contract = tickers[row["symbol"]], listed[row["symbol"]]
        assert float(row["price"]) == pytest.approx(ticker["lastPrice"], rel=0.05)
        assert amount(row["turnover_24h"]) == pytest.approx(ticker["amount24"], rel=0.1)
        zones = [one.removeprefix("mc-trade-zone-").lower() for one in contract["conceptPlate"]]
        assert row["asset_class"] == asset_class(zones, contract["baseCoin"]).value
        assert row["funding_rate"] == f"{100 * ticker['fundingRate']:.4f} %"
        assert (row["is_live"], row["age_s"]) == ("stream", "0 s")
        classes.add(row["asset_class"])
    assert {"coin", "metal"} <= classes
    expect(page.locator("#pw-feed")).to_contain_text(
        re.compile(r"dual feed: \d+ streamed, 0 read by REST · data \d s old")
    )


def amount(text: str) -> float:
    return float(text.rstrip("kMB")) * {"k": 1e3, "M": 1e6, "B": 1e9}.get(text[-1], 1.0)


def test_the_market_is_filtered_by_name_and_by_class(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    shown = page.locator(".ag-pinned-left-cols-container .ag-row")
    metals = demo.get("/api/v1/symbols?asset_class=metal")
    assert metals["total"] == 2
    page.locator("[data-class=metal]").click()
    expect(shown).to_have_count(2)
    assert {one.strip() for one in shown.all_inner_texts()} == {one["symbol"] for one in metals["rows"]}
    page.fill("#pw-filter", "gold")
    expect(shown).to_have_text("GOLD_USDT")
    page.fill("#pw-filter", "no such contract")
    expect(page.locator("#pw-none")).to_have_text("No contract matches the filters.")
    page.fill("#pw-filter", "")
    page.locator("[data-class='']").click()
    expect(page.locator("#pw-none")).to_be_hidden()
    page.locator("[data-colour=anomaly]").click()
    expect(page.locator("#pw-scale-high")).to_have_text("10 ×")


def test_the_keyboard_finds_a_contract_from_every_page(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/health")
    page.locator("#pw-state:has-text('UTC')").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("no such")
    expect(page.locator("#pw-found")).to_have_text("no contract of that name")
    page.keyboard.press("Escape")
    expect(page.locator("#pw-search")).to_have_value("")
    page.keyboard.press("/")
    page.keyboard.type("sol")
    found = [row["symbol"] for row in demo.get("/api/v1/symbols?search=sol&limit=8")["rows"]]
    expect(page.locator("#pw-found a")).to_have_count(len(found))
    assert [one.split()[0] for one in page.locator("#pw-found a").all_inner_texts()] == found
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/symbol/{found[0]}")
    page.locator("#pw-state:has-text('UTC')").wait_for()
    page.keyboard.press("/")
    page.keyboard.type("o")
    expect(page.locator("#pw-found a")).to_have_count(8)
    for key in ("ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    second = page.locator("#pw-found a").nth(1)
    expect(second).to_have_attribute("aria-selected", "true")
    name = second.inner_text().split()[0]
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/symbol/{name}")


# --- Symbol ----------------------------------------------------------------------------------------------------------


def test_the_symbol_page_draws_the_candles_of_the_exchange_in_their_usual_band(demo: Demo, page: Page) -> None:
    symbol = "SOL_USDT"
    page.goto(f"{demo.url}/symbol/{symbol}")
    for timeframe, minutes in (("Min1", 1), ("Min5", 5)):
        page.get_by_role("button", name=timeframe, exact=True).click()
        expect(page.locator(".pw-button.on")).to_have_text(timeframe)
        # Until the candles from before are there, which are asked of the exchange.
        page.wait_for_function(
            "getElement(+document.querySelector('[data-chart=candles]').id.slice(1)).chart.getOption()"
            ".series[2].data.filter((one) => one !== null).length === 120"
        )
        drawn = option(page, "candles")
        now_s = demo.get("/api/v1/status")["time_ms"] // 1_000
        length_s = 60 * minutes
        start_s = now_s - (USUAL_CANDLES + 130) * length_s
        theirs = demo.truth(f"kline/{symbol}?interval={timeframe}&start={start_s}&end={now_s}")
        names = [time.strftime("%H:%M", time.gmtime(opened_s)) for opened_s in theirs["time"]]
        price, turnover, low, middle, high, _, trust = (series["data"] for series in drawn["series"])
        assert drawn["xAxis"][0]["data"][0] in names
        compared = 0
        for place, name in list(enumerate(drawn["xAxis"][0]["data"]))[:-3]:  # the newest are not final
            row = len(names) - 1 - names[::-1].index(name)
            values = [theirs[key][row] for key in ("open", "close", "low", "high")]
            assert price[place] == values, name
            assert turnover[place]["value"] == pytest.approx(theirs["amount"][row], rel=1e-6)
            usual = np.percentile(theirs["amount"][row - USUAL_CANDLES : row], (10, 50, 90))
            assert (low[place], middle[place], high[place]) == pytest.approx(tuple(usual), rel=1e-6), name
            compared += 1
        assert compared == 117
        assert {one["trust"] for one in trust[:-3]} <= {"verified", "streamed", "repaired", "quiet"}
    assert figure(page, "age") == "0.0 s" or float(figure(page, "age").split()[0]) < 5.0
    expect(page.locator("[data-class]")).to_have_text("coin")
    link = page.get_by_text("at the exchange")
    assert link.get_attribute("href") == demo.get(f"/api/v1/symbols/{symbol}")["exchange_url"]
    assert symbol in (link.get_attribute("href") or "")


@pytest.mark.timeout(300)
@pytest.mark.skipif("PERPWATCH_PROOF" not in os.environ, reason="takes minutes; set PERPWATCH_PROOF=1")
def test_the_trades_flow_is_that_of_the_exchange(demo: Demo, page: Page) -> None:
    # Few enough trades that one answer of the exchange holds all of a minute.
    symbol = demo.get("/api/v1/symbols?limit=60")["rows"][48]["symbol"]
    page.goto(f"{demo.url}/symbol/{symbol}")
    page.locator("[data-chart=flow] canvas").wait_for(timeout=130_000)
    page.wait_for_timeout(62_000)
    drawn = option(page, "flow")
    deals = demo.truth(f"deals/{symbol}?limit=100")
    sides = {"taker buys": 1, "taker sells": 2}
    minutes = sorted({one["t"] // 60_000 for one in deals})[1:-1]
    assert minutes
    for minute in minutes:
        place = drawn["xAxis"][0]["data"].index(time.strftime("%H:%M", time.gmtime(60 * minute)))
        for series in drawn["series"]:
            theirs = sum(one["t"] // 60_000 == minute and one["T"] == sides[series["name"]] for one in deals)
            assert series["data"][place] == pytest.approx(theirs, abs=1), series["name"]


# --- Watch health, rules, signals ------------------------------------------------------------------------------------


def test_the_health_page_shows_the_connections_and_restarts_one(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/health")
    sign_in(page)
    records = demo.get("/api/v1/connections")
    lines = page.locator("[data-connections] .ag-center-cols-container .ag-row")
    expect(lines).to_have_count(len(records))
    for number, record in enumerate(records):
        line = page.locator(f"[data-connections] .ag-center-cols-container .ag-row[row-index='{number}']")
        expect(line.locator("[col-id=streams]")).to_have_text(f"{record['wanted']}/{record['wanted']}")
        expect(line.locator("[col-id=state]")).to_have_text("open")
    total = demo.get("/api/v1/coverage")
    expect(page.locator("[data-figure=coverage]")).to_have_text(f"{total['watched']} / {total['watched']}")
    expect(page.locator("[data-figure=mode]")).to_have_text("dual")
    for one in total["classes"]:
        expect(page.locator("[data-coverage]")).to_contain_text(
            f"{one['asset_class']}: {one['watched']} of {one['watched']} with good candles"
        )
    page.locator("[data-chart=heat] canvas").first.wait_for()
    heat = option(page, "heat")
    assert {one["symbol"] for one in demo.get("/api/v1/symbols?limit=5")["rows"]} <= set(heat["yAxis"][0]["data"])
    page.get_by_role("button", name="restart it").click()
    expect(page.get_by_text(f"{records[0]['source']} dials anew")).to_be_visible()
    first = page.locator("[data-connections] .ag-center-cols-container .ag-row[row-index='0'] [col-id=reconnects]")
    expect(first).to_have_text(str(records[0]["reconnects"] + 1))
    page.context.clear_cookies()
    names = option(page, "heat")["yAxis"][0]["data"]
    picture = page.locator("[data-chart=heat]")
    picture.scroll_into_view_if_needed()
    size = picture.bounding_box()
    assert size is not None
    picture.click(position={"x": size["width"] / 2, "y": 12})  # the uppermost row is the last name
    page.wait_for_url(f"**/symbol/{names[-1]}")


def test_the_health_page_says_how_alerts_arrive_on_each_channel(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/health")
    channels = page.locator("[data-channels]")
    expect(channels).to_have_text(
        re.compile(r"terminal: \d+ sent.* s from the signal to the acknowledgement"), timeout=40_000
    )


def test_signing_in_on_the_page_lets_one_act(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/rules")
    page.locator("[data-rule=build_up]").wait_for()
    pause = page.locator(".pw-panel", has=page.locator("[data-rule=build_up]")).get_by_role("button", name="pause")
    pause.click()
    expect(page.get_by_text("Sign in to act.")).to_be_visible()
    sign_in(page)
    pause.click()
    expect(page.locator("[data-rule=build_up]")).to_have_text("paused")
    (cookie,) = page.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"]) == (True, "Strict")
    assert TOKEN not in page.content()
    tried = page.locator(".pw-panel", has=page.locator("[data-rule=default]"))
    tried.get_by_role("button", name="try on the last 24 h").click()
    expect(tried.locator("[data-said]")).to_contain_text("nothing is kept here")
    page.context.clear_cookies()


def test_the_signals_page_shows_what_was_told_and_what_was_not(demo: Demo, page: Page) -> None:
    planted = {one["symbol"]: one for one in demo.pumps()}
    deadline_s = time.monotonic() + 45
    while not (alerts := [one for one in demo.get("/api/v1/alerts") if one["rule"] == "default"]):
        assert time.monotonic() < deadline_s
        time.sleep(0.5)
    told = alerts[0]
    page.goto(f"{demo.url}/signals")
    when = time.strftime("%H:%M:%S", time.gmtime(told["time_ms"] // 1_000))
    card = page.locator(".pw-card", has=page.get_by_text(when, exact=True)).filter(has_text=told["symbol"]).first
    reasons = told["alert"]["signal"]["reasons"]
    for text in (reasons[0]["text"], reasons[1]["text"], told["alert"]["signal"]["level"], "default"):
        expect(card).to_contain_text(text)
    # What was found first is what the exchange planted first.
    assert told["symbol"] in planted
    expect(card).to_contain_text("▲" if planted[told["symbol"]]["size"] > 0 else "▼")
    page.goto(demo.url)
    expect(page.locator(".pw-chip").filter(has_text=told["symbol"])).to_have_count(1)
    page.go_back()
    kept_silent = [one for one in demo.get("/api/v1/signals") if one["rule"] == "default"]
    page.get_by_role("checkbox", name="alerts only").click()
    expect(page.locator(".pw-card").nth(min(len(kept_silent), 5) - 1)).to_be_visible()
    page.locator("main input[aria-label=contract]").fill("no such contract")
    expect(page.get_by_text("Nothing of that kind yet. Loosen the filters above.")).to_be_visible()
    page.locator("main input[aria-label=contract]").fill(told["symbol"][:5].lower())
    card.click()
    page.wait_for_url(f"**/symbol/{told['symbol']}")
    # Its candle carries a mark, which points up below it or down above it.
    page.wait_for_function(
        "getElement(+document.querySelector('[data-chart=candles]').id.slice(1)).chart.getOption()"
        ".series[0].markPoint.data.length > 0"
    )


# --- Every view ------------------------------------------------------------------------------------------------------


def test_the_views_open_without_errors_also_on_a_phone_and_in_the_light(
    demo: Demo, page: Page, screenshots: Path
) -> None:
    pictures = os.environ.get("PICTURES_FOLDER")
    if pictures:
        Path(pictures).mkdir(parents=True, exist_ok=True)
        page.wait_for_timeout(45_000)  # for a market in which something has happened
    symbol = demo.get("/api/v1/symbols?limit=1")["rows"][0]["symbol"]
    signs = (
        ".ag-row",
        ".pw-card:visible, .pw-empty:visible",
        "[data-chart=candles] canvas",
        "[data-connections] .ag-row",
    )
    for path, sign in zip(VIEWS, (*signs, "[data-rule=default]"), strict=True):
        page.goto(demo.url + path.format(symbol=symbol))
        page.locator(sign).first.wait_for()
        name = path.split("/")[1] or "market"
        if pictures:
            page.set_viewport_size({"width": 1440, "height": 440 if name in ("signals", "rules") else 960})
            page.wait_for_timeout(4_000)
            page.screenshot(path=f"{pictures}/{name}.png", full_page=name == "health")
        page.screenshot(path=screenshots / f"{name}.png")
    page.set_viewport_size({"width": 390, "height": 800})
    page.emulate_media(color_scheme="light")
    for path in VIEWS:
        page.goto(demo.url + path.format(symbol=symbol))
        page.locator("#pw-state:has-text('UTC')").wait_for()
        page.wait_for_function("document.body.classList.contains('body--light')")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
        page.screenshot(path=screenshots / f"{path.split('/')[1] or 'market'}-phone-light.png")


def test_dark_or_light_is_remembered(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))  # as the system wants it
    page.get_by_role("button", name="dark or light").click()
    expect(page.locator("body")).to_have_class(re.compile("body--light"))
    page.goto(f"{demo.url}/rules")
    expect(page.locator("body")).to_have_class(re.compile("body--light"))
    page.get_by_role("button", name="dark or light").click()
    expect(page.locator("body")).to_have_class(re.compile("body--dark"))


def test_a_contract_that_is_not_watched_is_said_in_words(demo: Demo, page: Page) -> None:
    page.goto(f"{demo.url}/symbol/%3Cimg%20src=x%20onerror=alert(1)%3E")
    expect(page.get_by_text("<img src=x onerror=alert(1)> is not watched.")).to_be_visible()
    expect(page.get_by_text("This page opens by itself once it is watched")).to_be_visible()


def test_stale_data_is_said_and_forgotten_when_the_bot_is_back(demo: Demo, page: Page) -> None:
    page.goto(demo.url)
    page.locator(".ag-row").first.wait_for()
    demo.process.send_signal(signal.SIGSTOP)
    try:
        expect(page.locator("#pw-stale")).to_contain_text("Data is stale", timeout=10_000)
    finally:
        demo.process.send_signal(signal.SIGCONT)
    expect(page.locator("#pw-stale")).to_be_hidden(timeout=15_000)
