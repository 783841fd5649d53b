"""Each alert has a row for each channel that is to show it, and people may judge it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.create_table(
        "outbox",
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("thread", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("is_doubtful", sa.SmallInteger, nullable=False),
        sa.Column("not_before_ms", sa.BigInteger, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("receipt", sa.Text, nullable=False),
        sa.Column("sent_ms", sa.BigInteger, nullable=False),
        sa.Column("latency_ms", sa.BigInteger),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("channel", "key", name="outbox_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("outbox_by_time", "outbox", ["time_ms"])
    op.create_index("outbox_by_state", "outbox", ["state", "time_ms"])
    op.create_table(
        "labels",
        sa.Column("alert_key", sa.Text, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("rule", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("alert_key", "who", name="labels_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("labels_by_time", "labels", ["time_ms"])
    # One time for all channels together, which nothing ever set.
    op.drop_column("alerts", "delivered_time_ms")
