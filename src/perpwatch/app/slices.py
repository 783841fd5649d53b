"""Work that takes long, in slices between which others run: a generator that yields where it may be interrupted.

Between two slices the world may have changed, so nothing that was looked up before is trusted after.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")

#: Work on a generator's way to its result.
Slices = Generator[None, None, _T]


def at_once(slices: Slices[_T]) -> _T:
    """The result, without a pause."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: _T = end.value
            return result


async def one_by_one(slices: Slices[_T]) -> _T:
    """The result; sockets are read between two slices."""
    while True:
        try:
            next(slices)
        except StopIteration as end:
            result: _T = end.value
            return result
        await asyncio.sleep(0)
