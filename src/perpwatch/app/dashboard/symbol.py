"""The *Symbol* view: one contract, how it trades, what was found in it, and how far that can be believed."""

from __future__ import annotations

from nicegui import ui

from perpwatch.app.api_hub import Hub
from perpwatch.app.api_records import SymbolDetail, TradesFlow
from perpwatch.app.dashboard import charts
from perpwatch.app.dashboard.cards import Cards
from perpwatch.app.dashboard.findings import Findings
from perpwatch.app.dashboard.frame import (
    LOOK_S,
    act,
    button,
    clock,
    figures,
    frame,
    name_button,
    panel,
    trust_legend,
)
from perpwatch.app.dashboard.shown import shown_hub
from perpwatch.app.usual import USUAL_CANDLES
from perpwatch.model import ANALYSED_TIMEFRAMES, MINUTE_MS, Timeframe, Trust

#: Candles of a chart, and findings of a contract that are shown.
SYMBOL_CANDLES, MOST_FINDINGS, MOST_CARDS = 120, 500, 20


def symbol(name: str) -> None:
    hub = shown_hub()
    with frame(f"/symbol/{name}"):
        ui.page_title(f"{name} · perpwatch")
        detail = hub.symbol(name)
        if detail is not None:
            _symbol(hub, name, detail)
        else:
            _absent(hub, name)


def _absent(hub: Hub, name: str) -> None:
    """A contract that is not watched, or not yet: the start of a watch takes seconds, and so does a listing."""
    is_known = bool(hub.table.rows)
    ui.label(f"{name} is not watched." if is_known else f"{name}: the market is being read.").classes("pw-title")
    reasons = [one.reason for one in hub.bot.members if one.contract.symbol == name]
    said = f"Why: {reasons[0]}." if reasons and reasons[0] else "The exchange may not list it, or not yet."
    ui.label(f"{said} This page opens by itself once it is watched; press / to search another contract.").classes("dim")

    def look() -> None:
        if hub.symbol(name) is not None or bool(hub.table.rows) != is_known:
            ui.navigate.reload()

    ui.timer(LOOK_S, look)


def _symbol(hub: Hub, name: str, detail: SymbolDetail) -> None:
    timeframe = Timeframe.Min1
    buttons: dict[Timeframe, ui.element] = {}
    contract = detail.contract
    with ui.element("div").classes("pw-row"):
        with ui.element("h1").classes("pw-title"):
            ui.label(name)
        ui.label(contract.asset_class.value).classes("pw-tag").props("data-class=1")
        for zone in contract.zones[:4]:
            ui.label(zone).classes("pw-tag")
        ui.link("at the exchange ↗", detail.exchange_url, new_tab=True).classes("pw-button").props(
            'rel="noopener noreferrer"'
        )
        mute = button("", lambda: toggle_mute())
        pin = button("", lambda: toggle_pin())
    gone = ui.label("").classes("pw-empty").props("role=status")
    gone.set_visibility(False)
    with panel():
        shown = figures(
            (
                ("price", "price"),
                ("move_1", "1 min"),
                ("move_5", "5 min"),
                ("move_60", "1 h"),
                (
                    "activity",
                    "turnover now / usual",
                    "turnover of the last sixty seconds over the mean minute of an hour",
                ),
                ("turnover", "24 h turnover"),
                ("interest", "open interest, 1 h"),
                ("funding", "funding, per settlement"),
                ("trust", "last minute", "how the last closed minute became known"),
                ("source", "fed by"),
                ("age", "data age", "since the moment up to which everything is known"),
            )
        )
    with panel():
        with ui.element("div").classes("pw-row"):
            for one in (*ANALYSED_TIMEFRAMES, Timeframe.Hour4, Timeframe.Day1):
                buttons[one] = button(one.value, lambda one=one: switch(one))
            read = ui.label("").classes("dim").props("role=status")
        chart = ui.echart(charts.candles_of(timeframe, [], [])).classes("pw-chart").props("data-chart=candles")
        empty = ui.label("No candle yet: the history of this contract is being read.").classes("pw-empty")
        with ui.element("div").classes("pw-legend") as legend:
            for kind, text in (
                ("band", f"usual turnover: 80 % of the {USUAL_CANDLES} candles before (log scale)"),
                ("mark accent", "alert"),
                ("mark up", "went on"),
                ("mark grey", "did not"),
                ("mark hollow", "signal, not told"),
            ):
                with ui.element("span"):
                    ui.element("i").classes(kind)
                    ui.label(text).style("display:inline")
        trust_legend(charts.TRUST_COLOURS)
    with panel("Trades flow, by minute", note="buys and sells of takers"):
        flow = ui.echart(charts.flow_of(TradesFlow(name, False, []))).style("height: 150px").props("data-chart=flow")
        no_flow = ui.label("").classes("dim")
    with panel("What was found", note="newest first"):
        cards = Cards()
        nothing = ui.label("Nothing unusual in this contract.").classes("dim")
    findings = Findings(hub, name, MOST_FINDINGS)

    def look() -> None:
        detail = hub.symbol(name)
        gone.set_visibility(detail is None)
        if detail is None:
            gone.set_text(f"{name} is no longer watched; what is below stands still.")
            return
        row = detail.row
        shown["price"].set_text("–" if row.price is None else f"{row.price:.{contract.price_scale}f}")
        for key, value in (("move_1", row.move_1), ("move_5", row.move_5), ("move_60", row.move_60)):
            shown[key].set_text(charts.percent(value))
            shown[key].classes(replace="up" if (value or 0) > 0 else "down" if (value or 0) < 0 else "")
        shown["activity"].set_text("–" if row.activity is None else f"{row.activity:.1f} ×")
        shown["turnover"].set_text(charts.money(row.turnover_24h))
        shown["interest"].set_text(charts.percent(row.open_interest_change))
        shown["funding"].set_text("–" if row.funding_rate is None else f"{row.funding_rate:.4%}")
        shown["trust"].set_text(row.trust.value)
        shown["source"].set_text(detail.source or "REST")
        shown["age"].set_text("–" if detail.age_s is None else f"{detail.age_s:.1f} s")
        name_button(mute, "unmute" if detail.is_muted else "mute")
        name_button(pin, "unpin" if detail.is_pinned else "pin")
        found = findings.newest()
        cards.show(found[-MOST_CARDS:], hub.bot.engine.now_ms)
        nothing.set_visibility(not found)

    async def draw(*, asks_exchange: bool = True) -> None:
        wanted = timeframe
        candles = await hub.candles(name, wanted, SYMBOL_CANDLES, asks_exchange=asks_exchange)
        if candles is None or wanted is not timeframe:
            return  # it is gone, or somebody has switched meanwhile and that is drawn by itself
        for one, made in buttons.items():
            made.classes(add="on" if one is wanted else "", remove="" if one is wanted else "on")
        known = _trusts(hub, name) if wanted is Timeframe.Min1 else None
        slots = charts.slots_of(candles, SYMBOL_CANDLES, hub.decided_ms, known)
        chart.options.clear()
        chart.options.update(charts.candles_of(wanted, slots, findings.newest()))
        chart.update()
        for part in (chart, legend):
            part.set_visibility(bool(slots))
        empty.set_visibility(not slots)
        since = clock(slots[0].open_time_ms, hub.bot.engine.now_ms) if slots else ""
        read.set_text(f"{len(slots)} candles, from {since} UTC" if slots else "")
        trades = hub.trades(name)
        flow.options.clear()
        flow.options.update(charts.flow_of(trades))
        flow.update()
        flow.set_visibility(trades.is_known)
        no_flow.set_visibility(not trades.is_known)
        no_flow.set_text(_why_no_flow(hub))

    async def switch(one: Timeframe) -> None:
        nonlocal timeframe
        timeframe = one
        await draw(asks_exchange=False)  # at once, what is at hand
        await draw()

    def toggle_mute() -> None:
        is_muted = name in hub.bot.analysis.muted
        action = hub.actions.unmute if is_muted else hub.actions.mute
        if act(action, name, said=f"{name} is {'heard again' if is_muted else 'muted'}"):
            name_button(mute, "mute" if is_muted else "unmute")

    def toggle_pin() -> None:
        is_pinned = name in hub.bot.pinned
        action = hub.actions.unpin if is_pinned else hub.actions.pin
        if act(action, name, said=f"{name} is {'no longer pinned' if is_pinned else 'pinned'}"):
            name_button(pin, "pin" if is_pinned else "unpin")

    async def begin() -> None:
        await findings.recall()
        look()
        await switch(timeframe)

    look()
    ui.timer(0.0, begin, once=True)
    ui.timer(LOOK_S, look)
    ui.timer(2 * LOOK_S, draw, immediate=False)


def _trusts(hub: Hub, name: str) -> dict[int, Trust]:
    """What the ledger knows of the minutes of a chart."""
    page = hub.ledger([name], SYMBOL_CANDLES + 1)
    trusts = [page.legend.get(code, Trust.UNKNOWN) for code in page.rows[0].codes]
    known = {page.start_ms + place * MINUTE_MS: trust for place, trust in enumerate(trusts)}
    return {open_time_ms: trust for open_time_ms, trust in known.items() if trust is not Trust.UNKNOWN}


def _why_no_flow(hub: Hub) -> str:
    wishes = hub.bot.config.websocket.subscription_types
    if not any(str(wish).startswith("deals") for wish in wishes):
        return "Trades are not subscribed: add deals to websocket.subscription_types to see who trades."
    return (
        "The trades of no whole minute are known yet; where room is short, those of the busiest contracts come first."
    )
