"""Who may look and who may act: the gate in front of API and pages.

* What only this machine can reach may be looked at without a token, under the names of this machine alone, so that no
  page of the web gets here by a name of its own (DNS rebinding). Elsewhere everything needs the token.
* Actions always need the token: as ``Authorization: Bearer``, or exchanged at ``/api/v1/login`` for a session cookie
  that no script can read and no other site can send.
* A browser that comes from another site is refused, on WebSockets too.
* Guessing is slowed down: so many wrong tokens a minute, and nobody from that address is heard for a while.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.parse import quote, urlsplit

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from perpwatch.app.dashboard_config import DashboardConfig, is_loopback

logger = logging.getLogger(__name__)

COOKIE = "perpwatch_session"
SESSION_S = 12 * 3_600.0
MAX_SESSIONS = 1_000
#: Wrong tokens from one address, and actions of all, that are allowed in a minute.
WRONG_TOKENS_PER_MINUTE, ACTIONS_PER_MINUTE = 5, 60
MINUTE_S = 60.0
#: Requests without need for more than this are refused unread.
MAX_BODY_BYTES = 64_000

ACTIONS = "/api/v1/actions/"
#: What must be reachable to sign in; none of it says anything about the watch.
_PUBLIC = ("/login", "/api/v1/login", "/_nicegui/", "/favicon.ico", "/static/")
_SAFE = ("GET", "HEAD", "OPTIONS")

#: NiceGUI compiles its pages in the browser, which takes inline scripts and eval; nothing comes from or goes to another
#: place, and nobody may put the pages into a frame.
PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
API_POLICY = "default-src 'none'; frame-ancestors 'none'"
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # without any, browsers hide the origin of our own forms from us, too
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Problem(msgspec.Struct, frozen=True):
    """Why something was refused or failed (RFC 9457)."""

    title: str
    status: int
    detail: str  # the reason, for a person
    type: str = "about:blank"


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as ``application/problem+json``."""
    body = msgspec.json.encode(Problem(HTTPStatus(status).phrase, status, detail))
    return Response(body, status, headers, "application/problem+json")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is not let through."""

    status: int
    detail: str
    headers: Mapping[str, str] = field(default_factory=dict)


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
        self._sessions: dict[str, float] = {}  # until when
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
        self._sessions = {name: until_s for name, until_s in self._sessions.items() if until_s > now_s}
        while len(self._sessions) >= MAX_SESSIONS:
            del self._sessions[next(iter(self._sessions))]
        session = secrets.token_urlsafe(32)
        self._sessions[session] = now_s + SESSION_S
        logger.info("signed in from %s", address)
        return session

    def sign_out(self, session: str) -> None:
        self._sessions.pop(session, None)

    def is_signed_in(self, cookies: Mapping[str, str]) -> bool:
        """Whether the cookies hold a session that is in force."""
        return self._sessions.get(cookies.get(COOKIE, ""), 0.0) > self._monotonic()

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
        if (is_write or scope["type"] == "websocket") and origin is not None and urlsplit(origin).netloc != host:
            return Refusal(403, "the request comes from another site")
        if is_write and int(headers.get("content-length", "0") or 0) > MAX_BODY_BYTES:
            return Refusal(413, f"at most {MAX_BODY_BYTES} bytes")
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
            return self.action_refusal()
        if not self.is_local and not is_known and not path.startswith(_PUBLIC):
            return Refusal(401, "this needs the token", {"WWW-Authenticate": "Bearer"})
        return None

    def action_refusal(self) -> Refusal | None:
        """Count an action; says when there are too many."""
        wait_s = self._actions.wait_s("")
        if wait_s:
            return Refusal(429, f"too many actions; try again in {wait_s:.0f} s", {"Retry-After": str(int(wait_s) + 1)})
        self._actions.note("")
        return None


def address_of(connection: HTTPConnection) -> str:
    return connection.client.host if connection.client is not None else "?"


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
                headers["Content-Security-Policy"] = API_POLICY if path.startswith("/api/") else PAGE_POLICY
                if not path.startswith(("/_nicegui/", "/static/")):
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            refusal = self._access.refusal(HTTPConnection(scope))
        except ValueError:
            refusal = Refusal(400, "a header cannot be understood")
        if refusal is None:
            # Pages take their addresses from this header, and nobody in front of us is meant to set it.
            scope["headers"] = [item for item in scope["headers"] if item[0] != b"x-forwarded-prefix"]
            await self._app(scope, receive, dressed)
        elif scope["type"] == "http" and refusal.status == 401 and _wants_page(scope):
            await RedirectResponse(f"/login?next={quote(path)}", 303)(scope, receive, dressed)
        elif scope["type"] == "http":
            await problem(refusal.status, refusal.detail, refusal.headers)(scope, receive, dressed)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": refusal.detail})


def _wants_page(scope: Scope) -> bool:
    path: str = scope["path"]
    is_page = scope["method"] == "GET" and not path.startswith(("/api/", "/_nicegui"))
    return is_page and "text/html" in Headers(scope=scope).get("accept", "")
