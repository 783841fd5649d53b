"""What a browser may do with our pages, and the marks by which it knows our scripts from others.

Chromium was asked (NiceGUI 3.18): without ``unsafe-eval`` no page works, because NiceGUI compiles its templates and our
column formats in the browser; without ``unsafe-inline`` for styles, components cannot size themselves. Inline scripts
are needed too, but only those that a page was sent with. So each answer marks its own with a nonce, and a script or an
event handler that got into a page by the name of a contract is not run, should it ever get there.

Nothing comes from or goes to another place, and nobody may put the pages into a frame.
"""

from __future__ import annotations

import secrets

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = "Content-Security-Policy"


def page_policy(nonce: str = "") -> str:
    """The policy of a page whose scripts carry ``nonce``; without one no inline script is run."""
    ours = f" 'nonce-{nonce}'" if nonce else ""
    return (
        f"default-src 'self'; script-src 'self'{ours} 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    )


class MarkedScripts:
    """Marks the scripts of every page of ``app``. What the app escapes is no tag, and is not marked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_page = scope["type"] == "http" and "text/html" in Headers(scope=scope).get("accept", "")
        if not is_page:
            await self._app(scope, receive, send)
            return
        start: Message | None = None
        page = bytearray()

        async def marked(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_page(message):
                start = message
            elif start is None or message["type"] != "http.response.body":
                await send(message)
            else:
                page.extend(message.get("body", b""))
                if not message.get("more_body", False):
                    nonce = secrets.token_urlsafe(16)
                    text = bytes(page).replace(b"<script", b'<script nonce="%s"' % nonce.encode())
                    headers = MutableHeaders(scope=start)
                    headers["Content-Length"] = str(len(text))
                    headers[POLICY] = page_policy(nonce)
                    await send(start)
                    await send({"type": "http.response.body", "body": text, "more_body": False})

        await self._app(scope, receive, marked)


def _is_page(start: Message) -> bool:
    return "text/html" in Headers(raw=start["headers"]).get("content-type", "")
