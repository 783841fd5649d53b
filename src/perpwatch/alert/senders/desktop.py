"""Alerts as notifications of the desktop on which the program runs."""

from __future__ import annotations

import asyncio
import html
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice, highest_level
from perpwatch.alert.spelling import cleaned
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed, DeliveryRefused
from perpwatch.model import Level

#: A notification is taken within milliseconds, or nobody is there to take it.
TIMEOUT_S = 5.0
#: Desktops show no more.
MAX_LINES = 4
_URGENCY = {Level.NOTICE: "normal", Level.STRONG: "normal", Level.EXTREME: "critical"}
#: Title and text are handed to AppleScript as arguments, so that nothing in them is code.
_APPLE_SCRIPT = ("on run argv", "display notification (item 2 of argv) with title (item 1 of argv)", "end run")

Command = Callable[[str, str, Level], Sequence[str]]


class DesktopSender:
    """Shows cards on this desktop.

    Args:
        command: the program that shows a title and a text, with its arguments; :func:`desktop_command` finds it.
    """

    can_edit = False
    takes_pictures = False
    destination = "desktop"

    def __init__(self, command: Command, turns: Turns) -> None:
        self.turns = turns
        self._command = command

    async def send(self, card: Card, notices: Sequence[Notice]) -> str:
        lines = [*card.lines[:MAX_LINES], *([card.footer] if card.footer else [])]
        level = highest_level(notices)
        arguments = self._command(cleaned(card.title), "\n".join(map(cleaned, lines)), level)
        async with self.turns.turn(self.destination):
            await _run(arguments)
        return ""

    async def edit(self, receipt: str, card: Card, notices: Sequence[Notice]) -> None:
        raise DeliveryRefused("a notification that was shown stays as it is")

    async def close(self) -> None:
        return


def desktop_command() -> Command:
    """How a notification is shown on this machine.

    Raises:
        ValueError: it cannot be, and why.
    """
    if sys.platform == "darwin":
        return _apple
    if sys.platform == "win32":
        raise ValueError('not on Windows; use type = "apprise", for instance with ntfy and its desktop program')
    program = shutil.which("notify-send")
    if program is None:
        raise ValueError("needs the program notify-send (package libnotify-bin, or libnotify)")
    bus = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or f"/run/user/{os.getuid()}/bus"
    if bus.startswith("/") and not Path(bus).exists():
        raise ValueError("no desktop session here: DBUS_SESSION_BUS_ADDRESS is not set, and there is no " + bus)
    return lambda title, text, level: _free_desktop(program, title, text, level)


def _free_desktop(program: str, title: str, text: str, level: Level) -> Sequence[str]:
    # The text may hold markup by the desktop's own rules, the title may not.
    options = ("--app-name=perpwatch", f"--urgency={_URGENCY[level]}")
    return (program, *options, "--", title, html.escape(text, quote=False))


def _apple(title: str, text: str, level: Level) -> Sequence[str]:
    return ("osascript", *(word for line in _APPLE_SCRIPT for word in ("-e", line)), title, text)


async def _run(arguments: Sequence[str]) -> None:
    program = Path(arguments[0]).name
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise DeliveryFailed(f"{program} cannot be started: {error.strerror}", may_be_shown=False) from error
    try:
        async with asyncio.timeout(TIMEOUT_S):
            _, said = await process.communicate()
    except TimeoutError as error:
        raise DeliveryFailed(f"{program} did not end within {TIMEOUT_S:g} s") from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode:
        reason = " ".join(said.decode(errors="replace").split())[:200]
        raise DeliveryFailed(f"{program} failed: {reason or f'exit code {process.returncode}'}", may_be_shown=False)
