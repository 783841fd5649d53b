"""Other services by apprise, against local servers over real sockets."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from email.message import EmailMessage

import pytest
from mail_server import MailServer
from told import card, notice, operational_notice

from perpwatch.alert.card import Card
from perpwatch.alert.senders.apprise_process import AppriseProcess
from perpwatch.alert.senders.apprise_url import AppriseSender
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed
from perpwatch.sim.webhook import Answer, Fault, WebhookServer

PICTURE = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
NOBODY = "127.0.0.1:1"


def sender_to(url: str, timeout_s: float = 10.0) -> AppriseSender:
    return AppriseSender(url, Turns.unlimited(), timeout_s=timeout_s)


def mail_url(port: int, password: str = "pa55-word") -> str:
    return f"mailto://watch:{password}@127.0.0.1:{port}/?smtp=127.0.0.1&from=watch@example.com&to=me@example.com"


@contextlib.asynccontextmanager
async def http() -> AsyncIterator[WebhookServer]:
    """A server that takes whatever is posted."""
    async with WebhookServer("") as server:
        yield server


def parts(letter: EmailMessage) -> dict[str, str | bytes]:
    return {part.get_content_type(): part.get_content() for part in letter.walk() if not part.is_multipart()}


async def test_a_letter_has_the_title_as_subject_the_lines_as_html_and_the_chart() -> None:
    async with MailServer("pa55-word") as server:
        sender = sender_to(mail_url(server.port))
        assert sender.takes_pictures
        await sender.send(card(picture=PICTURE), [notice()])
        (letter,) = server.letters
    assert letter["Subject"] == "▲ MOG_USDT +4.4 % in 1 min"
    assert letter["To"] == "me@example.com"
    shown = parts(letter)
    assert "volume 113 × its usual<br/>" in str(shown["text/html"])
    assert '<a href="https://futures.mexc.com/exchange/MOG_USDT">' in str(shown["text/html"])
    assert shown["image/png"] == PICTURE


async def test_names_of_the_exchange_are_neither_html_nor_headers_of_a_letter() -> None:
    async with MailServer("pa55-word") as server:
        one = Card("A\r\nBcc: all@example.com <b>", ("<script>x</script> & co",))
        await sender_to(mail_url(server.port)).send(one, [notice()])
        (letter,) = server.letters
    assert letter["Bcc"] is None
    assert letter["Subject"] == "A Bcc: all@example.com <b>"
    assert "&lt;script&gt;x&lt;/script&gt; &amp; co" in str(parts(letter)["text/html"])


async def test_a_mail_server_that_refuses_is_a_failure_with_its_reason_and_without_the_password() -> None:
    async with MailServer("another") as server:
        with pytest.raises(DeliveryFailed) as caught:
            await sender_to(mail_url(server.port)).send(card(), [notice()])
    assert "pa55-word" not in caught.value.reason
    assert "me@example.com" not in caught.value.reason
    assert caught.value.reason
    async with MailServer("pa55-word") as server:
        sender = sender_to(mail_url(server.port))
        for reply in ("451 try later", "552 full", ""):
            server.replies.append(reply)
            with pytest.raises(DeliveryFailed):
                await sender.send(card(), [notice()])
        await sender.send(card(), [notice()])
        assert len(server.letters) == 1


async def test_a_slow_letter_is_waited_for_and_not_sent_twice() -> None:
    async with MailServer("pa55-word") as server:
        server.pause_s = 0.6
        sender = sender_to(mail_url(server.port), timeout_s=0.2)
        with pytest.raises(DeliveryFailed, match=r"no answer within 0\.2 s"):
            await sender.send(card(), [notice()])
        await until_told(sender, 0)
        assert len(server.letters) == 1


async def test_ntfy_gets_text_and_tokens_are_shown_nowhere() -> None:
    async with http() as server:
        sender = sender_to(f"ntfy://tk_t0ps3cret@127.0.0.1:{server.port}/my-room?auth=token")
        server.faults.append(Answer(200, "{}"))
        await sender.send(card(), [notice()])
        sent = json.loads(server.received[-1].body)
        assert sent["topic"] == "my-room"
        assert sent["title"] == "▲ MOG_USDT +4.4 % in 1 min"
        assert sent["message"].splitlines()[:2] == ["volume 113 × its usual", "the rarest minute in 11 days"]
        for fault in (Answer(403, "tk_t0ps3cret"), Answer(429), Answer(500), Fault.RESET):
            server.faults.append(fault)
            with pytest.raises(DeliveryFailed) as caught:
                await sender.send(card(), [notice()])
            assert "t0ps3cret" not in caught.value.reason
            assert "my-room" not in caught.value.reason
            assert "ntfy" in caught.value.reason
        assert "t0ps3cret" not in repr(sender) + sender.destination


async def test_a_chat_gets_markdown_in_which_nothing_is_markup_and_nobody_is_called() -> None:
    async with http() as server:
        sender = sender_to(f"mmost://127.0.0.1:{server.port}/{'a' * 26}")
        server.faults.append(Answer(200))
        await sender.send(Card("*A* @all", ("[b](http://c) _d_ <!channel>",)), [notice()])
        text = json.loads(server.received[-1].body)["text"]
    assert "*A*" not in text.replace(r"\*", "")
    assert "@all" not in text
    assert "<!channel>" not in text
    assert "](http" not in text


async def test_a_program_gets_text_as_it_is_the_chart_and_a_colour() -> None:
    async with http() as server:
        sender = sender_to(f"json://127.0.0.1:{server.port}/in")
        server.faults += [Answer(200), Answer(200)]
        await sender.send(card("*A*", picture=PICTURE), [notice()])
        await sender.send(card(), [operational_notice()])
        first, second = (json.loads(one.body) for one in server.received)
    assert (first["title"], first["type"]) == ("*A*", "failure")
    assert first["attachments"][0]["mimetype"] == "image/png"
    assert base64.b64decode(first["attachments"][0]["base64"]) == PICTURE
    assert second["type"] == "success"


@pytest.mark.parametrize(
    ("url", "spelling"),
    [
        ("https://discord.com/api/webhooks/123456789012345678/" + "a" * 68, "markdown"),
        # Its markup has no escapes, so that it gets none.
        ("https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ", "text"),
        ("mailto://watch:secret@example.com", "html"),
        ("mailto://watch:secret@example.com?format=text", "text"),
    ],
    ids=["discord", "slack", "mail", "mail as text"],
)
def test_a_service_is_told_in_the_spelling_in_which_nothing_is_taken_for_markup(url: str, spelling: str) -> None:
    process = AppriseProcess(url)
    assert process.start().format == spelling
    process.close()


async def test_a_redirect_is_not_followed() -> None:
    async with http() as server:
        sender = sender_to(f"json://127.0.0.1:{server.port}/in")
        server.faults.append(Answer(307, headers={"Location": f"http://127.0.0.1:{server.port}/elsewhere"}))
        with pytest.raises(DeliveryFailed):
            await sender.send(card(), [notice()])
        assert len(server.received) == 1


async def test_what_apprise_would_try_again_or_let_fail_unseen_is_ours_to_try_again() -> None:
    sender = sender_to(f"json://{NOBODY}/?optional=yes&retry=5&wait=3")
    async with asyncio.timeout(3):
        with pytest.raises(DeliveryFailed):
            await sender.send(card(), [notice()])


@pytest.fixture
def logged() -> Iterator[list[str]]:
    """What the program's own log would show of everything."""
    lines: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    root, listener = logging.getLogger(), Listener()
    level = root.level
    root.setLevel(logging.DEBUG)
    root.addHandler(listener)
    yield lines
    root.removeHandler(listener)
    root.setLevel(level)


async def test_nothing_of_a_url_reaches_the_logs(logged: list[str]) -> None:
    async with http() as server:
        sender = sender_to(f"ntfy://tk_t0ps3cret@127.0.0.1:{server.port}/my-room?auth=token")
        server.faults += [Answer(200, "{}"), Answer(500)]
        await sender.send(card(), [notice()])
        with pytest.raises(DeliveryFailed):
            await sender.send(card(), [notice()])
    with pytest.raises(ValueError, match="Discord"):
        sender_to("discord://t0ps3cret")
    assert not [line for line in logged if "s3cret" in line or "my-room" in line]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("tgram://123456789:t0ps3cret-token-of-mine/42", 'type = "telegram"'),
        ("t0ps3cret", "give an apprise URL"),
        ("nosuch://t0ps3cret/room", "cannot use this URL"),
        ("discord://t0ps3cret", "Discord"),
        ("xmpp://me:t0ps3cret@example.com", "xmpp"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_shown(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        sender_to(url)
    assert "t0ps3cret" not in str(caught.value)


async def until_told(sender: AppriseSender, number: int) -> None:
    """Try again as the delivery does."""
    async with asyncio.timeout(10):
        while True:
            try:
                await sender.send(card(), [notice(number)])
                return
            except DeliveryFailed:
                await asyncio.sleep(0.05)


async def test_a_process_that_has_died_is_started_again() -> None:
    async with MailServer("pa55-word") as server:
        sender = sender_to(mail_url(server.port))
        await sender.send(card(), [notice(1)])
        before = sender.process.pid
        assert before is not None
        os.kill(before, signal.SIGKILL)
        await until_told(sender, 2)
        assert len(server.letters) == 2
        after = sender.process.pid
        assert after is not None
        assert after != before
        await sender.close()
    with pytest.raises(ProcessLookupError):
        os.kill(after, 0)  # nobody is left


async def test_closing_does_not_wait_for_a_service_that_hangs() -> None:
    async with MailServer("pa55-word") as server:
        server.pause_s = 30.0
        sender = sender_to(mail_url(server.port))
        sending = asyncio.create_task(sender.send(card(), [notice()]))
        async with asyncio.timeout(10):
            while not server.received_s:
                await asyncio.sleep(0.05)
            await sender.close()
            with pytest.raises(DeliveryFailed, match="ended before it answered"):
                await sending


def test_apprise_is_read_by_its_process_alone_and_the_url_stands_in_no_argument() -> None:
    program = """
import pathlib, sys
from perpwatch.alert.senders.apprise_process import AppriseProcess
from perpwatch.alert.senders.apprise_url import AppriseSender
from perpwatch.alert.turns import Turns
sender = AppriseSender("ntfy://t0ps3cret", Turns.unlimited())
pid = sender.process.pid
print("apprise" in sys.modules, "t0ps3cret" in pathlib.Path(f"/proc/{pid}/cmdline").read_text())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("False False\n", "")
