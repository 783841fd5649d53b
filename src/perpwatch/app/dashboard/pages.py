"""The five views. What changes every second on many rows goes to the browser by the API's own stream, made once for
everybody; the rest is kept up to date from here, for each open page.

The pages belong to the process, as NiceGUI wants it; which watch they show is set by :func:`show`.
"""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from nicegui import context, ui

from perpwatch.app.api_hub import Hub, changed_rule
from perpwatch.app.api_records import AlertRecord, Candles, RuleRecord, SymbolDetail
from perpwatch.app.api_security import Access, address_of
from perpwatch.app.api_trial import to_toml, try_rule
from perpwatch.app.dashboard import charts
from perpwatch.app.planning import PlannedWish
from perpwatch.errors import ConfigurationError
from perpwatch.model import ANALYSED_TIMEFRAMES, Direction, Signal, Timeframe

STATIC = Path(__file__).parent / "static"
VIEWS = (("/", "Market"), ("/signals", "Signals"), ("/health", "Watch health"), ("/rules", "Rules"))
#: Cards that are shown at first, and at most.
FIRST_CARDS, MOST_CARDS = 40, 120
#: Contracts in the trust heat map.
HEAT_SYMBOLS, HEAT_MINUTES = 60, 60
#: Seconds between two looks of a page.
LOOK_S, SLOW_LOOK_S = 1.0, 5.0
SYMBOL_CANDLES = 120


@dataclass(slots=True)
class _Shown:
    """What the pages show at present."""

    hub: Hub | None = None
    access: Access | None = None


_shown = _Shown()


@contextlib.contextmanager
def show(hub: Hub, access: Access) -> Iterator[None]:
    """Let the pages show this watch; one at a time in a process."""
    _shown.hub, _shown.access = hub, access
    try:
        yield
    finally:
        _shown.hub = _shown.access = None


def _hub() -> Hub:
    assert _shown.hub is not None, "no watch is shown"
    return _shown.hub


def _may_act() -> str:
    """Why whoever looks at this page may not act; empty when he may."""
    access = _shown.access
    assert access is not None
    if not access.has_token:
        return "Actions are off: set dashboard.token and restart."
    if not access.is_signed_in(context.client.request.cookies):
        return "Sign in to act."
    refusal = access.action_refusal(address_of(context.client.request))
    return refusal.detail if refusal is not None else ""


def _act(action: Any, *arguments: Any, said: str) -> bool:
    """Do something to the watch for whoever looks, and say what happened."""
    refusal = _may_act()
    if refusal:
        ui.notify(refusal, type="warning")
        return False
    try:
        action(*arguments, _who())
    except ConfigurationError as error:
        ui.notify(str(error), type="negative")
        return False
    ui.notify(said)
    return True


def _who() -> str:
    """Whoever looks at this page, as the log names him."""
    assert _shown.access is not None
    return _shown.access.who(context.client.request)


# --- The frame -----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _frame(path: str, *, needs_pulse: bool = True) -> Iterator[None]:
    """Head, stale banner and the page's body."""
    ui.add_head_html('<link rel="stylesheet" href="/static/perpwatch.css">')
    ui.add_body_html('<script src="/static/perpwatch.js"></script>')
    if needs_pulse:
        ui.add_body_html("<script>perpwatch.pulseOnly()</script>")
    dark = ui.dark_mode(value=None)
    with ui.element("header").classes("pw-head"):
        ui.link("perpwatch", "/").classes("pw-brand")
        with ui.element("nav").classes("pw-nav"):
            for target, name in VIEWS:
                link = ui.link(name, target)
                if target == path:
                    link.props('aria-current="page"')
        ui.element("div").classes("pw-space")
        ui.label("connecting").classes("pw-state").props("id=pw-state role=status")
        with ui.element("div").classes("pw-search"):
            ui.element("input").props(
                'id=pw-search placeholder="Search a contract  ( / )" aria-label="Search a contract"'
            )
            ui.element("div").classes("pw-found").props("id=pw-found role=listbox")
        ui.element("button").classes("pw-button").props('aria-label="dark or light"').on(
            "click", lambda: dark.set_value(not dark.value)
        ).add_slot("default", "◐")
        access = _shown.access
        if access is not None and access.has_token and not access.is_signed_in(context.client.request.cookies):
            ui.link("Sign in", f"/login?next={quote(path)}").classes("pw-button")
    ui.element("div").classes("pw-stale").props("id=pw-stale role=alert hidden")
    ui.element("div").classes("pw-note").props("id=pw-note hidden")
    with ui.element("main").classes("pw-main"):
        yield


def _button(text: str, on_click: Any, *, label: str = "") -> ui.element:
    button = ui.element("button").classes("pw-button").on("click", on_click)
    if label:
        button.props(f'aria-label="{label}"')
    with button:
        ui.label(text).style("display:inline")
    return button


@contextlib.contextmanager
def _panel(title: str = "") -> Iterator[None]:
    with ui.element("section").classes("pw-panel"):
        if title:
            with ui.element("h2"):
                ui.label(title)
        yield


def _figures(names: Sequence[tuple[str, str]]) -> dict[str, ui.label]:
    """Large figures with their names; returns the labels by key."""
    labels = {}
    with ui.element("div").classes("pw-figures"):
        for key, name in names:
            with ui.element("div").classes("pw-figure"):
                with ui.element("b"):
                    labels[key] = ui.label("–").props(f"data-figure={key}")
                with ui.element("span"):
                    ui.label(name)
    return labels


# --- Market --------------------------------------------------------------------------------------------------------


def _column(
    field: str, name: str, form: str, *, signed: bool = False, width: int = 92, tip: str = ""
) -> dict[str, Any]:
    column: dict[str, Any] = {
        "field": field,
        "headerName": name,
        "filter": "agNumberColumnFilter",
        "type": "rightAligned",
        ":valueFormatter": f"p => perpwatch.{form}(p.value)",
        "width": width,
        "headerTooltip": tip or name,
    }
    if signed:
        column[":cellClass"] = "p => perpwatch.sign(p)"
    return column


_MARKET_COLUMNS = [
    {"field": "symbol", "headerName": "Contract", "filter": "agTextColumnFilter", "width": 160, "pinned": "left"},
    _column("price", "Price", "price", width=104),
    _column("move_1", "1 min", "percent", signed=True),
    _column("move_5", "5 min", "percent", signed=True),
    _column("move_15", "15 min", "percent", signed=True),
    _column("move_60", "1 h", "percent", signed=True),
    _column("turnover_24h", "24 h turnover", "money", width=116) | {"sort": "desc"},
    _column("activity", "Now / usual", "times", width=104, tip="turnover of the last minute over the mean of an hour"),
    _column("anomaly", "Anomaly", "times", width=96, tip="how many times its usual: turnover or move, the larger"),
    _column("open_interest_change", "OI 1 h", "percent", signed=True, tip="change of open interest"),
    _column("funding_rate", "Funding", "funding", signed=True, width=100, tip="per settlement"),
    _column("known", "Known", "share", width=84, tip="share of the last hour's minutes that are known"),
    {"field": "trust", "headerName": "Trust", "filter": "agTextColumnFilter", "width": 100},
]


def market() -> None:
    with _frame("/", needs_pulse=False):
        with ui.element("div").classes("pw-row"):
            with ui.element("div").classes("dim"):
                ui.label("Size is turnover of 24 h, colour is")
            for key, name in (("move_60", "1 h move"), ("move_1", "1 min move"), ("anomaly", "anomaly")):
                button = ui.element("button").classes("pw-button" + (" on" if key == "move_60" else ""))
                button.props(f"data-colour={key}")
                with button:
                    ui.label(name).style("display:inline")
        with _panel():
            tree = ui.echart({"series": []}).style("height: min(42vh, 420px)").props('aria-label="map of the market"')
        with ui.element("div").classes("pw-row"):
            ui.element("input").classes("pw-field").props(
                'id=pw-filter placeholder="Filter rows" aria-label="Filter rows"'
            )
            ui.label("A column's head sorts, its menu filters, a row opens the contract.").classes("dim")
        grid = ui.aggrid(
            {
                "columnDefs": _MARKET_COLUMNS,
                "rowData": [],
                ":getRowId": "p => p.data.symbol",
                ":onRowClicked": "e => perpwatch.open(e.data.symbol)",
                "rowHeight": 27,
                "headerHeight": 31,
                "animateRows": False,
                "suppressCellFocus": True,
                "overlayNoRowsTemplate": "No contract yet: perpwatch is reading the market.",
            },
            theme="balham",
            auto_size_columns=False,
        )
        grid.classes("pw-grid").style("height: max(340px, 46vh)")
        ui.add_body_html(f"<script>perpwatch.market({grid.id}, {tree.id})</script>")


# --- Signals -------------------------------------------------------------------------------------------------------


def _clock(time_ms: int) -> str:
    return f"{datetime.datetime.fromtimestamp(time_ms / 1_000, datetime.UTC):%H:%M:%S}"


def _card(signal: Signal, is_alert: bool, text: str = "") -> None:
    kind = {Direction.UP: "up", Direction.DOWN: "down"}.get(signal.direction, "")
    with ui.link(target=f"/symbol/{quote(signal.symbol, safe='')}").classes(f"pw-card {kind}"):
        with ui.element("div").classes("pw-row"):
            ui.label(_clock(signal.event_time_ms)).classes("dim pw-num")
            with ui.element("b"):
                ui.label(signal.symbol)
            ui.label("alert" if is_alert else "signal").classes("pw-tag" + (" alert" if is_alert else ""))
            ui.label(f"{signal.level} · {signal.timeframe} {'running' if signal.is_running else 'closed'}").classes(
                "pw-tag"
            )
            ui.label(signal.rule or signal.detector).classes("pw-tag")
            ui.label(f"{signal.price:.8g}").classes("pw-num")
            ui.label(str(signal.trust)).classes("dim")
        for reason in [text] if text else [one.text for one in signal.reasons if one.text][:5]:
            ui.label(reason)


def _alert_card(record: AlertRecord) -> None:
    if record.alert is not None:
        _card(record.alert.signal, True)
        return
    with ui.element("div").classes("pw-card"):
        with ui.element("div").classes("pw-row"):
            ui.label(_clock(record.time_ms)).classes("dim pw-num")
            with ui.element("b"):
                ui.label("The whole market")
            ui.label("alert").classes("pw-tag alert")
        ui.label(record.text)


def signals() -> None:
    hub = _hub()
    shown: set[object] = set()
    with _frame("/signals"):
        with ui.element("div").classes("pw-row"):
            only = ui.checkbox("alerts only", value=True)
            ui.label("Newest first. A card opens the contract.").classes("dim")
        empty = ui.label("Nothing unusual yet. Cards appear here the moment a rule speaks.").classes("pw-empty")
        cards = ui.element("div").classes("pw-cards").props("data-cards=1")

    def look() -> None:
        alerts: list[tuple[int, object, Any]] = [(one.time_ms, one.key, one) for one in hub.alerts()[-MOST_CARDS:]]
        found = alerts
        if not only.value:
            told = {id(one.signal) for one in hub.bot.alerts if hasattr(one, "signal")}
            found = alerts + [
                (one.event_time_ms, (one.rule, one.symbol, one.timeframe, one.open_time_ms, one.strength), one)
                for one in hub.bot.signals[-MOST_CARDS:]
                if id(one) not in told
            ]
        found.sort(key=lambda one: one[0])
        for _, key, one in found[-FIRST_CARDS:]:
            if key in shown:
                continue
            shown.add(key)
            with cards:
                with ui.element("div") as holder:
                    if isinstance(one, Signal):
                        _card(one, False)
                    else:
                        _alert_card(one)
                holder.move(target_index=0)
        children = cards.default_slot.children
        for old in children[MOST_CARDS:]:
            cards.remove(old)
        empty.set_visibility(not children)

    def again() -> None:
        shown.clear()
        cards.clear()
        look()

    only.on_value_change(again)
    look()
    ui.timer(LOOK_S, look)


# --- Symbol --------------------------------------------------------------------------------------------------------


async def symbol(name: str) -> None:
    hub = _hub()
    with _frame(f"/symbol/{name}"):
        detail = hub.symbol(name)
        if detail is None:
            ui.label(f"{name} is not watched.").classes("pw-title")
            reasons = [one.reason for one in hub.bot.members if one.contract.symbol == name]
            said = f"Why: {reasons[0]}." if reasons and reasons[0] else "The exchange may not list it, or not yet."
            ui.label(f"{said} Press / to search another contract.").classes("dim")
            return
        await _symbol(hub, name, detail)


async def _symbol(hub: Hub, name: str, detail: SymbolDetail) -> None:
    timeframe = Timeframe.Min1
    buttons: dict[Timeframe, ui.element] = {}
    with ui.element("div").classes("pw-row"):
        with ui.element("h1").classes("pw-title"):
            ui.label(name)
        ui.link("at the exchange", detail.exchange_url, new_tab=True).classes("pw-button").props(
            'rel="noopener noreferrer"'
        )
        mute = _button("", lambda: toggle_mute())
        pin = _button("", lambda: toggle_pin())
    with _panel():
        figures = _figures(
            (
                ("price", "price"),
                ("move_1", "1 min"),
                ("move_60", "1 h"),
                ("activity", "turnover now / usual"),
                ("turnover", "24 h turnover"),
                ("interest", "open interest, 1 h"),
                ("funding", "funding"),
                ("trust", "last minute"),
                ("source", "streamed by"),
            )
        )
    with _panel():
        with ui.element("div").classes("pw-row"):
            for one in (*ANALYSED_TIMEFRAMES, Timeframe.Hour4, Timeframe.Day1):
                buttons[one] = _button(one.value, lambda one=one: switch(one))
            ui.label("dashed: mean turnover of the candles shown; the strip below is the trust of each").classes("dim")
        chart = ui.echart(charts.candles_of(Candles(name, timeframe, None, []), [], {})).style("height: 480px")
        empty = ui.label("No candle yet: the history of this contract is being read.").classes("pw-empty")
    with _panel("Trades flow, by minute"):
        flow = ui.echart(charts.flow_of(hub.trades(name))).style("height: 150px")
        no_flow = ui.label(
            "Trades of this contract are not subscribed; add deals to websocket.subscription_types to see who trades."
        ).classes("dim")
    with _panel("What was found"):
        found = ui.element("div").classes("pw-cards")
        nothing = ui.label("Nothing unusual in this contract since the start.").classes("dim")
    told = [0]

    async def look() -> None:
        detail = hub.symbol(name)
        candles = await hub.candles(name, timeframe, SYMBOL_CANDLES)
        if detail is None or candles is None:
            return
        row = detail.row
        figures["price"].set_text("–" if row.price is None else f"{row.price:.8g}")
        figures["move_1"].set_text(charts.percent(row.move_1))
        figures["move_60"].set_text(charts.percent(row.move_60))
        figures["activity"].set_text("–" if row.activity is None else f"{row.activity:.1f} ×")
        figures["turnover"].set_text(charts.money(row.turnover_24h))
        figures["interest"].set_text(charts.percent(row.open_interest_change))
        figures["funding"].set_text("–" if row.funding_rate is None else f"{row.funding_rate:.4%}")
        figures["trust"].set_text(str(row.trust))
        figures["source"].set_text(detail.source or "REST")
        for key in ("move_1", "move_60"):
            value = getattr(row, key)
            figures[key].classes(replace="up" if (value or 0) > 0 else "down" if (value or 0) < 0 else "")
        _name(mute, "unmute" if detail.is_muted else "mute")
        _name(pin, "unpin" if detail.is_pinned else "pin")
        for one, button in buttons.items():
            button.classes(add="on" if one is timeframe else "", remove="" if one is timeframe else "on")
        mine = [one for one in hub.bot.signals if one.symbol == name]
        chart.options.clear()
        chart.options.update(charts.candles_of(candles, mine, hub.outcomes))
        chart.update()
        empty.set_visibility(not candles.candles)
        chart.set_visibility(bool(candles.candles))
        trades = hub.trades(name)
        flow.options.clear()
        flow.options.update(charts.flow_of(trades))
        flow.update()
        flow.set_visibility(trades.is_known)
        no_flow.set_visibility(not trades.is_known)
        nothing.set_visibility(not mine)
        for signal in mine[told[0] :]:
            with found:
                with ui.element("div") as holder:
                    _card(signal, False)
                holder.move(target_index=0)
        told[0] = len(mine)

    async def switch(one: Timeframe) -> None:
        nonlocal timeframe
        timeframe = one
        await look()

    def toggle_mute() -> None:
        is_muted = name in hub.bot.analysis.muted
        action = hub.actions.unmute if is_muted else hub.actions.mute
        if _act(action, name, said=f"{name} is {'heard again' if is_muted else 'muted'}"):
            _name(mute, "mute" if is_muted else "unmute")

    def toggle_pin() -> None:
        is_pinned = name in hub.bot.pinned
        action = hub.actions.unpin if is_pinned else hub.actions.pin
        if _act(action, name, said=f"{name} is {'no longer pinned' if is_pinned else 'pinned'}"):
            _name(pin, "pin" if is_pinned else "unpin")

    await look()
    ui.timer(2 * LOOK_S, look)


def _name(button: ui.element, text: str) -> None:
    (label,) = button.default_slot.children
    assert isinstance(label, ui.label)
    label.set_text(text)


# --- Watch health ----------------------------------------------------------------------------------------------------

_CONNECTION_COLUMNS = [
    {"field": "source", "headerName": "Connection", "width": 110},
    {"field": "state", "headerName": "State", "width": 90},
    {"field": "streams", "headerName": "Streams", "width": 95, "type": "rightAligned"},
    {"field": "rate", "headerName": "Frames/s", "width": 100, "type": "rightAligned"},
    {"field": "age", "headerName": "Last data", "width": 95, "type": "rightAligned"},
    {"field": "reconnects", "headerName": "Reconnects", "width": 105, "type": "rightAligned"},
    {"field": "bad", "headerName": "Bad", "width": 70, "type": "rightAligned"},
    {"field": "error", "headerName": "Last error", "flex": 1, "minWidth": 150},
]


def health() -> None:
    hub = _hub()
    with _frame("/health"):
        with _panel():
            figures = _figures(
                (
                    ("status", "state"),
                    ("coverage", "contracts with good candles"),
                    ("warm", "histories loaded"),
                    ("age", "newest data"),
                    ("delay", "from stamp to analysed"),
                    ("requests", "requests in a minute / allowed"),
                    ("repairs", "contracts to read back"),
                    ("unknown", "minutes unknown"),
                )
            )
        with _panel("Connections"):
            grid = (
                ui.aggrid(
                    {
                        "columnDefs": _CONNECTION_COLUMNS,
                        "rowData": [],
                        ":getRowId": "p => p.data.source",
                        "domLayout": "autoHeight",
                        "rowHeight": 27,
                        "headerHeight": 30,
                        "overlayNoRowsTemplate": "No connection: everything is read by REST, or the start is not over.",
                    },
                    theme="balham",
                    auto_size_columns=False,
                )
                .props("data-connections=1")
                .style("height: auto")
            )
            with ui.element("div").classes("pw-row").style("margin-top: 8px"):
                chosen = ui.select([], label="connection").props("dense").style("min-width: 150px")
                _button("restart it", lambda: restart())
                _button("send a test alert", lambda: _act(hub.actions.test_alert, said="a test alert is on its way"))
        with ui.element("div").classes("pw-columns"):
            with _panel("What is not well"):
                alerts = ui.column().style("gap: 3px")
            with _panel("Latency, exchange to us (frames by delay)"):
                latency = ui.echart(charts.histogram_of([])).style("height: 170px")
            with _panel("REST"):
                rest = ui.column().style("gap: 3px")
            with _panel("The plan, and why"):
                plan = ui.column().style("gap: 3px")
        with _panel(f"Trust of the last {HEAT_MINUTES} minutes, most traded contracts first"):
            heat = ui.echart(charts.heat_of(hub.ledger([], 1))).style("height: 560px")

    def look() -> None:
        status = hub.monitor.report()
        contracts = status.contracts
        figures["status"].set_text(str(status.status))
        figures["coverage"].set_text(f"{contracts.covered} / {contracts.watched}")
        figures["warm"].set_text(f"{contracts.warm} / {contracts.watched}")
        figures["age"].set_text("–" if status.data.age_s is None else f"{status.data.age_s:.1f} s")
        figures["delay"].set_text(f"{1_000 * status.data.delay_s:.0f} ms")
        figures["requests"].set_text(f"{status.rest.requests} / {60 * status.rest.rate:.0f}")
        figures["repairs"].set_text(str(status.repairs.open))
        figures["unknown"].set_text(str(status.repairs.unknown_minutes))
        texts = [*status.reasons, *status.notes] or ["Everything is well."]
        texts += [f"{one.trouble.value.replace('_', ' ')} since {_clock(one.since_ms)} UTC" for one in status.alerts]
        _lines(alerts, texts)
        records = hub.connections()
        rows = [
            {
                "source": one.source,
                "state": one.state,
                "streams": f"{one.confirmed}/{one.wanted}",
                "rate": f"{one.rate:.1f}",
                "age": "–" if one.data_age_s is None else f"{one.data_age_s:.1f} s",
                "reconnects": one.reconnects,
                "bad": one.bad_frames,
                "error": (f"next try in {one.retry_in_s:.0f} s: " if one.retry_in_s else "") + (one.last_error or ""),
            }
            for one in records
        ]
        grid.run_grid_method("setGridOption", "rowData", rows)
        names = [one.source for one in records]
        if chosen.options != names:
            chosen.set_options(names, value=chosen.value if chosen.value in names else next(iter(names), None))

    def look_slowly() -> None:
        record = hub.rest()
        open_breakers = [f"{endpoint}: {state}" for endpoint, state in record.breakers.items() if state != "closed"]
        _lines(
            rest,
            [
                f"{record.requests} requests since the start, {record.failures} failed",
                f"{record.rate_limited} refused as too many",
                f"{record.rate:g} a second allowed, {record.waiting} waiting",
                *(open_breakers or ["all breakers are closed"]),
            ],
        )
        report = hub.plan()
        lines = [f"{one.name}: {_served(one)}; {one.why}" for one in report.wishes]
        _lines(plan, lines or ["The market is not known yet."])
        latency.options.update(charts.histogram_of(hub.monitor.metrics.feed_latency.buckets()))
        latency.update()
        heat.options.clear()
        heat.options.update(charts.heat_of(hub.ledger(hub.bot.watched[:HEAT_SYMBOLS], HEAT_MINUTES)))
        heat.update()

    def restart() -> None:
        if chosen.value:
            _act(hub.actions.restart_connection, chosen.value, said=f"{chosen.value} dials anew")

    look_slowly()
    ui.timer(LOOK_S, look)
    ui.timer(SLOW_LOOK_S, look_slowly)


def _served(wish: PlannedWish) -> str:
    ways = ("streamed", "market_wide", "derived", "polled", "unserved")
    counts = {way.replace("_", "-"): getattr(wish, way) for way in ways}
    return ", ".join(f"{count} {way}" for way, count in counts.items() if count)


def _lines(column: ui.column, texts: Sequence[str]) -> None:
    """The texts as lines; touched only when they changed."""
    labels = [one for one in column.default_slot.children if isinstance(one, ui.label)]
    if [one.text for one in labels] != list(texts):
        column.clear()
        with column:
            for text in texts:
                ui.label(text)


# --- Rules -----------------------------------------------------------------------------------------------------------


def rules() -> None:
    hub = _hub()
    with _frame("/rules"):
        refresh = [_rule(hub, record) for record in hub.rules()]

        def look() -> None:
            records = {one.name: one for one in hub.rules()}
            for name, update in refresh:
                if name in records:
                    update(records[name])

        look()
        ui.timer(2 * LOOK_S, look)


def _rule(hub: Hub, record: RuleRecord) -> tuple[str, Any]:
    name = record.name
    with _panel():
        with ui.element("div").classes("pw-row"):
            with ui.element("b").style("font-size: 15px"):
                ui.label(name)
            state = ui.label("").classes("pw-tag").props(f"data-rule={name}")
            ui.element("div").classes("pw-space")
            pause = _button("", lambda: toggle())
        text = ui.label(record.text).classes("dim")
        figures = _figures(
            (
                ("signals", "signals today"),
                ("alerts", "alerts today"),
                ("suppressed", "kept silent today"),
                ("hits", "went on within the hour"),
            )
        )
        budget = ui.label("").classes("dim")
        if record.settings:
            with ui.element("div").classes("pw-row").style("margin-top: 8px"):
                options = {number: one.name for number, one in enumerate(record.settings)}
                setting = ui.select(options, value=0, label="change").props("dense").style("min-width: 150px")
                value = ui.number(label="to", value=record.settings[0].value, format="%.6g").props("dense")
                setting.on_value_change(lambda: value.set_value(record.settings[setting.value or 0].value))
                _button("try on the last 24 h", lambda: attempt())
                _button("put in force", lambda: save())
            said = ui.label("").props("role=status")

    def toggle() -> None:
        is_paused = name in hub.bot.analysis.paused
        action = hub.actions.resume if is_paused else hub.actions.pause
        _act(action, name, said=f"{name} {'tells again' if is_paused else 'is paused'}")

    async def attempt() -> None:
        if not hub.has_store:
            said.set_text("A rule is tried on the past that a watch has kept; this one keeps nothing.")
            return
        said.set_text("Trying; this takes up to some minutes.")
        try:
            trial = await try_rule(changed(), hub.config_file)
            said.set_text(f"It would have told {trial.told} times in {trial.days:.1f} days, {trial.per_day:g} a day.")
        except ConfigurationError as error:
            said.set_text(str(error))

    def changed() -> Any:
        one = record.settings[setting.value or 0]
        return changed_rule(hub, name, one.condition, one.name, float(value.value or 0.0))

    def save() -> None:
        try:
            rule = changed()
        except ConfigurationError as error:
            said.set_text(str(error))
            return
        if _act(hub.actions.change_rule, rule, said=f"{name} is changed"):
            said.set_text(
                f"In force until the program ends. To keep it, put this into a file of rules: {to_toml(rule)}"
            )

    def update(new: RuleRecord) -> None:
        state.set_text("paused" if new.is_paused else "tag, shown beside alerts" if new.is_tag else "in force")
        _name(pause, "resume" if new.is_paused else "pause")
        text.set_text(new.text)
        figures["signals"].set_text(str(new.signals_today))
        figures["alerts"].set_text(str(new.alerts_today))
        figures["suppressed"].set_text(str(new.suppressed_today))
        hits = "–" if new.hit_rate is None else f"{new.hit_rate:.0%} of {new.judged}"
        figures["hits"].set_text(hits)
        budget.set_text(new.budget)

    return name, update


# --- The application -------------------------------------------------------------------------------------------------


def _application() -> FastAPI:
    """The pages as NiceGUI serves them; made once in a process."""
    application = FastAPI(openapi_url=None)
    application.mount("/static", StaticFiles(directory=STATIC))
    title = "perpwatch"
    ui.page("/", title=f"Market · {title}")(market)
    ui.page("/signals", title=f"Signals · {title}")(signals)
    ui.page("/symbol/{name}", title=title)(symbol)
    ui.page("/health", title=f"Watch health · {title}")(health)
    ui.page("/rules", title=f"Rules · {title}")(rules)
    ui.run_with(
        application,
        title=title,
        dark=None,
        favicon="◆",
        tailwind=False,
        binding_refresh_interval=None,
        gzip_middleware_factory=None,  # on this machine compressing costs more than it saves
        show_welcome_message=False,
        reconnect_timeout=10.0,
        message_history_length=100,
    )
    return application


PAGES = _application()
