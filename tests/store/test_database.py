"""Opening: new, older, newer, foreign, damaged and unreachable databases."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import sqlalchemy
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from store_rows import at, candle

from perpwatch.errors import (
    ConfigurationError,
    StoreDamaged,
    StoreUnavailable,
    StoreVersionError,
    retry_delay,
)
from perpwatch.model import Timeframe
from perpwatch.store import AlertOutcome, Database, Reader, Writer
from perpwatch.store.database import MIGRATIONS
from perpwatch.store.schema import HEAD, metadata


def test_the_migrations_lead_to_the_schema_that_is_used(url: str) -> None:
    database = _at_revision(url, "0001")
    database.migrate()
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []
    assert ScriptDirectory(str(MIGRATIONS)).get_heads() == [HEAD]
    assert database.revision() == HEAD
    database.close()


def test_a_new_database_is_made_as_the_migrations_would_make_it(tmp_path: Path) -> None:
    old, new = f"sqlite:///{tmp_path}/old.db", f"sqlite:///{tmp_path}/new.db"
    upgraded = _at_revision(old, "0001")
    upgraded.migrate()
    upgraded.close()
    Database.open(new).close()
    assert _statements(tmp_path / "new.db") == _statements(tmp_path / "old.db")


def test_making_a_new_database_needs_no_migrations(tmp_path: Path) -> None:
    program = f"from perpwatch.store import Database; Database.open({str(tmp_path / 'new.db')!r}).close(); " + (
        "import sys; print('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "False\n"


async def test_an_older_database_is_upgraded_and_keeps_its_rows(url: str) -> None:
    await _make_old(url)
    with pytest.raises(StoreVersionError, match=r"has schema 0001.*run `perpwatch db migrate`"):
        Database.open(url, migrate=False)
    database = Database.open(url)
    assert database.revision() == HEAD
    assert Reader(database).candles("BTC_USDT", Timeframe.Min1, at(0), at(1)) == [candle()]
    async with Writer(database) as writer:
        writer.put_now(AlertOutcome("a:1", at(0), "BTC_USDT", b"{}"))
        assert await writer.flush(5.0)
    database.close()


def test_a_newer_database_is_refused_and_left_alone(url: str) -> None:
    database = Database.open(url)
    with database.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    with pytest.raises(StoreVersionError, match="written by a newer perpwatch") as caught:
        Database.open(url)
    assert (caught.value.found, caught.value.known) == ("9999", HEAD)
    assert retry_delay(caught.value, 1, 1.0) is None


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE invoices (number INTEGER)")
    other.close()
    with pytest.raises(StoreDamaged, match=r"another program.*invoices"):
        Database.open(f"sqlite:///{path}")
    other = sqlite3.connect(path)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]
    other.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("nothing to see here\n" * 100)
    with pytest.raises(StoreDamaged, match="not a database"):
        Database.open(str(path))
    assert path.read_text().startswith("nothing to see here")


def test_reading_does_not_make_a_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match="no such file"):
        Database.open(str(tmp_path / "perpwatch.db"), migrate=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_and_a_server_that_is_not_there_are_worth_another_try(tmp_path: Path) -> None:
    for url in (f"sqlite:///{tmp_path}/missing/perpwatch.db", f"postgresql://nobody:secret@/none?host={tmp_path}"):
        with pytest.raises(StoreUnavailable) as caught:
            Database.open(url)
        assert caught.value.trouble == "unreachable"
        assert "secret" not in str(caught.value)
        assert retry_delay(caught.value, 1, 1.0) == 1.0


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite://", "a file is needed"),
        ("sqlite:///:memory:", "a file is needed"),
        ("mysql://host/name", "choose sqlite"),
        ("://", "give an address"),
    ],
)
def test_an_address_that_cannot_be_one_is_refused(url: str, expected: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        Database.open(url)


def test_processes_that_open_a_new_database_at_once_upgrade_it_once(url: str) -> None:
    program = f"from perpwatch.store import Database; Database.open({url!r}).close(); print('opened')"
    children = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for child in children:
        out, error = child.communicate(timeout=60)
        assert (out, child.returncode) == ("opened\n", 0), error
    database = Database.open(url, migrate=False)
    with database.reading() as connection:
        assert connection.execute(sqlalchemy.text("SELECT count(*) FROM alembic_version")).scalar_one() == 1
    database.close()


def _at_revision(url: str, revision: str) -> Database:
    """An empty database as ``revision`` left it; only to migrate."""
    database = Database.open(url)
    scripts = ScriptDirectory(str(MIGRATIONS))
    with database.writing() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql("DROP TABLE alembic_version")
        context = EnvironmentContext(Config(), scripts, fn=lambda found, _: scripts._upgrade_revs(revision, found))
        with context:
            context.configure(connection=connection, transactional_ddl=True)
            with context.begin_transaction():
                context.run_migrations()
    assert database.revision() == revision
    return database


def _statements(path: Path) -> dict[str, str]:
    """What made each table and index, without spaces: they are laid out in two ways."""
    connection = sqlite3.connect(path)
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").fetchall()
    connection.close()
    return {name: "".join(sql.split()) for name, sql in rows}


async def _make_old(url: str) -> None:
    """A database as revision 0001 left it, with a candle."""
    database = _at_revision(url, "0001")
    async with Writer(database) as writer:
        writer.put_now(candle())
    database.close()
