"""One database, whichever engine it is: opening, upgrading, and saying in our words what went wrong.

SQLite runs in WAL mode, so that other processes read while one writes, and waits for the disk at each commit: what is
acknowledged survives a crash of the machine, not only of the program.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from perpwatch.errors import ConfigurationError, StoreDamaged, StoreError, StoreUnavailable, StoreVersionError
from perpwatch.store.schema import HEAD, metadata

MIGRATIONS = Path(__file__).parent / "migrations"

#: How long a statement waits for another process that is writing.
BUSY_TIMEOUT_MS = 2_000
#: Pages in the write-ahead log at which a commit itself copies them into the file. The writer does it before, when it
#: has nothing else to do, because it costs tens of milliseconds.
CHECKPOINT_PAGES = 8_192
#: Seconds to wait for a server's answer to a connection attempt.
CONNECT_TIMEOUT_S = 10
#: Any constant: processes that migrate the same PostgreSQL database queue up behind it.
_MIGRATION_LOCK = 7_303_014


class Database:
    """A database of perpwatch that is open and of the right version. Build it with :meth:`open`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = self._name()

    @classmethod
    def open(cls, url: str, *, migrate: bool = True) -> Database:
        """Connect, and bring the schema up to date.

        Args:
            url: ``sqlite:///perpwatch.db``, a plain path, or ``postgresql://user:password@host/name``.
            migrate: False to only read: an older schema is then refused instead of upgraded, and no file is made.
        Raises:
            ConfigurationError: an address that cannot be one, or a driver that is not installed.
            StoreVersionError: written by a newer perpwatch, or by an older one and ``migrate`` is False.
            StoreDamaged: something else than a database of perpwatch.
            StoreUnavailable: cannot be reached or written just now.
        """
        engine = _engine(_parsed(url))
        database = cls(engine)
        try:
            if not migrate and database.path is not None and not database.path.exists():
                raise StoreUnavailable(database.name, "unreachable", "there is no such file yet")
            database._check_version(migrate)
        except BaseException:
            engine.dispose()
            raise
        return database

    @property
    def is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"

    @property
    def path(self) -> Path | None:
        """The file, None on a server."""
        return Path(self._engine.url.database or "") if self.is_sqlite else None

    def _name(self) -> str:
        """As people know it: the path of a file, the address of a server without its password."""
        url = self._engine.url
        return url.database or "" if self.is_sqlite else url.set(drivername="postgresql").render_as_string()

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that may write; committed at the end of the block.

        Raises:
            StoreUnavailable: nothing was written, and trying again may help.
            StoreError: nothing was written, and the same again will fail again.
        """
        with self.errors(), self._engine.connect() as connection:
            writer = connection.execution_options(is_writing=True)
            with writer.begin():
                yield writer

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One consistent view. Errors as in :meth:`writing`."""
        with self.errors(), self._engine.connect() as connection:
            # SQLite's transactions are like that anyway.
            yield connection if self.is_sqlite else connection.execution_options(isolation_level="REPEATABLE READ")

    @contextmanager
    def outside_transaction(self) -> Iterator[Connection]:
        """For commands that cannot run inside one: vacuum, checkpoint."""
        with self.errors(), self._engine.connect() as connection:
            yield connection.execution_options(is_outside=True, isolation_level="AUTOCOMMIT")

    def forget_connections(self) -> None:
        """Connect afresh next time: an open file does not notice that the disk has changed under it."""
        self._engine.dispose()

    def close(self) -> None:
        self._engine.dispose()

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turn the libraries' errors into ours."""
        try:
            yield
        except DBAPIError as error:
            raise _explained(self.name, error.orig or error) from error
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise _explained(self.name, error) from error

    # --- Versions ---------------------------------------------------------------------------------------------------

    def revision(self) -> str | None:
        """The schema's revision, None for an empty database."""
        with self.reading() as connection:
            return self._revision(connection)

    def _check_version(self, migrate: bool) -> None:
        found = self.revision()
        if found == HEAD:
            return
        if found is not None and found > HEAD:
            raise StoreVersionError(
                self.name,
                found,
                HEAD,
                f"was written by a newer perpwatch (schema {found}, this one knows up to {HEAD}): "
                "update perpwatch, or name another database",
            )
        if not migrate:
            raise StoreVersionError(
                self.name,
                found or "none",
                HEAD,
                f"has schema {found or 'none'}, this perpwatch reads {HEAD}: run `perpwatch db migrate`",
            )
        self.migrate()

    def migrate(self) -> None:
        """Bring the schema to :data:`~perpwatch.store.schema.HEAD`: all of it in one transaction, or nothing.

        An empty database gets the newest schema at once; an older one goes through the revisions in between.
        """
        with self.writing() as connection:
            if not self.is_sqlite:
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MIGRATION_LOCK})")
            found = self._revision(connection)
            if found is None:
                _create(connection)
            elif found != HEAD:  # else another process was quicker
                _upgrade(connection)

    def _revision(self, connection: Connection) -> str | None:
        tables = sqlalchemy.inspect(connection).get_table_names()
        if "alembic_version" not in tables:
            if tables:
                raise StoreDamaged(
                    self.name, f"is the database of another program (it has a table {tables[0]!r}): name another one"
                )
            return None
        row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").fetchone()
        return str(row[0]) if row else None


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    # As Alembic makes it, so that later revisions find where to begin.
    connection.exec_driver_sql(
        "CREATE TABLE alembic_version "
        "(version_num VARCHAR(32) NOT NULL, CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
    )
    connection.exec_driver_sql(f"INSERT INTO alembic_version (version_num) VALUES ('{HEAD}')")


def _upgrade(connection: Connection) -> None:
    # Imported here because it takes a tenth of a second and 11 MB for good, which only an upgrade is worth.
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(str(MIGRATIONS))

    def steps(revision: Any, _: Any) -> Any:
        return scripts._upgrade_revs(HEAD, revision)

    with EnvironmentContext(Config(), scripts, fn=steps, destination_rev=HEAD) as environment:
        environment.configure(connection=connection, transactional_ddl=True)
        with environment.begin_transaction():
            environment.run_migrations()


def _parsed(url: str) -> URL:
    if "://" not in url:
        url = f"sqlite:///{url}"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise ConfigurationError("store.url", url, "give an address like sqlite:///perpwatch.db") from error
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database in (None, "", ":memory:"):
            raise ConfigurationError("store.url", url, "a file is needed: other processes read it, and it survives")
        return parsed.set(drivername="sqlite+pysqlite")
    if backend in ("postgresql", "postgres"):
        return parsed.set(drivername="postgresql+psycopg")
    raise ConfigurationError("store.url", url, "choose sqlite:///file or postgresql://user@host/name")


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "postgresql":
        try:
            return sqlalchemy.create_engine(
                url,
                pool_pre_ping=True,
                connect_args={"connect_timeout": CONNECT_TIMEOUT_S, "application_name": "perpwatch"},
            )
        except ImportError as error:
            hidden = url.render_as_string(hide_password=True)
            raise ConfigurationError(
                "store.url", hidden, "needs a driver: pip install 'perpwatch[postgres]'"
            ) from error
    engine = sqlalchemy.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_MS / 1_000})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _: object) -> None:
    # The driver's own idea of transactions leaves table changes outside them; ours begin where we say.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        # Only has an effect on a new file: pages of deleted rows can then be given back little by little.
        cursor.execute("PRAGMA auto_vacuum = INCREMENTAL")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        cursor.execute("PRAGMA journal_size_limit = 67108864")
        # What is written comes in the order of the key, and the past of a symbol has a row in each of thousands of
        # pages: more would hold pages that nobody asks for again, among what stays in memory for months.
        cursor.execute("PRAGMA cache_size = -1024")
        cursor.execute("PRAGMA temp_store = MEMORY")
    except sqlite3.OperationalError as error:
        # A file that may only be read can still be read.
        if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_READONLY:
            raise
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    options = connection.get_execution_options()
    if not options.get("is_outside"):
        # A transaction that reads first and writes later could find the lock taken half-way.
        connection.exec_driver_sql("BEGIN IMMEDIATE" if options.get("is_writing") else "BEGIN")


_SQLITE_TROUBLE = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_READONLY: "read_only",
    sqlite3.SQLITE_PERM: "read_only",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_PROTOCOL: "locked",
    sqlite3.SQLITE_CANTOPEN: "unreachable",
    sqlite3.SQLITE_IOERR: "broken_disk",
}
_SQLITE_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
#: By the class of the SQLSTATE, its first two characters.
_POSTGRESQL_TROUBLE = {
    "08": "unreachable",
    "28": "unreachable",
    "3D": "unreachable",
    "40": "locked",
    "55": "locked",
    "57": "unreachable",
    "58": "broken_disk",
}


def _explained(name: str, error: BaseException) -> StoreError:
    text = " ".join(str(error).split())
    if isinstance(error, sqlite3.Error):
        # The low byte is the kind of error, the rest its detail.
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in _SQLITE_TROUBLE:
            return StoreUnavailable(name, _SQLITE_TROUBLE[code], text)
        return StoreDamaged(name, text) if code in _SQLITE_DAMAGE else StoreError(name, text)
    state = getattr(error, "sqlstate", None)
    if state is None:
        # The driver speaks for itself only when there is no server that could.
        is_lost = type(error).__name__ in ("OperationalError", "InterfaceError", "ConnectionTimeout")
        return StoreUnavailable(name, "unreachable", text) if is_lost else StoreError(name, text)
    if state == "53100":
        return StoreUnavailable(name, "full", text)
    if state == "25006":
        return StoreUnavailable(name, "read_only", text)
    if state[:2] == "53":
        return StoreUnavailable(name, "unreachable", text)
    trouble = _POSTGRESQL_TROUBLE.get(state[:2])
    return StoreUnavailable(name, trouble, text) if trouble else StoreError(name, text)
