"""A loop for a program of the command line: Ctrl-C and SIGTERM end it, and what a user can mend becomes one error."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine
from typing import Any

from perpwatch.errors import ExchangeError


def run_program(
    program: Coroutine[Any, Any, None],
    loop_factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop,
) -> None:
    """Run ``program`` to its end; Ctrl-C and SIGTERM end it cleanly."""

    async def guarded() -> None:
        task = asyncio.ensure_future(program)
        running = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            running.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(guarded())
    except BaseExceptionGroup as group:
        cause = _expected_cause(group)
        if cause is None:
            raise
        raise cause from group


def _expected_cause(group: BaseExceptionGroup[BaseException]) -> BaseException | None:
    """Why tasks that run together ended, when it is nothing but the exchange or a reader who has gone away."""
    others, causes = group.split((ExchangeError, BrokenPipeError))[::-1]
    if others is not None:
        return None
    cause: BaseException | None = causes
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    return cause
