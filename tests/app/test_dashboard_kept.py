"""Pages of a watch that keeps what it finds: what is known from before, a restart, names that are no names."""

from __future__ import annotations

import time
import urllib.error
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import msgspec
import pytest
from playwright.sync_api import Browser, Page, expect
from running_demo import TOKEN
from running_watch import Watch, exchange_and_watch, keep, quiet_past

from perpwatch.alert.outcomes import HIT_HORIZON, Excursion, Outcome
from perpwatch.alert.policy import Alert
from perpwatch.app.dashboard.charts import ACCENT, DIM, UP
from perpwatch.model import MINUTE_MS, Direction, Level, Reason, Signal, Timeframe, Trust
from perpwatch.store import HOUR_MS, Alerted, AlertOutcome, Record

pytest_plugins = ("browsers",)

DAY_MS = 24 * HOUR_MS
#: Contracts of the exchange, and what two of them are called now.
PAIRS = 30
MARKED, SCRIPT, IMAGE = "LTC_USDT", "<script>alert(1)</script>_USDT", "<img src=x onerror=alert(2)>_USDT"
RENAMED = {"LINK_USDT": SCRIPT, "AVAX_USDT": IMAGE}
#: A rule that only the past can have heard: the exchange moves none of these so far.
RULES = f"""
[rules.jump]
detector = "threshold"
turnover_ratio = 30
move = 5
symbols = ["ZZ?_USDT", "{MARKED}"]
timeframes = ["Min1"]
direction = "up"
"""
#: Rises of the last day in minutes before now, all beyond 5 %.
BURSTS = {1_000: 0.10, 700: 0.07, 400: 0.30, 100: 0.06}
HOSTILE = "<b onmouseover=alert(3)>volume</b> and <img src=x onerror=alert(4)>"


@dataclass(frozen=True, slots=True)
class Kept:
    watch: Watch
    signals_today: int
    alerts_today: int


def signal_at(time_ms: int, symbol: str, price: float = 100.0, rule: str = "jump") -> Signal:
    return Signal(
        detector="threshold",
        symbol=symbol,
        timeframe=Timeframe.Min1,
        open_time_ms=time_ms - time_ms % MINUTE_MS,
        direction=Direction.UP,
        level=Level.STRONG,
        price=price,
        strength=1.0,
        is_running=False,
        trust=Trust.STREAMED,
        reasons=(Reason("move", 6.0, "%", "+6.00 % in 1 min"), Reason("volume", 31.0, "", HOSTILE)),
        event_time_ms=time_ms,
        received_time_ns=time_ms * 1_000_000,
        rule=rule,
    )


def alert_of(signal: Signal) -> Alert:
    key = f"{signal.rule}:{signal.symbol}:{signal.event_time_ms}"
    return Alert(key, signal, signal.event_time_ms, signal.event_time_ms, 0, 31.0, 1e-4, rule=signal.rule)


def alerted(alert: Alert) -> Alerted:
    return Alerted(alert.key, alert.time_ms, alert.symbol, msgspec.json.encode(alert))


def outcome_of(alert: Alert, best: float) -> AlertOutcome:
    after = (Excursion(HIT_HORIZON, best / 2.0, best, -0.001),)
    outcome = Outcome(
        alert.key, alert.rule, alert.symbol, alert.time_ms, Direction.UP, alert.signal.price, 0.001, after, ()
    )
    return AlertOutcome(alert.key, alert.time_ms, alert.symbol, msgspec.json.encode(outcome))


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    folder = tmp_path_factory.mktemp("kept")
    now_ms = int(time.time() * 1_000)
    today_ms = now_ms - now_ms % DAY_MS
    begin_ms = now_ms - now_ms % HOUR_MS - 2 * DAY_MS + HOUR_MS
    minutes = (now_ms - begin_ms) // MINUTE_MS
    records: list[Record] = []
    for number, symbol in enumerate(("ZZA_USDT", "ZZB_USDT", "ZZC_USDT")):
        bursts = {minutes - before: size for before, size in BURSTS.items()} if symbol == "ZZB_USDT" else {}
        records += quiet_past(symbol, begin_ms, minutes - minutes % 60, number, bursts)
    # Five signals of today, of which three were told; one of yesterday, which was told.
    step_ms = (now_ms - today_ms) // 6
    today = [signal_at(today_ms + number * step_ms, "ZZA_USDT") for number in range(5)]
    yesterday = signal_at(today_ms - HOUR_MS, "ZZA_USDT")
    told = [alert_of(signal) for signal in (*today[:3], yesterday)]
    # Of the contract on the page: an alert that went on, one that did not, one of which nobody knows, and a silent one.
    marked = [signal_at(now_ms - before * MINUTE_MS, MARKED) for before in (110, 100, 90, 80)]
    known = [alert_of(signal) for signal in marked[:3]]
    strange = [alert_of(signal_at(now_ms - 70 * MINUTE_MS, symbol, rule="<i>rule</i>")) for symbol in (SCRIPT, IMAGE)]
    records += [*today, yesterday, *marked, *(one.signal for one in strange)]
    records += [alerted(one) for one in (*told, *known, *strange)]
    # A usual hour moves by 0.1 % times the root of 60, which is 0.77 %.
    records += [outcome_of(known[0], 0.02), outcome_of(known[1], 0.001), outcome_of(told[3], 0.03)]
    keep(folder, records)
    of_today = [one for one in (*today, *marked) if one.event_time_ms >= today_ms]
    alerts_today = sum(one.time_ms >= today_ms for one in (*told, *known))
    with exchange_and_watch(folder, PAIRS, RENAMED, RULES) as watch:
        watch.start()
        yield Kept(watch, len(of_today), alerts_today)
        watch.stop()


def chart(page: Page) -> str:
    return "getElement(+document.querySelector('[data-chart=candles]').id.slice(1)).chart.getOption()"


def expect_the_days_figures(kept: Kept, page: Page) -> None:
    jump = page.locator(".pw-panel", has=page.locator("[data-rule=jump]"))
    for key, value in (
        ("signals", str(kept.signals_today)),
        ("alerts", str(kept.alerts_today)),
        ("suppressed", str(kept.signals_today - kept.alerts_today)),
        ("hits", "67% of 3"),
    ):
        expect(jump.locator(f"[data-figure={key}]")).to_have_text(value)


def test_a_restart_is_said_and_the_page_is_live_again_by_itself(kept: Kept, page: Page, browser: Browser) -> None:
    watch = kept.watch
    page.goto(f"{watch.url}/rules")
    expect_the_days_figures(kept, page)
    contract = browser.new_page()  # somebody else looks at one contract meanwhile
    contract.goto(f"{watch.url}/symbol/{MARKED}")
    expect(contract.locator("[data-figure=price]")).not_to_have_text("–")
    page.goto(watch.url)
    price = page.locator(".ag-center-cols-container .ag-row[row-index='0'] [col-id=price]")
    price.wait_for()
    run = watch.get("/api/v1/status")["run"]
    watch.stop()
    expect(page.locator("#pw-stale")).to_contain_text("Data is stale: no word from perpwatch", timeout=6_000)
    expect(page.locator("#pw-state")).to_contain_text("stale")
    watch.start()
    assert watch.get("/api/v1/status")["run"] != run
    page.wait_for_function("document.body.dataset.stale === 'no' && perpwatch.rows.size > 20", timeout=20_000)
    price.wait_for()
    expect(price).not_to_have_text(price.inner_text())  # it moves
    expect(page.locator("#pw-stale")).to_be_hidden()
    expect(contract.locator("[data-figure=price]")).not_to_have_text("–", timeout=20_000)
    expect(contract.locator("#pw-stale")).to_be_hidden()
    contract.close()
    # The counts of the day and the hit rate are those from before.
    page.goto(f"{watch.url}/rules")
    expect_the_days_figures(kept, page)


def test_a_changed_rule_is_tried_on_the_kept_day_one_at_a_time(kept: Kept, page: Page) -> None:
    page.goto(f"{kept.watch.url}/rules")
    jump = page.locator(".pw-panel", has=page.locator("[data-rule=jump]"))
    said = jump.locator("[data-said]")
    jump.get_by_label("change").click()
    page.get_by_role("option", name="move", exact=True).click()
    expect(jump.get_by_label("to", exact=True)).to_have_value("5")
    attempt = jump.get_by_role("button", name="try on the last 24 h")
    jump.get_by_label("to", exact=True).fill("8")
    attempt.click()
    expect(said).to_contain_text("Trying")
    body = {"condition": 0, "name": "move", "value": 50}
    with pytest.raises(urllib.error.HTTPError) as refused:
        kept.watch.post("/api/v1/rules/jump/trial", body)
    assert (refused.value.code, refused.value.headers["Retry-After"]) == (429, "10")
    told = sum(size >= 0.08 for size in BURSTS.values())
    expect(said).to_contain_text(f"It would have told {told} times", timeout=30_000)
    with ThreadPoolExecutor(1) as elsewhere:
        trial = elsewhere.submit(kept.watch.post, "/api/v1/rules/jump/trial", body)
        page.wait_for_timeout(300)
        attempt.click()
        expect(said).to_have_text("Another rule is being tried; this takes a while, try again when it is done.")
        assert trial.result(30)["told"] == 0
    # Nothing was saved meanwhile, and nothing is without signing in.
    (rule,) = [one for one in kept.watch.get("/api/v1/rules") if one["name"] == "jump"]
    assert {one["name"]: one["value"] for one in rule["settings"]}["move"] == 5
    jump.get_by_role("button", name="put in force").click()
    expect(page.get_by_text("Sign in to act.")).to_be_visible()


def test_marks_tell_what_came_of_what_was_found(kept: Kept, page: Page) -> None:
    page.goto(f"{kept.watch.url}/symbol/{MARKED}")
    page.wait_for_function(f"{chart(page)}.series[0].markPoint.data.length === 4")
    drawn = page.evaluate(chart(page))
    marks = sorted(drawn["series"][0]["markPoint"]["data"], key=lambda one: one["coord"][0])
    assert [(one["itemStyle"]["color"], one["itemStyle"]["borderColor"]) for one in marks] == [
        (UP, UP),
        (DIM, DIM),
        (ACCENT, ACCENT),
        ("transparent", ACCENT),
    ]
    assert [later["coord"][0] - marks[0]["coord"][0] for later in marks] == [0, 10, 20, 30]
    for mark in marks:  # below its candle
        assert mark["coord"][1] == drawn["series"][0]["data"][mark["coord"][0]][2]
    cards = page.locator(".pw-card")
    expect(cards).to_have_count(4)
    expect(cards.nth(3)).to_contain_text("went on: +1.00% its way after 1 h, +2.00% at best")
    expect(cards.nth(2)).to_contain_text("did not go on: +0.05% its way after 1 h")
    expect(cards.nth(0)).to_contain_text("signal")


def test_names_that_are_scripts_are_shown_as_text_everywhere(kept: Kept, page: Page) -> None:
    # What ran would open a dialog, which the page's fixture takes for a failure.
    url = kept.watch.url
    deadline_s = time.monotonic() + 20
    while not {SCRIPT, IMAGE} <= {row["symbol"] for row in kept.watch.get("/api/v1/symbols?limit=100")["rows"]}:
        assert time.monotonic() < deadline_s
        time.sleep(0.2)
    page.goto(url)
    page.locator(".ag-row").first.wait_for()
    for symbol in (SCRIPT, IMAGE):
        page.fill("#pw-filter", symbol[:6])
        expect(page.locator(".ag-pinned-left-cols-container .ag-row")).to_have_text(symbol)
        # The map is a canvas; what it says of a contract is HTML.
        page.wait_for_function("document.querySelector('canvas') !== null")
        page.evaluate(
            """(name) => {
                 const tree = getElement(+document.querySelector("[aria-label='map of the market']").id.slice(1)).chart;
                 tree.dispatchAction({ type: "showTip", seriesIndex: 0, name });
               }""",
            symbol,
        )
        expect(page.locator("b", has_text=symbol)).to_be_visible()
    page.keyboard.press("Escape")
    page.locator(".pw-brand").focus()
    page.keyboard.press("/")
    page.keyboard.type("<")
    expect(page.locator("#pw-found a")).to_have_count(2)
    expect(page.locator("#pw-found")).to_contain_text(SCRIPT)
    expect(page.locator("#pw-found")).to_contain_text(IMAGE)
    page.goto(f"{url}/signals")
    for symbol in (SCRIPT, IMAGE):
        card = page.locator(".pw-card").filter(has_text=symbol)
        expect(card).to_contain_text("<i>rule</i>")
        expect(card).to_contain_text(HOSTILE)
        card.hover()
        card.click()
        expect(page.locator("h1")).to_have_text(symbol)
        expect(page).to_have_title(f"{symbol} · perpwatch")
        expect(page.locator("[data-figure=price]")).not_to_have_text("–")
        page.locator("[data-chart=candles] canvas").first.wait_for()
        page.go_back()
    page.goto(f"{url}/health")
    page.locator("[data-chart=heat] canvas").first.wait_for()
    page.evaluate(
        """() => {
             const heat = getElement(+document.querySelector("[data-chart=heat]").id.slice(1)).chart;
             const names = heat.getOption().yAxis[0].data, cells = heat.getOption().series[0].data;
             for (const [place, name] of names.entries())
               if (name.startsWith("<"))
                 heat.dispatchAction({ type: "showTip", seriesIndex: 0, dataIndex: cells.findIndex((one) => one[1] === place) });
           }"""  # noqa: E501 - a script
    )
    page.wait_for_timeout(300)
    assert page.locator("main img, main script").count() == 0
    assert TOKEN not in page.content()
