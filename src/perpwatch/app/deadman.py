"""A sign of life to somebody outside, who raises the alarm when it stays away: no program can report its own death."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from perpwatch.errors import RequestFailed
from perpwatch.feed.ports import HttpGet

logger = logging.getLogger(__name__)

TIMEOUT_S = 10.0


class DeadMansSwitch:
    """Gets a URL every ``interval_s`` seconds while ``can_see`` says so, and never while it does not.

    Args:
        can_see: whether the market is seen at this moment.
        results: where pings are counted, as ``ok``, ``failed`` and ``withheld``.
    """

    def __init__(
        self, url: str, interval_s: float, get: HttpGet, can_see: Callable[[], bool], results: Counter[str]
    ) -> None:
        self._url = url
        # The path is often a secret, so only the host is ever shown.
        self._host = urlsplit(url).hostname
        self._interval_s = interval_s
        self._get = get
        self._can_see = can_see
        self._results = results
        self._is_failing = False

    async def run(self) -> None:
        """Ping until cancelled. A ping that fails is not repeated before its next turn."""
        while True:
            if self._can_see():
                await self._ping()
            else:
                self._results["withheld"] += 1
            await asyncio.sleep(self._interval_s)

    async def _ping(self) -> None:
        try:
            async with asyncio.timeout(TIMEOUT_S):
                answer = await self._get(self._url, {})
        except TimeoutError:
            self._note(f"no answer within {TIMEOUT_S:g} s")
        except RequestFailed as error:
            self._note(error.reason)
        else:
            self._note("" if 200 <= answer.status < 300 else f"HTTP {answer.status}")

    def _note(self, failure: str) -> None:
        """Count a ping, and log when its result is not that of the last one."""
        self._results["failed" if failure else "ok"] += 1
        if failure and not self._is_failing:
            logger.warning("the dead-man's switch at %s cannot be reached: %s", self._host, failure)
        elif self._is_failing and not failure:
            logger.info("the dead-man's switch at %s is reached again", self._host)
        self._is_failing = bool(failure)
