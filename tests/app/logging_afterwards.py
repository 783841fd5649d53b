"""Commands and pictures set up the logging of the whole process; the next test finds it as it was."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def same_logging_afterwards() -> Iterator[None]:
    root, ours = logging.getLogger(), logging.getLogger("perpwatch")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        root.setLevel(levels[0])
        ours.setLevel(levels[1])
