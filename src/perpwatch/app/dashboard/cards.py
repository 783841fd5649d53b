"""Cards: what was found, newest first, with its reasons."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from nicegui import ui

from perpwatch.app.dashboard.findings import Finding
from perpwatch.app.dashboard.frame import clock
from perpwatch.model import Direction, Signal, Trust

#: Reasons that a card shows.
MOST_REASONS = 6
_ARROW = {Direction.UP: "▲", Direction.DOWN: "▼", Direction.FLAT: "·"}
_SIDE = {Direction.UP: "up", Direction.DOWN: "down"}


class Cards:
    """A column of cards that follows what was found."""

    def __init__(self) -> None:
        self._holder = ui.element("div").classes("pw-cards").props("data-cards=1")
        self._shown: dict[object, tuple[Finding, ui.element]] = {}

    def show(self, findings: Sequence[Finding], now_ms: int) -> None:
        """Show these, oldest first given, newest first seen; only what changed is touched."""
        wanted = {one.key: one for one in findings}
        for key in [key for key, (old, _) in self._shown.items() if wanted.get(key) != old]:
            self._holder.remove(self._shown.pop(key)[1])
        for place, one in enumerate(reversed(findings)):
            if one.key not in self._shown:
                with self._holder, ui.element("div") as holder:
                    _card(one, now_ms)
                holder.move(target_index=place)
                self._shown[one.key] = one, holder


def chip(finding: Finding) -> None:
    """An alert in a few words."""
    signal = finding.signal
    if signal is None:
        with ui.link(target="/signals").classes("pw-chip"):
            ui.label("◆ the whole market")
            ui.label(clock(finding.time_ms)).classes("dim pw-num")
        return
    side = _SIDE.get(signal.direction, "")
    with ui.link(target=f"/symbol/{quote(signal.symbol, safe='')}").classes(f"pw-chip {side}"):
        ui.label(f"{_ARROW[signal.direction]} {signal.symbol}")
        ui.label(next((one.text for one in signal.reasons if one.text), "")).classes(f"pw-num {side}")
        ui.label(clock(finding.time_ms)).classes("dim pw-num")


def _card(finding: Finding, now_ms: int) -> None:
    signal = finding.signal
    if signal is None:
        with ui.element("div").classes("pw-card"):
            with ui.element("div").classes("pw-row"):
                with ui.element("b"):
                    ui.label("The whole market")
                ui.label("alert").classes("pw-tag alert")
                ui.element("div").classes("pw-space")
                ui.label(clock(finding.time_ms, now_ms)).classes("dim pw-num")
            ui.label(finding.text)
        return
    side = _SIDE.get(signal.direction, "")
    reasons = [one.text for one in signal.reasons if one.text][:MOST_REASONS]
    with ui.link(target=f"/symbol/{quote(signal.symbol, safe='')}").classes(f"pw-card {side}"):
        with ui.element("div").classes("pw-row"):
            with ui.element("b"):
                ui.label(f"{_ARROW[signal.direction]} {signal.symbol}")
            ui.label(reasons[0] if reasons else signal.detector).classes(f"pw-what pw-num {side}")
            ui.label(signal.level.value).classes(f"pw-tag {signal.level.value}")
            ui.label("alert" if finding.is_alert else "signal").classes("pw-tag" + (" alert" * finding.is_alert))
            ui.label(_of_what(signal)).classes("dim")
            ui.element("div").classes("pw-space")
            ui.label(f"at {signal.price:.8g}").classes("pw-num")
            ui.label(clock(finding.time_ms, now_ms)).classes("dim pw-num")
        if len(reasons) > 1:
            ui.label(" · ".join(reasons[1:]))
        if signal.trust not in (Trust.STREAMED, Trust.VERIFIED):
            ui.label(f"data: {signal.trust.value}").classes("warn")
        after = finding.came_of_it or (f"not told: {finding.silence}" if finding.silence else "")
        if finding.is_again:
            after = "; ".join(filter(None, ("again, because its volume has doubled", after)))
        if after:
            ui.label(after).classes("dim")


def _of_what(signal: Signal) -> str:
    state = "running" if signal.is_running else "closed"
    return f"{signal.timeframe} {state} · {signal.rule or signal.detector}"
