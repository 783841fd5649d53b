"""Logs: structlog dresses what the standard library's loggers say, so that their levels work as people expect."""

from __future__ import annotations

import logging
import sys

import structlog
from rich.console import Console

from perpwatch.app.config import LoggingConfig


def set_up_logging(config: LoggingConfig, console: Console | None = None) -> None:
    """Send all logs to standard error, as text or JSON lines.

    Args:
        console: where a live picture is drawn; lines then go through it, above the picture.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    is_json = config.format == "json"
    # Tracebacks without the values of variables: some of those are secrets, and to print them all takes a second.
    text = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer() if is_json else text
    handler: logging.Handler = _ConsoleHandler(console) if console is not None else logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *([structlog.processors.format_exc_info] if is_json else []),
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("perpwatch").setLevel(config.level.upper())


class _ConsoleHandler(logging.Handler):
    """Prints above a live picture instead of through it."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        self._console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)
