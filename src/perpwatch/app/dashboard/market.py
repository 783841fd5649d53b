"""The *Market* view: all contracts at once. Its rows come by the API's own stream, made once for everybody."""

from __future__ import annotations

from typing import Any

from nicegui import ui

from perpwatch.app.dashboard.cards import chip
from perpwatch.app.dashboard.findings import Finding, Findings
from perpwatch.app.dashboard.frame import LOOK_S, frame, panel
from perpwatch.app.dashboard.shown import shown_hub

#: Findings that are looked through, and alerts that are named above the map.
MOST_FINDINGS, NEWEST_ALERTS = 200, 6


def _column(
    field: str, name: str, form: str, *, signed: bool = False, width: int = 78, tip: str = ""
) -> dict[str, Any]:
    column: dict[str, Any] = {
        "field": field,
        "headerName": name,
        "filter": "agNumberColumnFilter",
        "type": "rightAligned",
        ":valueFormatter": f"p => perpwatch.{form}(p.value)",
        "minWidth": width,
        "flex": width,
        "headerTooltip": tip or name,
    }
    if signed:
        column[":cellClass"] = "p => perpwatch.sign(p)"
    return column


def _words(field: str, name: str, *, width: int, tip: str = "") -> dict[str, Any]:
    return {
        "field": field,
        "headerName": name,
        "filter": "agTextColumnFilter",
        "minWidth": width,
        "flex": width,
        "headerTooltip": tip or name,
    }


_MARKET_COLUMNS = [
    {"field": "symbol", "headerName": "Contract", "filter": "agTextColumnFilter", "width": 150, "pinned": "left"},
    _words("asset_class", "Class", width=76, tip="what the price follows"),
    _column("price", "Price", "price", width=96),
    _column("move_1", "1 min", "percent", signed=True),
    _column("move_5", "5 min", "percent", signed=True),
    _column("move_15", "15 min", "percent", signed=True),
    _column("move_60", "1 h", "percent", signed=True),
    _column("turnover_24h", "24 h", "money", tip="turnover of 24 h, quote coin") | {"sort": "desc"},
    _column("activity", "× usual", "times", width=84, tip="turnover of the last minute over the mean of an hour"),
    _column("anomaly", "Anomaly", "times", width=88, tip="how many times its usual: turnover or move, the larger"),
    _column("open_interest_change", "OI 1 h", "percent", signed=True, tip="change of open interest"),
    _column("funding_rate", "Funding", "funding", signed=True, width=90, tip="per settlement"),
    _column("known", "Known", "share", width=76, tip="share of the last hour's minutes that are known"),
    _words("trust", "Trust", width=86, tip="how the last closed minute became known"),
    _words("is_live", "Feed", width=76, tip="what serves its candles")
    | {":valueGetter": "p => perpwatch.feed(p.data)", ":cellClass": "p => perpwatch.feedClass(p.data)"},
    _column("age_s", "Age", "age", width=66, tip="how old what is known is; 0 is less than 5 s"),
]
_COLOURS = (("move_60", "1 h move"), ("move_1", "1 min move"), ("anomaly", "anomaly"))


def market() -> None:
    hub = shown_hub()
    with frame("/", needs_pulse=False):
        with ui.element("div").classes("pw-row"):
            ui.label("Size: turnover of 24 h. Colour:").classes("dim")
            with ui.element("div").classes("pw-group"):
                for key, name in _COLOURS:
                    chosen = ui.element("button").classes("pw-button" + (" on" if key == "move_60" else ""))
                    chosen.props(f"data-colour={key}")
                    with chosen:
                        ui.label(name).style("display:inline")
            with ui.element("div").classes("pw-scale").props("id=pw-scale"):
                ui.label("−5 %").props("id=pw-scale-low")
                ui.element("i")
                ui.label("+5 %").props("id=pw-scale-high")
            ui.element("div").classes("pw-space")
            ui.label("").classes("dim pw-num").props("id=pw-feed")
        newest = ui.element("div").classes("pw-newest").props('aria-label="newest alerts"')
        with panel():
            tree = ui.echart({"series": []}).style("height: min(42vh, 420px)").props('aria-label="map of the market"')
        with ui.element("div").classes("pw-row"):
            ui.element("input").classes("pw-field").props(
                'id=pw-filter placeholder="Filter rows" aria-label="Filter rows" autocomplete=off'
            )
            ui.element("div").classes("pw-group").props("id=pw-classes")
            ui.label("A column's head sorts, its menu filters, a row opens the contract.").classes("dim pw-wide")
        grid = ui.aggrid(
            {
                "columnDefs": _MARKET_COLUMNS,
                "rowData": [],
                ":getRowId": "p => p.data.symbol",
                ":onRowClicked": "e => perpwatch.open(e.data.symbol)",
                ":isExternalFilterPresent": "() => perpwatch.isClassChosen()",
                ":doesExternalFilterPass": "node => perpwatch.isOfClass(node.data)",
                "rowHeight": 27,
                "headerHeight": 31,
                "animateRows": False,
                "suppressCellFocus": True,
                "overlayNoRowsTemplate": "Reading the market: rows appear as soon as its contracts are known.",
            },
            theme="balham",
            auto_size_columns=False,
        )
        grid.classes("pw-grid").style("height: max(340px, 46vh)")
        ui.label("No contract matches the filters.").classes("pw-empty").props("id=pw-none hidden role=status")
        ui.add_body_html(f"<script>perpwatch.market({grid.id}, {tree.id})</script>")
    findings = Findings(hub, None, MOST_FINDINGS)
    shown: list[Finding] = []

    def look() -> None:
        nonlocal shown
        # Of each contract the newest one.
        of = {one.signal.symbol if one.signal is not None else "": one for one in findings.newest() if one.is_alert}
        alerts = sorted(of.values(), key=lambda one: -one.time_ms)[:NEWEST_ALERTS]
        if alerts == shown:
            return
        shown = alerts
        newest.clear()
        with newest:
            for one in alerts:
                chip(one)

    async def begin() -> None:
        await findings.recall()
        look()

    ui.timer(0.0, begin, once=True)
    ui.timer(LOOK_S, look)
