"""Both engines, real: a file, and a PostgreSQL server that is started for the session."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
from store_rows import PostgresServer

from perpwatch.store import Database


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer.installed()
    if server is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    try:
        server.start()
        yield server
    finally:
        server.remove()


_numbers = itertools.count()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database that does not exist yet, or is empty."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/perpwatch.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    return server.create(f"test{next(_numbers)}")


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = Database.open(url)
    yield database
    database.close()
