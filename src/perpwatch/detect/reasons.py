"""Numbers as people read them."""

from __future__ import annotations


def times_text(times: float) -> str:
    """Three digits that matter: 9.41, 82.3, 10,432."""
    return f"{times:,.0f}" if times >= 999.5 else f"{times:.3g}"
