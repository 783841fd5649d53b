"""Who may look and who may act: the gate in front of API and pages.

* What only this machine can reach may be looked at without a token, under the names of this machine alone, so that no
  page of the web gets here by a name of its own (DNS rebinding). Elsewhere everything needs the token.
* Actions always need the token: as ``Authorization: Bearer``, or exchanged at ``/api/v1/login`` for a session cookie
  that no script can read and no other site can send.
* A browser that comes from another site is refused, on WebSockets too; a link to a page may come from anywhere.
* Guessing is slowed down: so many wrong tokens a minute, and nobody from that address is heard for a while.
* What is sent and what is taken is bounded in size and time, so that nobody who is slow or endless holds anything.
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpwatch.app.api_connections import give_up
from perpwatch.app.api_problem import PROBLEM_TYPE, problem, problem_body
from perpwatch.app.dashboard_config import DashboardConfig, is_loopback
from perpwatch.app.page_policy import POLICY, page_policy

logger = logging.getLogger(__name__)

COOKIE = "perpwatch_session"
SESSION_S = 12 * 3_600.0
MAX_SESSIONS = 1_000
#: Wrong tokens, and actions, from one address that are allowed in a minute.
WRONG_TOKENS_PER_MINUTE, ACTIONS_PER_MINUTE = 5, 60
MINUTE_S = 60.0
#: No request needs more than this, or longer to say it.
MAX_BODY_BYTES, BODY_S = 64_000, 10.0
#: The close code for whoever may no longer listen (RFC 6455).
POLICY_VIOLATION = 1008
#: Whoever takes nothing of an answer for so long is given up.
SEND_S = 10.0

ACTIONS = "/api/v1/actions/"
#: What must be reachable to sign in; none of it says anything about the watch.
_PUBLIC = ("/login", "/api/v1/login", "/_nicegui/", "/favicon.ico", "/static/")
_SAFE = ("GET", "HEAD", "OPTIONS")

API_POLICY = "default-src 'none'; frame-ancestors 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, browsers hide the origin of our own forms from us, too
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let through."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


TOO_LARGE = Refusal(413, f"a request may have {MAX_BODY_BYTES} bytes", {"Connection": "close"})
TOO_SLOW = Refusal(408, f"the request did not end within {BODY_S:.0f} s", {"Connection": "close"})


class RateLimit:
    """So many events a minute for each name."""

    def __init__(self, per_minute: int, monotonic: Callable[[], float]) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._events: dict[str, deque[float]] = {}

    def wait_s(self, name: str) -> float:
        """How long ``name`` must wait for its next; 0 for not at all."""
        now_s = self._monotonic()
        events = self._events.get(name)
        while events and events[0] <= now_s - MINUTE_S:
            events.popleft()
        if not events:
            self._events.pop(name, None)
            return 0.0
        return events[0] + MINUTE_S - now_s if len(events) >= self._per_minute else 0.0

    def note(self, name: str) -> None:
        if len(self._events) > 10_000:
            self._events.clear()  # somebody uses many addresses; forgetting them all is better than all memory
        self._events.setdefault(name, deque()).append(self._monotonic())


@dataclass(frozen=True, slots=True)
class _Session:
    until_s: float  # monotonic
    name: str  # for the log; says nothing about the cookie


class Access:
    """Decides; knows tokens, sessions and limits.

    Args:
        config: its token is never given away.
        monotonic: a clock of real seconds.
    """

    def __init__(self, config: DashboardConfig, monotonic: Callable[[], float]) -> None:
        self._token = config.token.get_secret_value().encode() if config.token is not None else None
        self._host = config.host
        self.is_local = is_loopback(config.host)
        self._monotonic = monotonic
        self._sessions: dict[str, _Session] = {}  # by cookie
        self._wrong = RateLimit(WRONG_TOKENS_PER_MINUTE, monotonic)
        self._actions = RateLimit(ACTIONS_PER_MINUTE, monotonic)

    @property
    def has_token(self) -> bool:
        """Whether actions are possible at all."""
        return self._token is not None

    # --- Signing in -------------------------------------------------------------------------------------------------

    def sign_in(self, token: str, address: str) -> str | Refusal:
        """A new session for whoever knows the token."""
        refusal = self._check(token, address)
        if refusal is not None:
            return refusal
        now_s = self._monotonic()
        self._sessions = {cookie: one for cookie, one in self._sessions.items() if one.until_s > now_s}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        cookie, name = secrets.token_urlsafe(32), secrets.token_hex(3)
        self._sessions[cookie] = _Session(now_s + SESSION_S, name)
        logger.info("session %s signed in from %s", name, address)
        return cookie

    def sign_out(self, cookie: str) -> None:
        self._sessions.pop(cookie, None)

    def is_signed_in(self, cookies: Mapping[str, str]) -> bool:
        """Whether the cookies hold a session that is in force."""
        return self._session(cookies) is not None

    def who(self, connection: HTTPConnection) -> str:
        """How the log names whoever was let through to act."""
        session = self._session(connection.cookies)
        name = "the token" if "authorization" in connection.headers or session is None else f"session {session.name}"
        return f"{name} at {address_of(connection)}"

    def has_left(self, connection: HTTPConnection) -> bool:
        """Whether a session that let somebody look has ended since; asked while a stream lasts."""
        needs_session = not self.is_local and "authorization" not in connection.headers
        is_public = connection.scope["path"].startswith(_PUBLIC)
        return needs_session and not is_public and not self.is_signed_in(connection.cookies)

    def _session(self, cookies: Mapping[str, str]) -> _Session | None:
        session = self._sessions.get(cookies.get(COOKIE, ""))
        return session if session is not None and session.until_s > self._monotonic() else None

    def _check(self, token: str, address: str) -> Refusal | None:
        if self._token is None:
            return Refusal(403, "no token is configured, so there are no actions; set dashboard.token and restart")
        wait_s = self._wrong.wait_s(address)
        if wait_s:
            headers = {"Retry-After": str(int(wait_s) + 1)}
            return Refusal(429, f"too many wrong tokens; try again in {wait_s:.0f} s", headers)
        if not hmac.compare_digest(token.encode(), self._token):
            self._wrong.note(address)
            logger.warning("a wrong token from %s", address)
            return Refusal(401, "the token is wrong", {"WWW-Authenticate": "Bearer"})
        return None

    # --- Requests ---------------------------------------------------------------------------------------------------

    def refusal(self, connection: HTTPConnection) -> Refusal | None:
        """Why a request or a WebSocket is not let through; None when it is."""
        scope, headers, path = connection.scope, connection.headers, connection.scope["path"]
        is_write = scope["type"] == "http" and scope["method"] not in _SAFE
        host = headers.get("host", "")
        if self.is_local and _name_of(host) not in ("127.0.0.1", "localhost", "::1", self._host):
            return Refusal(421, "this is served under the names of this machine only")
        origin = headers.get("origin")
        if _is_foreign(headers, origin, host):
            return Refusal(403, "the request comes from another site")
        if int(headers.get("content-length", "0") or 0) > MAX_BODY_BYTES:
            return TOO_LARGE
        address = address_of(connection)
        has_bearer = "authorization" in headers
        if has_bearer:
            scheme, _, token = headers["authorization"].partition(" ")
            if scheme.lower() != "bearer":
                return Refusal(401, "give the token as Authorization: Bearer", {"WWW-Authenticate": "Bearer"})
            if self._token is not None or path.startswith(ACTIONS):
                refusal = self._check(token.strip(), address)
                if refusal is not None:
                    return refusal
        is_known = has_bearer or self.is_signed_in(connection.cookies)
        if path.startswith(ACTIONS):
            if self._token is None:
                return self._check("", address)
            if not is_known:
                return Refusal(401, "actions need the token", {"WWW-Authenticate": "Bearer"})
            if is_write and not has_bearer and origin is None and headers.get("sec-fetch-site") != "same-origin":
                return Refusal(403, "a browser must say that it comes from this site")
            return self.action_refusal(address)
        if not self.is_local and not is_known and not path.startswith(_PUBLIC):
            return Refusal(401, "this needs the token", {"WWW-Authenticate": "Bearer"})
        return None

    def action_refusal(self, address: str = "") -> Refusal | None:
        """Count an action from an address; says when there are too many."""
        wait_s = self._actions.wait_s(address)
        if wait_s:
            return Refusal(429, f"too many actions; try again in {wait_s:.0f} s", {"Retry-After": str(int(wait_s) + 1)})
        self._actions.note(address)
        return None


def address_of(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client is not None else "?"


def _is_foreign(headers: Headers, origin: str | None, host: str) -> bool:
    """Whether a browser says that a page of another site has made the request."""
    if origin is not None:
        return urlsplit(origin).netloc != host
    # An image or a script of a page sends no origin, but browsers say where it is from. Links are let in.
    is_link = headers.get("sec-fetch-mode") == "navigate"
    return not is_link and headers.get("sec-fetch-site", "none") not in ("none", "same-origin")


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


class Gate:
    """Lets through what :class:`Access` allows, and dresses every answer with the security headers."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        path = scope["path"]

        async def dressed(message: Message) -> None:
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault(POLICY, API_POLICY if path.startswith("/api/") else page_policy())
                if not path.startswith(("/_nicegui/", "/static/")):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        connection = HTTPConnection(scope)
        try:
            refusal = self._access.refusal(connection)
        except ValueError:
            refusal = Refusal(400, "a header cannot be understood")
        if refusal is None:
            # Pages take their addresses from this header, and nobody in front of us is meant to set it.
            scope["headers"] = [item for item in scope["headers"] if item[0] != b"x-forwarded-prefix"]
            if scope["type"] == "websocket":
                await self._converse(connection, receive, dressed)
            else:
                await self._answer(connection, receive, dressed)
        elif scope["type"] == "websocket":
            await _refuse_socket(refusal, dressed)
        elif refusal.status == 401 and _wants_page(scope):
            await RedirectResponse(f"/login?next={quote(path)}", 303)(scope, receive, dressed)
        else:
            await problem(refusal.status, refusal.detail, refusal.headers)(scope, receive, dressed)

    async def _converse(self, connection: HTTPConnection, receive: Receive, send: Send) -> None:
        """Serve a WebSocket for as long as the session lasts that opened it."""

        async def said(message: Message) -> None:
            if message["type"] == "websocket.send" and self._access.has_left(connection):
                await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": "the session has ended"})
                raise OSError("the session has ended")  # for the application, as if the reader had gone
            await send(message)

        await self._app(connection.scope, receive, said)

    async def _answer(self, connection: HTTPConnection, receive: Receive, send: Send) -> None:
        """Have a request answered once it is here as a whole, for as long as somebody takes the answer, and may."""
        scope = connection.scope
        try:
            body = await _body(scope, receive)
        except ClientDisconnect:
            return
        if isinstance(body, Refusal):
            await problem(body.status, body.detail, body.headers)(scope, receive, send)
            return
        waiting: list[Message] = []
        if body is not None:
            waiting.append({"type": "http.request", "body": body, "more_body": False})

        async def heard() -> Message:
            return waiting.pop() if waiting else await receive()

        async def said(message: Message) -> None:
            if message.get("more_body") and self._access.has_left(connection):
                give_up(scope)
                return
            try:
                async with asyncio.timeout(SEND_S):
                    await send(message)
            except TimeoutError:
                logger.info("%s is given up: nothing was taken for %.0f s", address_of(connection), SEND_S)
                give_up(scope)

        await self._app(scope, heard, said)


async def _body(scope: Scope, receive: Receive) -> bytes | Refusal | None:
    """The body of a request; None where it has none, and nothing was taken.

    Raises:
        ClientDisconnect: its sender has gone in the middle of it.
    """
    headers = Headers(scope=scope)
    if "transfer-encoding" not in headers and headers.get("content-length", "0") == "0":
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_S):
            while (message := await receive())["type"] == "http.request":
                body += message.get("body", b"")
                if len(body) > MAX_BODY_BYTES:
                    return TOO_LARGE
                if not message.get("more_body", False):
                    return bytes(body)
    except TimeoutError:
        return TOO_SLOW
    raise ClientDisconnect


async def _refuse_socket(refusal: Refusal, send: Send) -> None:
    """Refuse a WebSocket before it is one, with the reason."""
    body = problem_body(refusal.status, refusal.detail)
    headers = {"Content-Type": PROBLEM_TYPE, **refusal.headers}
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def _wants_page(scope: Scope) -> bool:
    path: str = scope["path"]
    is_page = scope["method"] == "GET" and not path.startswith(("/api/", "/_nicegui"))
    return is_page and "text/html" in Headers(scope=scope).get("accept", "")
