"""The *Watch health* view: how well the watch sees the market, and what it does about what it does not see."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from perpwatch.app.api_hub import Hub
from perpwatch.app.api_records import ConnectionRecord, Coverage
from perpwatch.app.dashboard import charts
from perpwatch.app.dashboard.frame import (
    LOOK_S,
    SLOW_LOOK_S,
    act,
    button,
    clock,
    figures,
    frame,
    lines,
    panel,
    trust_legend,
)
from perpwatch.app.dashboard.shown import shown_hub
from perpwatch.app.delivery import ChannelStatus
from perpwatch.app.freshness import ages_text
from perpwatch.app.health import Health
from perpwatch.app.planning import PlannedWish

#: Contracts in the trust heat map.
HEAT_SYMBOLS, HEAT_MINUTES = 40, 60

_CONNECTION_COLUMNS = [
    {"field": "source", "headerName": "Connection", "width": 105},
    {"field": "state", "headerName": "State", "width": 85, ":cellClass": "p => p.value === 'open' ? 'up' : 'warn'"},
    {"field": "streams", "headerName": "Streams", "width": 90, "type": "rightAligned"},
    {"field": "rate", "headerName": "Frames/s", "width": 95, "type": "rightAligned"},
    {
        "field": "lag",
        "headerName": "Lag",
        "width": 85,
        "type": "rightAligned",
        "headerTooltip": "mean above the quickest frame",
    },
    {"field": "age", "headerName": "Last data", "width": 90, "type": "rightAligned"},
    {"field": "reconnects", "headerName": "Reconnects", "width": 100, "type": "rightAligned"},
    {
        "field": "refusals",
        "headerName": "Refused",
        "width": 85,
        "type": "rightAligned",
        "headerTooltip": "commands refused",
    },
    {
        "field": "bad",
        "headerName": "Bad",
        "width": 65,
        "type": "rightAligned",
        "headerTooltip": "frames that could not be read",
    },
    {"field": "error", "headerName": "Breaker and last error", "flex": 1, "minWidth": 190},
]


def health() -> None:
    hub = shown_hub()
    with frame("/health"):
        with panel():
            shown = figures(
                (
                    ("status", "state"),
                    ("mode", "feed"),
                    ("coverage", "contracts with good candles"),
                    ("warm", "histories loaded"),
                    ("age", "newest data"),
                    ("fresh", "data age, median / worst"),
                    ("delay", "from stamp to analysed"),
                    ("requests", "requests in a minute / allowed"),
                    ("repairs", "contracts to read back"),
                    ("unknown", "minutes unknown"),
                )
            )
        with panel("What is not well"):
            trouble = ui.element("div").classes("pw-lines").props("data-trouble=1")
        with panel("How alerts arrive, by channel"):
            channels = ui.element("div").classes("pw-lines").props("data-channels=1")
        with panel("Connections"):
            grid = (
                ui.aggrid(
                    {
                        "columnDefs": _CONNECTION_COLUMNS,
                        "rowData": [_connection(one) for one in hub.connections()],
                        ":getRowId": "p => p.data.source",
                        "domLayout": "autoHeight",
                        "rowHeight": 27,
                        "headerHeight": 30,
                        "overlayNoRowsTemplate": "No connection: everything is read by REST, or the start is not over.",
                    },
                    theme="balham",
                    auto_size_columns=False,
                )
                .classes("pw-short")
                .props("data-connections=1")
                .style("height: auto")
            )
            with ui.element("div").classes("pw-row").style("margin-top: 8px"):
                chosen = ui.select([], label="connection").props("dense").style("min-width: 150px")
                button("restart it", lambda: restart())
                button("send a test alert", lambda: act(hub.actions.test_alert, said="a test alert is on its way"))
        with ui.element("div").classes("pw-columns pw-three"):
            with panel("Coverage, by class and by feed"):
                coverage = ui.element("div").classes("pw-lines").props("data-coverage=1")
            with panel("REST budget and breakers"):
                budget = ui.linear_progress(0.0, show_value=False, size="8px").props("instant-feedback")
                rest = ui.element("div").classes("pw-lines")
            with panel("The plan, and why"):
                plan = ui.element("div").classes("pw-lines")
        metrics = hub.monitor.metrics
        histograms = [
            ("From the exchange to us", metrics.feed_latency),
            ("In our queue", metrics.queue_time),
            ("Signals, after the exchange's stamp", metrics.signal_latency),
            ("Lag of our loop", metrics.loop_lag),
        ]
        with ui.element("div").classes("pw-columns pw-narrow"):
            drawn = [_latency(name) for name, _ in histograms]
        with panel(
            f"Trust of {HEAT_MINUTES} minutes",
            note="contracts with minutes unknown first, then the most traded; a row opens the contract",
        ):
            trust_legend(charts.TRUST_COLOURS)
            heat = ui.echart(charts.heat_of(hub.ledger([], 1))).style(f"height: {16 * HEAT_SYMBOLS + 30}px")
            heat.props("data-chart=heat").on("componentClick", js_handler=f"e => perpwatch.openRow({heat.id}, e)")

    def look() -> None:
        status = hub.monitor.report()
        contracts, ages = status.contracts, hub.freshness().all
        shown["status"].set_text(status.status.value)
        shown["status"].classes(replace={"ok": "up", "degraded": "warn"}.get(status.status.value, "down"))
        shown["mode"].set_text(hub.bot.config.mode.value)
        shown["coverage"].set_text(f"{contracts.covered} / {contracts.watched}")
        shown["warm"].set_text(f"{contracts.warm} / {contracts.watched}")
        shown["age"].set_text("–" if status.data.age_s is None else f"{status.data.age_s:.1f} s")
        shown["fresh"].set_text(f"{ages.median_s:.0f} / {ages.worst_s:.0f} s" if ages.symbols else "–")
        shown["delay"].set_text(f"{1_000 * status.data.delay_s:.0f} ms")
        shown["requests"].set_text(f"{status.rest.requests} / {60 * status.rest.rate:.0f}")
        shown["repairs"].set_text(str(status.repairs.open))
        shown["unknown"].set_text(str(status.repairs.unknown_minutes))
        allowed = 60 * status.rest.rate
        budget.set_value(min(1.0, status.rest.requests / allowed) if allowed else 0.0)
        lines(trouble, _troubles(status))
        lines(channels, [_channel(one) for one in status.channels] or ["No channel is configured."])
        records = hub.connections()
        grid.run_grid_method("setGridOption", "rowData", [_connection(one) for one in records])
        names = [one.source for one in records]
        if chosen.options != names:
            chosen.set_options(names, value=chosen.value if chosen.value in names else next(iter(names), None))

    def look_slowly() -> None:
        lines(coverage, _coverage(hub.coverage()))
        lines(rest, _rest(hub))
        lines(plan, [_planned(one) for one in hub.plan().wishes] or ["The market is not known yet."])
        for (chart, text), (_, measured) in zip(drawn, histograms, strict=True):
            buckets = measured.buckets()
            text.set_text(charts.quantile_text(buckets))
            chart.options.update(charts.histogram_of(buckets))
            chart.update()
        heat.options.clear()
        heat.options.update(charts.heat_of(hub.ledger(hub.troubled(HEAT_SYMBOLS, HEAT_MINUTES), HEAT_MINUTES)))
        heat.update()

    def restart() -> None:
        if chosen.value:
            act(hub.actions.restart_connection, chosen.value, said=f"{chosen.value} dials anew")

    look()
    look_slowly()
    ui.timer(LOOK_S, look)
    ui.timer(SLOW_LOOK_S, look_slowly)


def _connection(one: ConnectionRecord) -> dict[str, Any]:
    return {
        "source": one.source,
        "state": one.state,
        "streams": f"{one.confirmed}/{one.wanted}",
        "rate": f"{one.rate:.1f}",
        "lag": f"{one.lag_ms:.0f} ms",
        "age": "–" if one.data_age_s is None else f"{one.data_age_s:.1f} s",
        "reconnects": one.reconnects,
        "refusals": one.refusals,
        "bad": one.bad_frames,
        "error": (f"next try in {one.retry_in_s:.0f} s: " if one.retry_in_s else "") + (one.last_error or ""),
    }


def _latency(name: str) -> tuple[ui.echart, ui.label]:
    with panel(name):
        text = ui.label("").classes("dim")
        chart = ui.echart(charts.histogram_of([])).style("height: 150px").props("data-chart=latency")
    return chart, text


def _troubles(status: Health) -> list[str]:
    texts = list(status.reasons) or ["Everything is well."]
    texts += status.notes
    texts += [f"{one.trouble.value.replace('_', ' ')}, since {clock(one.since_ms)} UTC" for one in status.alerts]
    return texts


def _channel(one: ChannelStatus) -> str:
    counts = {"sent": one.sent, "waiting": one.waiting, "suppressed": one.suppressed, "failed": one.failed}
    text = f"{one.name}: " + (", ".join(f"{count} {what}" for what, count in counts.items() if count) or "nothing yet")
    if one.latency_s is not None:
        text += f"; {one.latency_s:.2f} s from the signal to the acknowledgement"
    return f"{text}; {one.error}" if one.error else text


def _coverage(found: Coverage) -> list[str]:
    texts = [f"{one.asset_class.value}: {one.covered} of {one.watched} with good candles" for one in found.classes]
    texts += [f"{count} read by REST: {why}" for why, count in found.polled_why.items()]
    ages = found.ages
    if ages.all.symbols:
        texts.append(f"data age: {ages_text(ages.all)}")
    if ages.hot.symbols:
        texts.append(f"of the {ages.hot.symbols} most active: {ages_text(ages.hot)}")
    reasons = sorted(set(found.missing.values()))
    texts += [f"minutes are missing: {reason}" for reason in reasons[:5]]
    return texts or ["No contract is watched yet."]


def _rest(hub: Hub) -> list[str]:
    record = hub.rest()
    open_breakers = [f"{endpoint}: {state}" for endpoint, state in record.breakers.items() if state != "closed"]
    return [
        f"{record.requests} requests since the start, {record.failures} failed, "
        f"{record.rate_limited} refused as too many",
        f"{record.rate:g} a second allowed, {record.waiting} waiting",
        *([f"breaker of {one}" for one in open_breakers] or [f"all {len(record.breakers)} breakers are closed"]),
    ]


def _planned(wish: PlannedWish) -> str:
    ways = ("streamed", "market_wide", "derived", "polled", "unserved")
    counts = {way.replace("_", "-"): getattr(wish, way) for way in ways}
    served = ", ".join(f"{count} {way}" for way, count in counts.items() if count)
    return f"{wish.name}: {served}; {wish.why}"
