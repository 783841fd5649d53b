"""The pages as NiceGUI serves them.

What changes every second on many rows goes to the browser by the API's own stream, made once for everybody; the rest is
kept up to date from here, for each open page. The pages belong to the process, as NiceGUI wants it; which watch they
show is set by :func:`perpwatch.app.dashboard.shown.show`. This module is imported when the first page is asked for.
"""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import ui

from perpwatch.app.dashboard.health import health
from perpwatch.app.dashboard.market import market
from perpwatch.app.dashboard.rules import rules
from perpwatch.app.dashboard.signals import signals
from perpwatch.app.dashboard.symbol import symbol


def _application() -> FastAPI:
    """Made once in a process."""
    application = FastAPI(openapi_url=None)
    title = "perpwatch"
    ui.page("/", title=f"Market · {title}")(market)
    ui.page("/signals", title=f"Signals · {title}")(signals)
    ui.page("/symbol/{name:path}", title=title)(symbol)
    ui.page("/health", title=f"Watch health · {title}")(health)
    ui.page("/rules", title=f"Rules · {title}")(rules)
    ui.run_with(
        application,
        title=title,
        dark=None,
        favicon="◆",
        tailwind=False,
        binding_refresh_interval=None,
        gzip_middleware_factory=None,  # on this machine compressing costs more than it saves
        show_welcome_message=False,
        reconnect_timeout=10.0,
        message_history_length=100,
    )
    return application


PAGES = _application()
