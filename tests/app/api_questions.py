"""Questions made from the API's own document, and answers held to it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import requests
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

PROBLEM = "application/problem+json"
CHECKS = [not_a_server_error, response_schema_conformance, status_code_conformance, content_type_conformance]


def ask_everything(schema: Any, session_for: Callable[[str], requests.Session]) -> Counter[int]:
    """Ask what a schema describes, over a session for each path; returns how often each status was the answer."""
    asked = Counter[int]()

    def ask(case: Any) -> None:
        answer = case.call(session=session_for(case.path), timeout=10)
        asked[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == [PROBLEM]
            assert json.loads(answer.content)["detail"]

    once = settings(
        max_examples=6, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        once(given(case=result.ok().as_strategy())(ask))()
    return asked
