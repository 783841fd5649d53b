"""An SMTP server on a real local port, which takes letters, refuses them or hangs."""

from __future__ import annotations

import asyncio
import email
import email.policy
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
        self.pause_s = 0.0  # before a letter is answered
        self._password = password
        self._server: asyncio.Server | None = None

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        await asyncio.sleep(self.pause_s)
        if self.replies:
            reply = self.replies.popleft()
            if not reply:
                assert isinstance(server.transport, asyncio.Transport)
                server.transport.abort()
            return reply
        assert isinstance(envelope.content, bytes)
        self.letters.append(email.message_from_bytes(envelope.content, policy=email.policy.default))
        return "250 taken"

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
