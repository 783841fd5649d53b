"""Which watch the pages show; known before they are loaded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from perpwatch.app.api_hub import Hub
from perpwatch.app.api_security import Access


@dataclass(slots=True)
class _Shown:
    """What the pages show at present."""

    hub: Hub | None = None
    access: Access | None = None


_shown = _Shown()


@contextlib.contextmanager
def show(hub: Hub, access: Access) -> Iterator[None]:
    """Let the pages show this watch; one at a time in a process."""
    _shown.hub, _shown.access = hub, access
    try:
        yield
    finally:
        _shown.hub = _shown.access = None


def is_shown() -> bool:
    """Whether a watch is shown already."""
    return _shown.hub is not None


def shown_hub() -> Hub:
    """The watch that is shown."""
    assert _shown.hub is not None, "no watch is shown"
    return _shown.hub


def shown_access() -> Access:
    """Who may look at it, and act."""
    assert _shown.access is not None, "no watch is shown"
    return _shown.access
