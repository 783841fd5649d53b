"""The webhook over real sockets, against a receiver that looks closely."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import email.utils
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema_rs
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from told import card, market_notice, notice, operational_notice, update

from perpwatch.alert.notice import Notice, message_key
from perpwatch.alert.senders.webhook import MAX_ANSWER_BYTES, WebhookSender, retry_after
from perpwatch.alert.senders.webhook_message import schema, schema_text
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryError, DeliveryFailed, DeliveryRefused
from perpwatch.sim.webhook import Answer, Fault, WebhookServer

ROOT = Path(__file__).parent.parent.parent
SECRET = "a-secret-of-the-two-of-us"


@contextlib.asynccontextmanager
async def sending(server: WebhookServer, **options: Any) -> AsyncIterator[WebhookSender]:
    sender = WebhookSender(options.pop("url", server.url), SECRET, Turns.unlimited(), **options)
    try:
        yield sender
    finally:
        await sender.close()


async def failure_of(sender: WebhookSender) -> DeliveryError:
    """How a message is not taken."""
    with pytest.raises(DeliveryError) as caught:
        await sender.send(card(), [notice()])
    return caught.value


async def test_a_message_is_signed_and_holds_the_card_and_what_is_behind_it() -> None:
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        receipt = await sender.send(card(), [notice()])
        assert receipt == notice().key
        assert server.forged == []
        (request,) = server.received
        assert request.headers["Content-Type"] == "application/json"
        message = server.messages[notice().key]
    assert message["version"] == 1
    assert message["id"] == notice().key
    assert message["follows"] is None
    assert message["title"] == "▲ MOG_USDT +4.4 % in 1 min"
    assert message["lines"] == ["volume 113 × its usual", "the rarest minute in 11 days"]
    (told,) = message["notices"]
    assert (told["kind"], told["symbol"], told["level"], told["asset_class"]) == (
        "alert",
        "MOG_USDT",
        "extreme",
        "coin",
    )
    assert told["alert"]["price"] == 0.0000004123
    assert told["alert"]["reasons"] == [
        {"name": "turnover_ratio", "value": 113.0, "unit": "x", "text": "volume 113 × its usual"}
    ]


async def test_a_receiver_with_another_secret_or_another_clock_does_not_believe_it() -> None:
    async with WebhookServer(SECRET + "!") as server, sending(server) as sender:
        assert isinstance(await failure_of(sender), DeliveryRefused)
        assert server.forged == ["wrong signature"]
    async with WebhookServer(SECRET, wall_s=lambda: time.time() + 301.0) as server, sending(server) as sender:
        assert str(await failure_of(sender)) == "HTTP 401: stale signature"


@pytest.mark.parametrize(
    "told",
    [[notice()], [update()], [market_notice()], [operational_notice()], [notice(1), notice(2)]],
    ids=["alert", "update", "market", "operational", "digest"],
)
async def test_what_is_sent_keeps_to_the_published_schema(told: list[Notice]) -> None:
    published = json.loads((ROOT / "docs" / "webhook.schema.json").read_text(encoding="utf-8"))
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        await sender.send(card(), told)
        (message,) = server.messages.values()
    jsonschema_rs.validator_for(published).validate(message)
    del message["notices"][0]["thread"]
    with pytest.raises(jsonschema_rs.ValidationError):
        jsonschema_rs.validator_for(published).validate(message)


def test_the_published_schema_is_the_one_of_the_program() -> None:
    published = (ROOT / "docs" / "webhook.schema.json").read_text(encoding="utf-8")
    assert published == schema_text(), "perpwatch alerts schema > docs/webhook.schema.json"
    jsonschema_rs.meta.validate(schema())


async def test_a_digest_has_one_key_whatever_the_order() -> None:
    assert message_key([notice(1), notice(2)]) == message_key([notice(2), notice(1)])
    assert message_key([notice(1), notice(2)]) != message_key([notice(1), notice(3)])
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        for told in ([notice(1), notice(2)], [notice(2), notice(1)]):
            await sender.send(card("two"), told)
        assert len(server.received) == 2
        assert list(server.messages) == [message_key([notice(1), notice(2)])]


async def test_a_key_that_no_header_can_hold_is_percent_encoded_there() -> None:
    symbol = "龙虾_USDT\r\nX-Evil: 1 50%"
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        await sender.send(card(), [notice(symbol=symbol)])
        (request,) = server.received
        assert "X-Evil" not in request.headers
        assert request.key == "%E9%BE%99%E8%99%BE_USDT%0D%0AX-Evil: 1 50%25:Min1:0:0"
        assert server.messages[request.key]["id"] == f"{symbol}:Min1:0:0"


async def test_a_later_message_of_a_thread_names_the_one_that_it_follows() -> None:
    async with WebhookServer(SECRET) as server, sending(server, shows_updates=True) as sender:
        assert sender.can_edit
        receipt = await sender.send(card(), [notice()])
        await sender.edit(receipt, card(), [update()])
        first, second = server.messages.values()
    assert second["follows"] == first["id"]
    assert second["id"] != first["id"]
    development = second["notices"][0]["development"]
    assert development["is_over"] is True
    # What is not known is null, since JSON has no such number.
    assert development["outcome"]["after"][0] == {"minutes": 5, "forward": 0.01, "best": 0.02, "worst": None}


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_pass_is_worth_another_try(status: int) -> None:
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        server.faults.append(Answer(status, headers={"Retry-After": "7"}))
        failure = await failure_of(sender)
        assert isinstance(failure, DeliveryFailed)
        assert failure.retry_after_s == 7.0
        # After an error that does not say so, the message may have been taken; it is sent again as it was.
        assert failure.may_be_shown is (status not in (425, 429, 503))
        assert failure.reason.startswith(f"HTTP {status}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413, 422])
async def test_what_will_not_pass_is_refused(status: int) -> None:
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        server.faults.append(Answer(status, "no\n such \x1b[31mroom"))
        failure = await failure_of(sender)
        assert isinstance(failure, DeliveryRefused)
        assert failure.reason == f"HTTP {status}: no such [31mroom"


async def test_a_redirect_is_not_followed() -> None:
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        server.faults.append(Answer(307, headers={"Location": server.url}))
        failure = await failure_of(sender)
        assert isinstance(failure, DeliveryRefused)
        assert "redirects" in failure.reason
        assert len(server.received) == 1


def test_a_pause_is_asked_for_in_seconds_or_until_a_date() -> None:
    now_s = 1_760_000_000.0
    date = email.utils.format_datetime(datetime.datetime.fromtimestamp(now_s + 90, datetime.UTC), usegmt=True)
    assert retry_after("120", now_s) == 120.0
    assert retry_after(date, now_s) == 90.0
    assert retry_after(date, now_s + 1_000) == 0.0
    assert retry_after("999999", now_s) == 3_600.0
    for nonsense in ("", "soon", "-5", "1.5", "²", "Mon, 99 Foo 2026"):
        assert retry_after(nonsense, now_s) is None


@pytest.mark.parametrize("fault", [Fault.RESET, Fault.SILENT, Fault.LOST_ANSWER])
async def test_what_goes_wrong_on_the_way_is_worth_another_try(fault: Fault) -> None:
    async with WebhookServer(SECRET) as server, sending(server, timeout_s=0.3) as sender:
        server.faults.append(fault)
        failure = await failure_of(sender)
        assert isinstance(failure, DeliveryFailed)
        assert failure.may_be_shown
        await sender.send(card(), [notice()])
        assert list(server.messages) == [notice().key]


async def test_nobody_there_is_worth_another_try() -> None:
    async with WebhookServer(SECRET) as server:
        url = server.url
    async with sending(server, url=url) as sender:
        failure = await failure_of(sender)
        assert isinstance(failure, DeliveryFailed)
        assert failure.reason == "no connection: Connection refused"
        assert not failure.may_be_shown


async def test_the_address_is_shown_nowhere() -> None:
    async with WebhookServer(SECRET) as server, sending(server) as sender:
        secret = "/alerts/t0ps3cret?room=r00mkey"
        server.faults += [Answer(404, f"Cannot POST {secret}"), Answer(500, f"at {server.url}"), Fault.RESET]
        shown = [(await failure_of(sender)).reason for _ in range(3)]
        shown += [sender.destination, repr(sender)]
        assert shown[0] == "HTTP 404: Cannot POST ***"
    assert not [text for text in shown if "t0ps3cret" in text or "r00mkey" in text or SECRET in text]


async def test_an_answer_without_end_is_not_read_to_the_end() -> None:
    sent = 0

    async def flood(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse(status=200 if request.query else 500)
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            while sent < 50_000_000:
                await response.write(b"x" * 65_536)
                sent += 65_536
        return response

    application = web.Application()
    application.router.add_post("/", flood)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with asyncio.timeout(5), sending(WebhookServer(SECRET), url=url) as sender:
            failure = await failure_of(sender)
            assert len(failure.reason) < 300 < MAX_ANSWER_BYTES
        async with asyncio.timeout(5), sending(WebhookServer(SECRET), url=url + "?take") as sender:
            await sender.send(card(), [notice()])
        assert sent < 50_000_000
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("url", "secret", "reason"),
    [
        ("ftp://host/t0ps3cret", SECRET, "https://"),
        ("https:///t0ps3cret", SECRET, "https://"),
        ("https://me:t0ps3cret@host/", SECRET, "no user and password"),
        ("https://host/", "short", "at least 16 characters"),
    ],
)
def test_an_address_or_a_secret_that_cannot_be_used_is_refused_without_being_shown(
    url: str, secret: str, reason: str
) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        WebhookSender(url, secret, Turns.unlimited())
    assert "t0ps3cret" not in str(caught.value)
    assert "short" not in str(caught.value)


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for this machine that nobody knows, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "receiver")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "receiver.pem", folder / "receiver.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


async def test_a_certificate_is_believed_only_from_an_authority_that_is_known(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(chain, key)
    async with WebhookServer(SECRET, tls=context) as server:
        async with sending(server) as sender:
            failure = await failure_of(sender)
            assert isinstance(failure, DeliveryFailed)
            assert "certificate is not trusted" in failure.reason
            assert server.received == []
        async with sending(server, ca_file=chain) as sender:
            await sender.send(card(), [notice()])
            assert list(server.messages) == [notice().key]


async def test_the_receiver_of_the_examples_takes_each_message_once_and_believes_nobody_else() -> None:
    receiver = await asyncio.create_subprocess_exec(
        *(sys.executable, str(ROOT / "examples" / "webhook_receiver.py"), "--duration", "30"),
        stdout=subprocess.PIPE,
        env=os.environ | {"WEBHOOK_SECRET": SECRET},
    )
    assert receiver.stdout is not None
    try:
        async with asyncio.timeout(20):
            url = (await receiver.stdout.readline()).decode().split()[-1]
            for secret in (SECRET + "!", SECRET, SECRET):
                sender = WebhookSender(url, secret, Turns.unlimited())
                try:
                    await sender.send(card(f"told with {len(secret)}"), [notice()])
                except DeliveryRefused as refused:
                    assert refused.reason.startswith("HTTP 401")  # noqa: PT017
                finally:
                    await sender.close()
            forged = {"Perpwatch-Signature": "t=1,v1=é"}
            async with aiohttp.ClientSession() as forger, forger.post(url, data=b"{}", headers=forged) as answer:
                assert answer.status == 401
            receiver.terminate()
            printed = (await receiver.stdout.read()).decode()
    finally:
        if receiver.returncode is None:
            receiver.kill()
        await receiver.wait()
    assert printed.count("told with") == 1
    assert f"told with {len(SECRET)}\n  volume 113" in printed
