"""Alerts for programs: signed JSON posted to an address.

``Perpwatch-Signature: t=SECONDS,v1=HEX`` proves who sent a request and when: HEX is the HMAC-SHA256, under the shared
secret, of the bytes of ``SECONDS.BODY``. ``Idempotency-Key`` is the same for every delivery of one message, so that a
receiver that has answered and was not heard can drop the repetition.
"""

from __future__ import annotations

import datetime
import email.utils
import hashlib
import hmac
import os
import ssl
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, unquote, urlsplit

import aiohttp
import msgspec

from perpwatch.alert.card import Card
from perpwatch.alert.notice import Notice
from perpwatch.alert.senders.webhook_message import webhook_message
from perpwatch.alert.spelling import cleaned
from perpwatch.alert.turns import Turns
from perpwatch.errors import DeliveryFailed, DeliveryRefused

SIGNATURE_HEADER = "Perpwatch-Signature"
#: Of a refusal's text so much is read, and shown.
MAX_ANSWER_BYTES = 2_048
MAX_REASON_CHARACTERS = 200
#: Nobody makes us wait longer before the next try.
MAX_RETRY_AFTER_S = 3_600.0
#: A shorter secret can be guessed.
MIN_SECRET_BYTES = 16
#: Statuses below 500 after which the same request may be taken: time out, too early, too many.
_WORTH_ANOTHER_TRY = frozenset({408, 425, 429})
#: Statuses that say that nothing was done. After another error of a server, or of one before it, that is not known.
_NOT_TAKEN = frozenset({425, 429, 503})
_encoder = msgspec.json.Encoder()


class WebhookSender:
    """One address.

    Args:
        url: http or https; where it holds a token, that is shown nowhere.
        secret: shared with the receiver.
        turns: when one may be sent.
        shows_updates: how episodes go on is posted, too.
        ca_file: certificates to trust instead of the system's.
        wall_s: our clock, seconds since 1970.
    Raises:
        ValueError: an address, a secret or certificates that cannot be used; the text shows no secret.
    """

    takes_pictures = False

    def __init__(
        self,
        url: str,
        secret: str,
        turns: Turns,
        *,
        timeout_s: float = 10.0,
        shows_updates: bool = False,
        ca_file: Path | None = None,
        wall_s: Callable[[], float] = time.time,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("give an address like https://host/path")
        if parts.username or parts.password:
            raise ValueError("no user and password in the address; the signature proves who sends")
        self._secret = secret.strip().encode()
        if len(self._secret) < MIN_SECRET_BYTES:
            raise ValueError(
                f"a secret of at least {MIN_SECRET_BYTES} characters, such as `openssl rand -hex 32` makes"
            )
        self.can_edit = shows_updates
        # Recognisable, and without what may be secret in the address.
        self.destination = f"{parts.hostname}:{hashlib.sha256(url.encode()).hexdigest()[:12]}"
        self.turns = turns
        self._url = url
        self._timeout_s = timeout_s
        self._tls = _tls(ca_file) if parts.scheme == "https" else None
        self._wall_s = wall_s
        self._client: aiohttp.ClientSession | None = None

    async def send(self, card: Card, notices: Sequence[Notice]) -> str:
        return await self._post(card, notices, None)

    async def edit(self, receipt: str, card: Card, notices: Sequence[Notice]) -> None:
        await self._post(card, notices, receipt)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def _post(self, card: Card, notices: Sequence[Notice], follows: str | None) -> str:
        message = webhook_message(card, notices, follows)
        body = _encoder.encode(message)
        async with self.turns.turn(self.destination):
            # Signed when it leaves: the receiver does not take an old one.
            headers = {
                "Content-Type": "application/json",
                "Idempotency-Key": _header_text(message.id),
                SIGNATURE_HEADER: signature(self._secret, body, int(self._wall_s())),
            }
            try:
                async with self._session().post(
                    self._url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    if not 200 <= response.status < 300:
                        await self._complain(response)
            except TimeoutError as error:
                raise DeliveryFailed(f"no answer within {self._timeout_s:g} s") from error
            except (aiohttp.ClientError, OSError) as error:
                may_be_shown = not isinstance(error, aiohttp.ClientConnectorError)
                raise DeliveryFailed(_network_reason(error), may_be_shown=may_be_shown) from error
        return message.id

    def _session(self) -> aiohttp.ClientSession:
        if self._client is None:
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._tls or True),
                headers={"User-Agent": "perpwatch", "Accept-Encoding": "identity"},
                timeout=aiohttp.ClientTimeout(total=self._timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,  # a small answer may unfold to a large one
            )
        return self._client

    async def _complain(self, response: aiohttp.ClientResponse) -> NoReturn:
        status = response.status
        if 300 <= status < 400:
            raise DeliveryRefused(f"HTTP {status}: it redirects; give the address where it lives now")
        said = self._shown(await _first_bytes(response))
        reason = f"HTTP {status}: {said}" if said else f"HTTP {status} {response.reason or ''}".rstrip()
        if status >= 500 or status in _WORTH_ANOTHER_TRY:
            wait_s = retry_after(response.headers.get("Retry-After", ""), self._wall_s())
            raise DeliveryFailed(reason, retry_after_s=wait_s, may_be_shown=status not in _NOT_TAKEN)
        raise DeliveryRefused(reason)

    def _shown(self, answer: bytes) -> str:
        """What a receiver says, in one line, without the parts of the address that may be its secret."""
        text = " ".join(answer.decode(errors="replace").split())
        parts = urlsplit(self._url)
        for secret in (self._url, f"{parts.path}?{parts.query}", parts.path, parts.query):
            for spelling in (secret, unquote(secret)):
                if len(spelling) > 1:
                    text = text.replace(spelling, "***")
        return cleaned(text)[:MAX_REASON_CHARACTERS]


def _tls(ca_file: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:  # an error of TLS is one, too
        raise ValueError(f"ca_file cannot be read: {error.strerror or error}") from error


def signature(secret: bytes, body: bytes, time_s: int) -> str:
    """The value of the signature's header."""
    digest = hmac.new(secret, b"%d.%b" % (time_s, body), hashlib.sha256).hexdigest()
    return f"t={time_s},v1={digest}"


def retry_after(header: str, now_s: float) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date; None for nonsense."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header), MAX_RETRY_AFTER_S)
    try:
        until = email.utils.parsedate_to_datetime(header)
    except (ValueError, TypeError):
        return None
    until = until if until.tzinfo is not None else until.replace(tzinfo=datetime.UTC)
    return min(max(0.0, until.timestamp() - now_s), MAX_RETRY_AFTER_S)


async def _first_bytes(response: aiohttp.ClientResponse) -> bytes:
    answer = bytearray()
    try:
        while len(answer) < MAX_ANSWER_BYTES and (part := await response.content.read(MAX_ANSWER_BYTES - len(answer))):
            answer += part
    except (aiohttp.ClientError, OSError, TimeoutError):
        pass  # the status has said what matters
    return bytes(answer)


def _header_text(key: str) -> str:
    """A key as it is, with what a header cannot hold percent-encoded."""
    return quote(key, safe="!#$&'()*+,/:;=?@[]^`{|} ")


def _network_reason(error: Exception) -> str:
    """What went wrong on the way, without the address."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return "the name does not resolve; is there a network?"
        case aiohttp.ClientConnectorCertificateError():
            return f"its certificate is not trusted: {error.certificate_error}"
        case aiohttp.ClientSSLError():
            return "TLS failed"
        case aiohttp.ClientConnectorError():
            return f"no connection: {os.strerror(error.os_error.errno) if error.os_error.errno else 'none was made'}"
        case aiohttp.ServerDisconnectedError() | ConnectionResetError() | aiohttp.ClientOSError():
            return "the connection was lost before an answer"
        case _:
            return f"no usable answer ({type(error).__name__})"
