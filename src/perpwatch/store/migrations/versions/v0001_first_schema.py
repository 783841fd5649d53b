"""The first schema. What a revision once did is frozen here and never follows ``schema.py``."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "candles",
        sa.Column("timeframe", sa.Integer, nullable=False),
        sa.Column("open_time_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("open", sa.Double, nullable=False),
        sa.Column("high", sa.Double, nullable=False),
        sa.Column("low", sa.Double, nullable=False),
        sa.Column("close", sa.Double, nullable=False),
        sa.Column("contracts", sa.Double, nullable=False),
        sa.Column("base_volume", sa.Double, nullable=False),
        sa.Column("turnover", sa.Double, nullable=False),
        sa.Column("finality", sa.SmallInteger, nullable=False),
        sa.Column("trust", sa.SmallInteger, nullable=False),
        sa.Column("real_open", sa.Double),
        sa.Column("real_high", sa.Double),
        sa.Column("real_low", sa.Double),
        sa.Column("real_close", sa.Double),
        sa.Column("is_synthetic", sa.SmallInteger, nullable=False),
        sa.Column("missing_minutes", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("timeframe", "open_time_ms", "symbol", name="candles_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledger",
        sa.Column("hour_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("codes", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("hour_ms", "symbol", name="ledger_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "contracts",
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("is_trading", sa.SmallInteger, nullable=False),
        sa.Column("opening_time_ms", sa.BigInteger, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("symbol", name="contracts_key"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "signals",
        sa.Column("event_time_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("detector", sa.Text, nullable=False),
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
            "event_time_ms", "symbol", "detector", "timeframe", "open_time_ms", "is_running", name="signals_key"
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "alerts",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.Column("delivered_time_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="alerts_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("alerts_by_time", "alerts", ["time_ms"])
    op.create_table(
        "state",
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("value", sa.LargeBinary, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key", name="state_key"),
        sqlite_with_rowid=False,
    )
