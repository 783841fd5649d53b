"""Two rules may see the same thing in the same candle, and both are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    # Neither database can put a column into a primary key, so the table is made anew and filled from the old one.
    op.execute("CREATE TABLE signals_before AS SELECT * FROM signals")
    op.drop_table("signals")
    op.create_table(
        "signals",
        sa.Column("event_time_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("detector", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("timeframe", sa.Integer, nullable=False),
        sa.Column("open_time_ms", sa.BigInteger, nullable=False),
        sa.Column("is_running", sa.SmallInteger, nullable=False),
        sa.Column("direction", sa.SmallInteger, nullable=False),
        sa.Column("level", sa.SmallInteger, nullable=False),
        sa.Column("price", sa.Double, nullable=False),
        sa.Column("strength", sa.Double, nullable=False),
        sa.Column("trust", sa.SmallInteger, nullable=False),
        sa.Column("is_learning", sa.SmallInteger, nullable=False),
        sa.Column("received_time_ns", sa.BigInteger, nullable=False),
        sa.Column("reasons", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint(
            "event_time_ms", "symbol", "detector", "rule", "timeframe", "open_time_ms", "is_running", name="signals_key"
        ),
        sqlite_with_rowid=False,
    )
    names = (
        "event_time_ms, symbol, detector, timeframe, open_time_ms, is_running, direction, level, price, strength, "
        "trust, is_learning, received_time_ns, reasons"
    )
    op.execute(f"INSERT INTO signals ({names}, rule) SELECT {names}, '' FROM signals_before")
    op.drop_table("signals_before")
