"""What a log line shows of a failure, and what it must not."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from logging_afterwards import same_logging_afterwards

from perpwatch.app.config import LoggingConfig
from perpwatch.app.log import set_up_logging


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    with same_logging_afterwards():
        yield


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_failure_is_told_with_its_place_and_without_the_values_of_variables(
    form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(LoggingConfig.model_validate({"format": form}))

    def fail(token: str) -> None:
        raise RuntimeError(f"a token of {len(token)} characters is of no use")

    try:
        fail("-".join(["a", "secret"]))
    except RuntimeError:
        logging.getLogger("perpwatch.test").exception("it went wrong")
    said = capsys.readouterr().err
    assert "it went wrong" in said
    assert "in fail" in said
    assert "a token of 8 characters is of no use" in said
    assert "a-secret" not in said
