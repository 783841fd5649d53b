"""The *Signals* view: what was found in the whole market, live."""

from __future__ import annotations

from nicegui import ui

from perpwatch.app.dashboard.cards import Cards
from perpwatch.app.dashboard.findings import Findings
from perpwatch.app.dashboard.frame import LOOK_S, frame
from perpwatch.app.dashboard.shown import shown_hub

#: Findings that are looked through, and cards that are shown.
MOST_FINDINGS, MOST_CARDS = 1_000, 80
_ALL = "all rules"


def signals() -> None:
    hub = shown_hub()
    with frame("/signals"):
        with ui.element("div").classes("pw-row"):
            only = ui.checkbox("alerts only", value=True)
            names = [_ALL, *(rule.name for rule in hub.bot.analysis.rules.rules)]
            rule = ui.select(names, value=_ALL).props('dense aria-label="rule"').style("min-width: 130px")
            contract = ui.input(placeholder="contract").props('dense clearable aria-label="contract"')
            ui.label("Newest first. A card opens the contract.").classes("dim")
        empty = ui.label("").classes("pw-empty").props("role=status")
        cards = Cards()
    findings = Findings(hub, None, MOST_FINDINGS)

    def look() -> None:
        text, found = (contract.value or "").upper(), findings.newest()
        wanted = [
            one
            for one in found
            if (one.is_alert or not only.value)
            and (rule.value == _ALL or (one.signal is not None and one.signal.rule == rule.value))
            and (not text or (one.signal is not None and text in one.signal.symbol.upper()))
        ]
        cards.show(wanted[-MOST_CARDS:], hub.bot.engine.now_ms)
        empty.set_visibility(not wanted)
        if text or rule.value != _ALL:
            empty.set_text("Nothing of that kind yet. Loosen the filters above.")
        elif found:
            empty.set_text(f"No alert yet. {len(found)} signals were kept silent: untick “alerts only” to see them.")
        else:
            warm = hub.bot.progress.warm
            empty.set_text(
                "Nothing unusual yet. Cards appear here the moment a rule speaks."
                if warm
                else "No contract can be judged yet: their history is being read."
            )

    for control in (only, rule, contract):
        control.on_value_change(look)

    async def begin() -> None:
        await findings.recall()
        look()

    look()
    ui.timer(0.0, begin, once=True)
    ui.timer(LOOK_S, look)
