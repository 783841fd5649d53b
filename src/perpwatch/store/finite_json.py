"""JSON of what may hold infinity, which JSON does not have: a ratio to nothing, for example."""

from __future__ import annotations

import math
import sys
from typing import Any

import msgspec


def finite_json(value: Any, form: Any = None) -> bytes:
    """A value as JSON that can be decoded into it again.

    Infinity becomes the largest number there is, what is no number becomes 0.

    Args:
        form: the type to decode it as; None for the value's own.
    """
    body = msgspec.json.encode(value)
    try:
        msgspec.json.decode(body, type=type(value) if form is None else form)
    except msgspec.ValidationError:
        # It has been written as null. That is rare enough to look at every figure only then.
        return msgspec.json.encode(_finite(msgspec.to_builtins(value)))
    return body


def _finite(value: Any) -> Any:
    match value:
        case float() if math.isnan(value):
            return 0.0
        case float() if math.isinf(value):
            return math.copysign(sys.float_info.max, value)
        case dict():
            return {key: _finite(below) for key, below in value.items()}
        case list() | tuple():
            return [_finite(below) for below in value]
    return value
