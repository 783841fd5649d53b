"""An SMTP server on a real local port, which takes letters, refuses them or hangs."""

from __future__ import annotations

import asyncio
import email
import email.policy
import random
import time
from collections import deque
from email.message import EmailMessage
from types import TracebackType

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


class MailServer:
    """Serves one mailbox on loopback.

    Args:
        password: of the user ``watch``; None lets everybody in.
    """

    def __init__(self, password: str | None = None) -> None:
        self.port = 0
        self.letters: list[EmailMessage] = []
        self.replies: deque[str] = deque()  # to the next letters, instead of taking them; "" cuts the line
        self.reply_shares: dict[str, float] = {}  # to all others
        self.pause_s = 0.0  # before a letter is answered
        self.received_s: list[float] = []  # when letters came, taken or not
        self._password = password
        self._random = random.Random(1)
        self._server: asyncio.Server | None = None

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.received_s.append(time.monotonic())
        await asyncio.sleep(self.pause_s)
        reply = self.replies.popleft() if self.replies else self._drawn()
        if reply is not None:
            if not reply:
                assert server.transport is not None
                server.transport.abort()  # type: ignore[attr-defined]  # of any loop
            return reply
        assert isinstance(envelope.content, bytes)
        self.letters.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 taken"

    def _drawn(self) -> str | None:
        number = self._random.random()
        for reply, share in self.reply_shares.items():
            number -= share
            if number < 0.0:
                return reply
        return None

    def _authenticate(
        self, server: SMTP, session: Session, envelope: Envelope, mechanism: str, data: object
    ) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and data.password.decode() == self._password
        return AuthResult(success=is_right, handled=False)

    def _session(self) -> SMTP:
        is_open = self._password is None
        return SMTP(
            self,
            authenticator=None if is_open else self._authenticate,
            auth_require_tls=False,
            hostname="localhost",
        )

    async def __aenter__(self) -> MailServer:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._session, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        await self._server.wait_closed()
