"""Errors as the API tells them: ``application/problem+json`` with a reason for a person."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response

PROBLEM_TYPE = "application/problem+json"


class Problem(msgspec.Struct, frozen=True):
    """Why something was refused or failed (RFC 9457)."""

    title: str
    status: int
    detail: str  # the reason, for a person
    type: str = "about:blank"


def problem_body(status: int, detail: str) -> bytes:
    return msgspec.json.encode(Problem(HTTPStatus(status).phrase, status, detail))


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """An error as an answer."""
    return Response(problem_body(status, detail), status, headers, PROBLEM_TYPE)
