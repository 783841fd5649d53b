"""What all views share: the head of a page, and the small parts that pages are made of."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

from nicegui import context, events, ui

from perpwatch.app.api_security import address_of
from perpwatch.app.dashboard.shown import shown_access
from perpwatch.errors import ConfigurationError
from perpwatch.model import Trust

VIEWS = (("/", "Market"), ("/signals", "Signals"), ("/health", "Watch health"), ("/rules", "Rules"))
#: Seconds between two looks of a page.
LOOK_S, SLOW_LOOK_S = 1.0, 5.0
#: Holds "dark" or "light" where somebody chose; without it pages follow the system.
THEME_COOKIE = "perpwatch_theme"
TRUST_WORDS = {
    Trust.VERIFIED: "streamed or read, and the exchange's history agrees",
    Trust.STREAMED: "whole from the stream",
    Trust.REPAIRED: "lost, and read back",
    Trust.QUIET: "nobody traded, and the 24 h volume stood still",
    Trust.UNKNOWN: "nobody can say",
}


# --- Acting ----------------------------------------------------------------------------------------------------------


def _may_act() -> str:
    """Why whoever looks at this page may not act; empty when he may."""
    access = shown_access()
    if not access.has_token:
        return "Actions are off: set dashboard.token and restart."
    if not access.is_signed_in(context.client.request.cookies):
        return "Sign in to act."
    refusal = access.action_refusal(address_of(context.client.request))
    return refusal.detail if refusal is not None else ""


def act(action: Any, *arguments: Any, said: str) -> bool:
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
    return shown_access().who(context.client.request)


# --- The frame -------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def frame(path: str, *, needs_pulse: bool = True) -> Iterator[None]:
    """Head, stale banner and the page's body."""
    ui.add_head_html('<link rel="stylesheet" href="/static/perpwatch.css">')
    ui.add_body_html('<script src="/static/perpwatch.js"></script>')
    if needs_pulse:
        ui.add_body_html("<script>perpwatch.pulseOnly()</script>")
    chosen = context.client.request.cookies.get(THEME_COOKIE)
    dark = ui.dark_mode(value={"dark": True, "light": False}.get(chosen or ""))

    def on_theme(event: events.GenericEventArguments) -> None:
        dark.set_value(event.args == "dark")

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
                'id=pw-search placeholder="Search a contract  ( / )" aria-label="Search a contract" autocomplete=off'
            )
            ui.element("div").classes("pw-found").props("id=pw-found role=listbox")
        ui.element("button").classes("pw-button pw-theme").props('aria-label="dark or light" title="dark or light"').on(
            "click", on_theme, js_handler=f"() => emit(perpwatch.flipTheme('{THEME_COOKIE}'))"
        ).add_slot("default", "◐")
        access = shown_access()
        if access.has_token and not access.is_signed_in(context.client.request.cookies):
            ui.link("Sign in", f"/login?next={quote(path)}").classes("pw-button")
    ui.element("div").classes("pw-stale").props("id=pw-stale role=alert hidden")
    ui.element("div").classes("pw-note").props("id=pw-note hidden")
    with ui.element("main").classes("pw-main"):
        yield


# --- Parts -----------------------------------------------------------------------------------------------------------


def button(text: str, on_click: Any, *, label: str = "") -> ui.element:
    made = ui.element("button").classes("pw-button").on("click", on_click)
    if label:
        made.props(f'aria-label="{label}"')
    with made:
        ui.label(text).style("display:inline")
    return made


def name_button(made: ui.element, text: str) -> None:
    """Change what a button says."""
    (label,) = made.default_slot.children
    assert isinstance(label, ui.label)
    label.set_text(text)


@contextlib.contextmanager
def panel(title: str = "", *, note: str = "") -> Iterator[None]:
    with ui.element("section").classes("pw-panel"):
        if title:
            with ui.element("h2"):
                ui.label(title).style("display:inline")
                if note:
                    ui.label(note).classes("pw-aside")
        yield


def figures(names: Sequence[tuple[str, str] | tuple[str, str, str]]) -> dict[str, ui.label]:
    """Large figures with their names, and what they mean where that is worth a word; returns the labels by key."""
    labels = {}
    with ui.element("div").classes("pw-figures"):
        for key, name, *meaning in names:
            with ui.element("div").classes("pw-figure") as figure:
                with ui.element("b"):
                    labels[key] = ui.label("–").props(f"data-figure={key}")
                with ui.element("span"):
                    ui.label(name)
            if meaning:
                figure.props(f'title="{meaning[0]}"')
    return labels


def trust_legend(colours: dict[Trust, str]) -> None:
    """What the colours of trust mean."""
    with ui.element("div").classes("pw-legend"):
        for trust, colour in colours.items():
            with ui.element("span").props(f'title="{TRUST_WORDS[trust]}"'):
                ui.element("i").style(f"background: {colour}")
                ui.label(trust.value).style("display:inline")


def lines(column: ui.element, texts: Sequence[str]) -> None:
    """The texts as lines; touched only when they changed."""
    labels = [one for one in column.default_slot.children if isinstance(one, ui.label)]
    if [one.text for one in labels] != list(texts):
        column.clear()
        with column:
            for text in texts:
                ui.label(text)


def clock(time_ms: int, now_ms: int = 0) -> str:
    """A time of day, with its date where that is not today's."""
    time = datetime.datetime.fromtimestamp(time_ms / 1_000, datetime.UTC)
    now = datetime.datetime.fromtimestamp((now_ms or time_ms) / 1_000, datetime.UTC)
    return f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%d %b %H:%M:%S}"
