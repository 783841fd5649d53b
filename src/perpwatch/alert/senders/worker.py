"""Blocking calls of one channel, in threads of its own.

The event loop's pool is not used: a channel that hangs would take the threads that look up names for everybody. The
threads are daemons, so that a call that hangs does not keep the program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

from perpwatch.errors import DeliveryFailed


class Worker:
    """Makes one blocking call at a time.

    A call cannot be taken back. One that was given up, because it took too long or its caller was cancelled, may still
    succeed; asked for the same again, its answer is waited for instead of making it twice.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._key = ""
        self._call: asyncio.Future[None] | None = None

    async def run(self, key: str, work: Callable[[], None], timeout_s: float) -> None:
        """Make a call, or wait for the one that is under way for the same key.

        Raises:
            DeliveryFailed: no answer in time, or an earlier call has none yet; else whatever ``work`` raises.
        """
        call = self._call
        if call is None or (call.done() and self._key != key):
            call = self._call = self._start(work)
            self._key = key
        elif self._key != key:
            raise DeliveryFailed("still waiting for the answer to the message before", may_be_shown=False)
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(call)
        except TimeoutError as error:
            if call.done():
                raise  # by the work itself
            raise DeliveryFailed(f"no answer within {timeout_s:g} s") from error
        finally:
            if call.done():
                self._call = None

    def _start(self, work: Callable[[], None]) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()
        call: asyncio.Future[None] = loop.create_future()
        call.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to ask

        def settle(error: BaseException | None) -> None:
            if call.cancelled():
                return
            if error is None:
                call.set_result(None)
            else:
                call.set_exception(error)

        def run() -> None:
            error: BaseException | None = None
            try:
                work()
            except Exception as caught:
                error = caught
            with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(settle, error)

        threading.Thread(target=run, name=self._name, daemon=True).start()
        return call
