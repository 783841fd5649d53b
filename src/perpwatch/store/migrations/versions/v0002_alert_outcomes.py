"""What the market did after each alert."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "outcomes",
        sa.Column("alert_key", sa.Text, nullable=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("symbol", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("alert_key", name="outcomes_key"),
        sqlite_with_rowid=False,
    )
    op.create_index("outcomes_by_time", "outcomes", ["time_ms"])
