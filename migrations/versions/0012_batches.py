"""Batches: videos that were asked for together, and the webhook of their end."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0012"
down_revision = "0011"

_ID = sa.String(length=40, collation="C")


def upgrade() -> None:
    op.create_table(
        "batches",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("key_name", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=True),
        sa.Column("metadata", postgresql.JSONB(), nullable=False),
        sa.Column("axes", sa.JSON(), nullable=False),
        sa.Column("items", sa.JSON(), nullable=False),
        sa.Column("unfinished", sa.Integer(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("batches_page", "batches", ["tenant", sa.literal_column("id DESC")])
    _refer("videos", ["batch_id", "id"], "videos_batch")
    _refer("webhook_deliveries", ["batch_id"], "webhook_deliveries_batch", ondelete="CASCADE")


def _refer(table: str, columns: list[str], index: str, ondelete: str | None = None) -> None:
    """Let rows belong to a batch, and find those that do."""
    op.add_column(table, sa.Column("batch_id", _ID, nullable=True))
    op.create_foreign_key(None, table, "batches", ["batch_id"], ["id"], ondelete=ondelete)
    some = sa.text("batch_id IS NOT NULL")
    op.create_index(index, table, columns, postgresql_where=some)
