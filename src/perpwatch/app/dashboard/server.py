"""API and pages around a running bot, served in its own loop.

One process and one loop, because a picture of the market is then a look at memory. What keeps the feed safe is that no
answer takes long: the table is made once a tick for everybody, messages are encoded once, readers who cannot follow are
dropped, and whatever is dear happens in another process or thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from perpwatch.app.api import create_api
from perpwatch.app.api_connections import HttpConnection, Server, SocketConnection
from perpwatch.app.api_hub import Hub
from perpwatch.app.api_security import Access, Gate
from perpwatch.app.bot import Bot
from perpwatch.app.config import Config
from perpwatch.app.dashboard.shown import is_shown, show
from perpwatch.app.dashboard_config import DashboardConfig
from perpwatch.app.engine import Step
from perpwatch.app.health import Monitor
from perpwatch.app.page_policy import MarkedScripts
from perpwatch.errors import ConfigurationError
from perpwatch.model import Batch
from perpwatch.store import Database, Reader

logger = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
#: Connections that are no live streams of the API: pages, and whoever asks something.
OTHER_CONNECTIONS = 200
#: How long readers are waited for at the end.
GOODBYE_S = 1


class _Pages:
    """The pages, loaded when somebody asks for the first: a watch that nobody looks at does not carry their libraries.

    That takes a second, in a thread, because the watch goes on meanwhile.
    """

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self._running = contextlib.AsyncExitStack()
        self._app: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app or await self._loaded()
        await app(scope, receive, send)

    async def close(self) -> None:
        """End what the pages run in the background."""
        async with self._lock:
            await self._running.aclose()

    async def _loaded(self) -> ASGIApp:
        async with self._lock:
            if self._app is None:
                pages = await asyncio.to_thread(_load_pages)
                await self._running.enter_async_context(pages.router.lifespan_context(pages))
                self._app = MarkedScripts(pages)
            return self._app


def _load_pages() -> Starlette:
    from perpwatch.app.dashboard.pages import PAGES

    return PAGES


class _Site:
    """The API below ``/api/`` and the form to sign in, files below ``/static/``; pages everywhere else.

    API and pages find the hub up to date.
    """

    def __init__(self, hub: Hub, api: ASGIApp, pages: ASGIApp) -> None:
        self._hub = hub
        self._api = api
        self._pages = pages
        self._files = Starlette()
        self._files.mount("/static", StaticFiles(directory=STATIC))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith("/static/"):
            await self._files(scope, receive, send)
            return
        await self._hub.look()
        app = self._api if path.startswith("/api/") or path == "/login" else self._pages
        await app(scope, receive, send)


@contextlib.asynccontextmanager
async def dashboard(
    bot: Bot,
    monitor: Monitor,
    config: Config,
    title: str,
    *,
    config_file: Path | None = None,
    has_store: bool = True,
    may_move: bool = False,
    speed: float = 1.0,
) -> AsyncIterator[str]:
    """Serve API and pages as long as the block lasts; yields the address.

    Args:
        title: what is watched, for people.
        has_store: the bot keeps what it finds, and pages may look there.
        may_move: take a free port where the configured one is taken.
        speed: seconds of the loop in a real one.
    Raises:
        ConfigurationError: the port cannot be had, or another watch of this process has pages: they are the process's,
            as NiceGUI has it.
    """
    if is_shown():
        expected = "false: another watch of this process has pages, and they show one; give this one its own process"
        raise ConfigurationError("dashboard.enabled", True, expected)
    settings = config.dashboard
    listening = _listen(settings, may_move=may_move)
    host, port = listening.getsockname()[:2]
    database = _open(config, config_file) if has_store and config.store.enabled else None
    hub = Hub(
        bot,
        monitor,
        title,
        Reader(database) if database is not None else None,
        tick_s=settings.refresh_interval * speed,
        max_clients=settings.max_clients,
    )
    hub.config_file = config_file
    access = Access(settings, time.monotonic)
    pages = _Pages()
    app = Gate(_Site(hub, create_api(hub, access), pages), access)
    # What it warns of is what others send; they are told, and would fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    server = Server(
        uvicorn.Config(
            app,
            http=HttpConnection,
            ws=SocketConnection,
            limit_concurrency=3 * settings.max_clients + OTHER_CONNECTIONS + 1,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            proxy_headers=False,
            ws_max_size=1 << 20,
            ws_per_message_deflate=False,  # compressing for every reader would cost more than all else
            timeout_graceful_shutdown=GOODBYE_S,
        )
    )
    told = bot.on_step

    def on_step(batch: Batch, step: Step) -> None:
        hub.note(step)
        told(batch, step)

    bot.on_step = on_step
    with show(hub, access):
        serving = asyncio.create_task(server.serve([listening]))
        looking = asyncio.create_task(hub.run())
        looking.add_done_callback(_log_failure)
        try:
            while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn sets no event
                await asyncio.sleep(0.01)
            name = f"[{host}]" if ":" in host else host
            yield f"http://{name}:{port}"
        finally:
            bot.on_step = told
            looking.cancel()
            for topic in (hub.market, hub.pulse, hub.events):
                topic.close("the watch ends")
            server.should_exit = True
            await asyncio.gather(looking, serving, return_exceptions=True)
            await pages.close()
            listening.close()
            if database is not None:
                database.close()


def _open(config: Config, config_file: Path | None) -> Database:
    return Database.open(config.store.address(config_file), migrate=False)


def _listen(settings: DashboardConfig, *, may_move: bool) -> socket.socket:
    """A socket on the configured address."""
    try:
        return _bind(settings.host, settings.port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and may_move:
            return _bind(settings.host, 0)
        if error.errno == errno.EADDRINUSE:
            expected = "another program listens there; choose another port, 0 for a free one, or --no-dashboard"
            raise ConfigurationError("dashboard.port", settings.port, expected) from error
        if error.errno == errno.EACCES:
            expected = "not allowed to this user; choose one above 1023"
            raise ConfigurationError("dashboard.port", settings.port, expected) from error
        text = f"cannot be listened on: {error.strerror or error}"
        raise ConfigurationError("dashboard.host", settings.host, text) from error


def _bind(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    one = socket.socket(family, kind, protocol)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind(address)
        one.listen(128)
        one.setblocking(False)
    except OSError:
        one.close()
        raise
    return one


def _log_failure(task: asyncio.Task[None]) -> None:
    """Our own failure must not go unnoticed, and must not end the watch."""
    if not task.cancelled() and (error := task.exception()) is not None:
        logger.error("the dashboard's picture of the market failed", exc_info=error)
