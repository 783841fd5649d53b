"""The *Rules* view: what each rule says of the market, what came of it, and what it would say if it were changed."""

from __future__ import annotations

from collections.abc import Callable

from nicegui import ui

from perpwatch.app.api_hub import Hub, changed_rule
from perpwatch.app.api_records import RuleRecord
from perpwatch.app.api_trial import NOTHING_KEPT, TrialRunning, to_toml
from perpwatch.app.dashboard.frame import LOOK_S, act, button, figures, frame, name_button, panel
from perpwatch.app.dashboard.shown import shown_hub
from perpwatch.detect.rules import Rule
from perpwatch.errors import ConfigurationError


def rules() -> None:
    hub = shown_hub()
    with frame("/rules"):
        shown: dict[str, Callable[[RuleRecord], None]] = {}
        records = hub.rules()
        if not records:
            ui.label("No rule is in force: name one under [rules] in the configuration.").classes("pw-empty")
        for record in records:
            shown[record.name] = _rule(hub, record)
        others = ui.label("Other rules are in force than when this page was opened; load it again.").classes("dim")

    def look() -> None:
        records = hub.rules()
        others.set_visibility({one.name for one in records} != shown.keys())
        for one in records:
            if one.name in shown:
                shown[one.name](one)

    look()
    ui.timer(2 * LOOK_S, look)


def _rule(hub: Hub, record: RuleRecord) -> Callable[[RuleRecord], None]:
    name = record.name
    with panel():
        with ui.element("div").classes("pw-row"):
            with ui.element("b").style("font-size: 15px"):
                ui.label(name)
            state = ui.label("").classes("pw-tag")
            state.props["data-rule"] = name
            text = ui.label(record.text).classes("dim")
            ui.element("div").classes("pw-space")
            pause = button("", lambda: toggle())
        with ui.element("div").style("margin-top: 8px"):
            shown = figures(
                (
                    ("signals", "signals today"),
                    ("alerts", "alerts today"),
                    ("suppressed", "kept silent today"),
                    ("hits", "went on within the hour", "of the alerts of 30 days whose hour is known"),
                )
            )
        budget = ui.label("").classes("dim")
        if record.settings:
            with ui.element("div").classes("pw-row").style("margin-top: 4px"):
                several = len({one.condition for one in record.settings}) > 1
                options = {
                    number: f"{one.condition + 1}. {one.name}" if several else one.name
                    for number, one in enumerate(record.settings)
                }
                setting = ui.select(options, value=0, label="change").props("dense").style("min-width: 160px")
                value = ui.number(label="to", value=record.settings[0].value, format="%.6g").props("dense")
                setting.on_value_change(lambda: value.set_value(record.settings[setting.value or 0].value))
                attempting = button("try on the last 24 h", lambda: attempt())
                button("put in force", lambda: save())
            said = ui.label("").props("role=status data-said=1").classes("pw-said")

    def toggle() -> None:
        is_paused = name in hub.bot.analysis.paused
        action = hub.actions.resume if is_paused else hub.actions.pause
        act(action, name, said=f"{name} {'tells again' if is_paused else 'is paused'}")

    async def attempt() -> None:
        if not hub.has_store:
            said.set_text(f"{NOTHING_KEPT.capitalize()}.")
            return
        attempting.props("disabled")
        said.set_text("Trying: the kept past is gone through, which takes from seconds to some minutes.")
        try:
            trial = await hub.try_rule(changed())
            said.set_text(
                f"It would have told {trial.told} times in {trial.days:.1f} days, {trial.per_day:g} a day"
                f" ({trial.alerts} alerts before those of one minute are merged)."
            )
        except TrialRunning as error:
            said.set_text(f"{str(error).capitalize()}.")
        except ConfigurationError as error:
            said.set_text(str(error))
        finally:
            attempting.props(remove="disabled")

    def changed() -> Rule:
        one = record.settings[setting.value or 0]
        if value.value is None:
            raise ConfigurationError(one.name, None, "a number")
        return changed_rule(hub, name, one.condition, one.name, float(value.value))

    def save() -> None:
        try:
            rule = changed()
        except ConfigurationError as error:
            said.set_text(str(error))
            return
        if act(hub.actions.change_rule, rule, said=f"{name} is changed"):
            said.set_text(
                f"In force until the program ends. To keep it, put this into a file of rules:\n{to_toml(rule)}"
            )

    def update(new: RuleRecord) -> None:
        state.set_text("paused" if new.is_paused else "tag, shown beside alerts" if new.is_tag else "in force")
        name_button(pause, "resume" if new.is_paused else "pause")
        text.set_text(new.text)
        shown["signals"].set_text(str(new.signals_today))
        shown["alerts"].set_text(str(new.alerts_today))
        shown["suppressed"].set_text(str(new.suppressed_today))
        shown["hits"].set_text("not known yet" if new.hit_rate is None else f"{new.hit_rate:.0%} of {new.judged}")
        budget.set_text(new.budget)

    return update
