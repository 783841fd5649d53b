"""The terminal and the desktop of the one who runs the program."""

from __future__ import annotations

import asyncio
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from rich.console import Console
from told import card, notice

from perpwatch.alert.card import Card
from perpwatch.alert.senders.console import ConsoleSender
from perpwatch.alert.senders.desktop import DesktopSender, desktop_command
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed
from perpwatch.model import Level

#: A program in the place of the desktop's, that writes down what it was asked to show.
SHOWS = f"""#!{sys.executable}
import json, os, sys, time
if "slow" in sys.argv[-2]:
    time.sleep(60)
if "nobody" in sys.argv[-2]:
    sys.exit("GDBus.Error:\\nno such service")
with open(os.path.join(os.path.dirname(__file__), "shown"), "w") as file:
    json.dump(sys.argv[1:], file)
"""


async def printed(one: Card) -> str:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, color_system="standard", width=40)
    await ConsoleSender(console, Turns.unlimited()).send(one, [notice()])
    return screen.getvalue()


async def test_a_card_is_printed_with_its_reasons_footer_and_address() -> None:
    screen = io.StringIO()
    sender = ConsoleSender(Console(file=screen, width=40), Turns.unlimited())
    assert await sender.send(card(), [notice()]) == ""
    assert screen.getvalue() == (
        "▲ MOG_USDT +4.4 % in 1 min\n  volume 113 × its usual\n  the rarest minute in 11 days\n"
        "  data straight from the stream · 0.3 s\n  https://futures.mexc.com/exchange/MOG_USDT\n"
    )


async def test_what_comes_from_outside_is_no_markup_and_commands_no_terminal() -> None:
    text = await printed(Card("[red]A[/red] [link=http://evil]\x1b]0;title\x07", ("\x1b[2J\r\u202egone", "a\nb")))
    assert "[red]A[/red] [link=http://evil] ]0;title" in text
    assert "\x1b[2J" not in text
    assert "\x1b]" not in text
    assert not {"\x07", "\r", "\u202e"} & set(text)
    assert len(text.splitlines()) == 3


async def test_a_terminal_that_is_gone_is_a_failure() -> None:
    screen = io.StringIO()
    sender = ConsoleSender(Console(file=screen), Turns.unlimited())
    screen.close()
    with pytest.raises(DeliveryFailed, match="terminal cannot be written"):
        await sender.send(card(), [notice()])


async def test_a_terminal_that_takes_nothing_delays_nobody() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as reader, os.fdopen(writing, "w", buffering=1) as writer:
        sender = ConsoleSender(Console(file=writer, width=200), Turns.unlimited())
        full = Card("x" * 200_000)
        task = asyncio.create_task(sender.send(full, [notice()]))
        for _ in range(5):
            await asyncio.sleep(0.01)  # the loop turns
        assert not task.done()
        os.set_blocking(reader.fileno(), False)
        async with asyncio.timeout(5):
            while not task.done():
                reader.read(65_536)
                await asyncio.sleep(0.01)
        assert await task == ""


@pytest.fixture
def desktop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desktop session with a program that shows notifications."""
    program = tmp_path / "notify-send"
    program.write_text(SHOWS)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nowhere")
    return tmp_path


linux = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="they have no notify-send")


@linux
async def test_a_notification_has_title_text_and_urgency_and_nothing_in_it_is_an_option(desktop: Path) -> None:
    sender = DesktopSender(desktop_command(), Turns.unlimited())
    await sender.send(Card("--help <b>", ("<i>5 & 6</i>", *"abcd"), "fresh"), [notice()])
    assert (desktop / "shown").read_text() == (
        '["--app-name=perpwatch", "--urgency=critical", "--", "--help <b>", '
        '"&lt;i&gt;5 &amp; 6&lt;/i&gt;\\na\\nb\\nc\\nfresh"]'
    )


@linux
async def test_a_desktop_that_shows_nothing_is_a_failure_with_its_reason(
    desktop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sender = DesktopSender(desktop_command(), Turns.unlimited())
    with pytest.raises(DeliveryFailed, match=r"notify-send failed: GDBus\.Error: no such service"):
        await sender.send(card("nobody"), [notice()])
    monkeypatch.setattr("perpwatch.alert.senders.desktop.TIMEOUT_S", 0.3)
    with pytest.raises(DeliveryFailed, match=r"did not end within 0\.3 s"):
        await sender.send(card("slow"), [notice()])
    (desktop / "notify-send").unlink()
    with pytest.raises(DeliveryFailed, match="cannot be started"):
        await sender.send(card(), [notice()])


@linux
def test_no_desktop_is_said_at_the_start(desktop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DBUS_SESSION_BUS_ADDRESS")
    monkeypatch.setattr(os, "getuid", lambda: 987_654)
    with pytest.raises(ValueError, match="no desktop session here"):
        desktop_command()
    (desktop / "notify-send").unlink()
    with pytest.raises(ValueError, match="libnotify"):
        desktop_command()


def test_other_systems_have_their_own_way_or_a_word_of_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    arguments: Sequence[str] = desktop_command()("title", 'text" & (do shell script "x")', Level.NOTICE)
    assert arguments[0] == "osascript"
    assert arguments[-2:] == ("title", 'text" & (do shell script "x")')
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(ValueError, match="not on Windows"):
        desktop_command()
