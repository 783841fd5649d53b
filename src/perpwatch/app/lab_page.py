"""The laboratory's report as one page that needs nothing else: tables, and plots drawn by matplotlib as SVG.

matplotlib because its drawings are text inside the page: a plot is some ten kilobytes, prints, and needs no script,
where a page with plotly's or Vega's script inside has several megabytes before its first number.
"""

from __future__ import annotations

import html
import io
import math
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from perpwatch.app.lab import LabAlert, LabReport, LabSet
from perpwatch.app.scorecard import hit_rate_text, lift_text
from perpwatch.detect.rules import Rule, describe

SHOWN_ALERTS = 200
_COLOURS = ("#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#0891b2", "#be185d", "#4d7c0f")


def to_html(report: LabReport, rules: Sequence[Rule] = ()) -> str:
    """The whole page."""
    parts = [
        f"<h1>perpwatch lab</h1><p>{_summary(report)}</p>",
        _rules_table(rules),
        "<h2>Rules side by side</h2>",
        _sets_table(report.sets),
        "".join(f"<figure>{drawing}</figure>" for drawing in _drawings(report)),
        _events_table(report),
        _alerts_table(report.alerts),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>perpwatch lab</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        + "\n".join(parts)
        + "</body></html>\n"
    )


_STYLE = """
body{font:14px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;color:#1f2937}
h1,h2{line-height:1.2;font-weight:600}table{border-collapse:collapse;margin:1rem 0;font-variant-numeric:tabular-nums}
th,td{padding:.25rem .6rem;border-bottom:1px solid #e5e7eb;text-align:right;vertical-align:top}th{color:#6b7280}
td.text,th.text{text-align:left}figure{margin:1.5rem 0}svg{max-width:100%;height:auto}
.wide{overflow-x:auto}
"""


def _summary(report: LabReport) -> str:
    folders = len({row.name for row in report.sets})
    rules = len({row.rule for row in report.sets})
    return (
        f"{rules} rules on {folders} folders: {len(report.alerts)} alerts, {len(report.events)} labelled events seen."
    )


def _rules_table(rules: Sequence[Rule]) -> str:
    if not rules:
        return ""
    return "<h2>Rules</h2>" + _table(("rule", "what it asks for"), [(rule.name, describe(rule)) for rule in rules], 2)


def _sets_table(rows: Sequence[LabSet]) -> str:
    head = (
        "set",
        "rule",
        "symbols",
        "days",
        "alerts",
        "a day per 750",
        "market alerts",
        "found 3 min",
        "found window",
        "latency",
        "other / coin-day",
        "went on",
        "lift (95 %)",
    )
    cells = [
        (
            row.name,
            row.rule,
            row.symbols,
            f"{row.days:.1f}",
            row.alerts,
            f"{row.alerts_per_day_per_750:.0f}",
            row.market_alerts,
            f"{row.events_found_3min}/{row.events_total}" if row.events_total else "-",
            f"{row.events_found_window}/{row.events_total}" if row.events_total else "-",
            "-" if row.latency_s_median is None else f"{row.latency_s_median:.1f} s",
            "-" if row.other_alerts_per_coin_day is None else f"{row.other_alerts_per_coin_day:.2f}",
            hit_rate_text(row.outcome),
            lift_text(row.outcome),
        )
        for row in rows
    ]
    note = (
        "<p>Went on: within an hour the price moved on, in the alert's direction, by at least what an hour usually "
        "moves. Lift: how many times as often as at random moments of the same symbol and volatility.</p>"
    )
    return _table(head, cells, 2) + note


def _events_table(report: LabReport) -> str:
    if not report.events:
        return ""
    cells = [
        (
            one.symbol,
            one.rule,
            _time(one.start_ms),
            "official" if one.is_official else "announced",
            "found" if one.is_found else "missed",
            "-" if one.latency_s is None else f"{one.latency_s:.1f} s",
        )
        for one in report.events
    ]
    return "<h2>Labelled events</h2>" + _table(("symbol", "rule", "start (UTC)", "label", "", "first alert"), cells, 2)


def _alerts_table(alerts: Sequence[LabAlert]) -> str:
    ranked = sorted(alerts, key=lambda alert: -(alert.score or 0.0))[:SHOWN_ALERTS]
    cells = [
        (
            alert.symbol,
            "; ".join(str(reason["text"]) for reason in alert.reasons if reason["text"]),
            _time(alert.time_ms),
            alert.timeframe,
            alert.direction,
            alert.level,
            alert.rule,
            "-" if alert.score is None else f"{alert.score:.3f}",
        )
        for alert in ranked
    ]
    title = "<h2>Alerts</h2>"
    if len(alerts) > SHOWN_ALERTS:
        title += f"<p>The {SHOWN_ALERTS} with the highest score of {len(alerts)}.</p>"
    head = ("symbol", "why", "time (UTC)", "candle", "direction", "level", "rule", "score")
    return title + _table(head, cells, 2)


def _table(head: Sequence[str], rows: Sequence[Sequence[object]], words: int) -> str:
    """Args: words: so many columns, from the left, hold words and not numbers."""

    left = ' class="text"'

    def row(cells: Sequence[object], tag: str) -> str:
        return "".join(
            f"<{tag}{left if number < words else ''}>{html.escape(str(cell))}</{tag}>"
            for number, cell in enumerate(cells)
        )

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="wide"><table><tr>{row(head, "th")}</tr>{body}</table></div>'


def _time(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"


# --- Plots ------------------------------------------------------------------------------------------------------------


def _drawings(report: LabReport) -> list[str]:
    plots = [_draw_load, _draw_days, _draw_latency, _draw_returns, _draw_hours]
    return [drawing for plot in plots if (drawing := plot(report))]


def _figure(title: str, height: float = 3.0) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(10.0, height), layout="constrained")
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    text = io.StringIO()
    # Text stays text, identifiers do not change from run to run, and no time of day is written.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "perpwatch"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawing = text.getvalue()
    return drawing[drawing.index("<svg") :]


def _rules_of(report: LabReport) -> list[str]:
    return list(dict.fromkeys(row.rule for row in report.sets))


def _colour(report: LabReport, rule: str) -> str:
    return _COLOURS[_rules_of(report).index(rule) % len(_COLOURS)]


def _marker(report: LabReport, name: str) -> str:
    """Colours tell rules apart, marks tell sets."""
    return "os^vD*"[list(dict.fromkeys(row.name for row in report.sets)).index(name) % 6]


def _draw_load(report: LabReport) -> str:
    rules, sets = _rules_of(report), list(dict.fromkeys(row.name for row in report.sets))
    figure, axes = _figure("Alerts a day per 750 symbols", 1.2 + 0.35 * len(sets) * max(1, len(rules)))
    thickness = 0.8 / len(rules)
    for number, rule in enumerate(rules):
        loads = {row.name: row.alerts_per_day_per_750 for row in report.sets if row.rule == rule}
        places = [place + number * thickness for place in range(len(sets))]
        bars = axes.barh(places, [loads[name] for name in sets], thickness, color=_colour(report, rule), label=rule)
        axes.bar_label(bars, fmt="%.0f", padding=3, fontsize=8)
    axes.set_yticks([place + 0.4 - thickness / 2 for place in range(len(sets))], sets)
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.legend(frameon=False)
    return _svg(figure)


def _draw_days(report: LabReport) -> str:
    figure, axes = _figure("Told per day")
    drawn = 0
    for row in report.sets:
        days = sorted(row.told_by_day)
        if not 2 <= len(days) <= 400 or row.events_total:
            continue
        first, last = datetime.fromisoformat(days[0]), datetime.fromisoformat(days[-1])
        every = [(first + timedelta(days=number)).date().isoformat() for number in range((last - first).days + 1)]
        axes.plot(
            range(len(every)),
            [row.told_by_day.get(day, 0) for day in every],
            color=_colour(report, row.rule),
            label=f"{row.name}: {row.rule}",
            marker=_marker(report, row.name),
            markersize=4,
        )
        drawn += 1
    if not drawn:
        return ""
    axes.set_xlabel("days since the set's first alert")
    axes.set_ylim(bottom=0)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _draw_latency(report: LabReport) -> str:
    if not any(event.latency_s is not None for event in report.events):
        return ""
    figure, axes = _figure("Share of labelled events seen, by seconds after the start")
    for rule in _rules_of(report):
        events = [event for event in report.events if event.rule == rule]
        seen = sorted(event.latency_s for event in events if event.latency_s is not None)
        if seen:
            shares = [number / len(events) for number in range(1, len(seen) + 1)]
            axes.step([0.0, *seen], [0.0, *shares], where="post", color=_colour(report, rule), label=rule)
    axes.set_xscale("symlog", linthresh=10.0)
    axes.set_ylim(0.0, 1.0)
    axes.set_xlabel("seconds")
    axes.legend(frameon=False)
    return _svg(figure)


def _draw_returns(report: LabReport) -> str:
    rows = [row for row in report.sets if row.outcome is not None and row.outcome.judged]
    if not rows:
        return ""
    figure, axes = _figure("Mean return after an alert, in its direction (dashed: matched random moments)")
    for row in rows:
        assert row.outcome is not None
        points = [point for point in row.outcome.forward if not math.isnan(point[1])]
        minutes = [str(point[0]) for point in points]
        colour = _colour(report, row.rule)
        axes.plot(
            minutes,
            [100.0 * point[1] for point in points],
            color=colour,
            marker=_marker(report, row.name),
            label=f"{row.name}: {row.rule}",
        )
        axes.plot(minutes, [100.0 * point[2] for point in points], color=colour, linestyle="--", linewidth=0.8)
    axes.axhline(0.0, color="#9ca3af", linewidth=0.6)
    axes.set_xlabel("minutes")
    axes.set_ylabel("%")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def _draw_hours(report: LabReport) -> str:
    if not report.alerts:
        return ""
    figure, axes = _figure("Alerts by hour of the day (UTC)", 2.2)
    rules = _rules_of(report)
    for number, rule in enumerate(rules):
        hours = Counter(alert.time_ms // 3_600_000 % 24 for alert in report.alerts if alert.rule == rule)
        width = 0.8 / len(rules)
        axes.bar(
            [hour + number * width for hour in range(24)],
            [hours[hour] for hour in range(24)],
            width,
            color=_colour(report, rule),
            label=rule,
        )
    axes.set_xticks(range(24))
    axes.legend(frameon=False)
    return _svg(figure)
