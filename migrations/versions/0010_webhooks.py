"""Webhooks: who is told, what was sent, and the secrets that sign it."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0010"
down_revision = "0009"

_ID = sa.String(length=40, collation="C")
_AT = sa.DateTime(timezone=True)
_NOW = sa.text("now()")


def upgrade() -> None:
    op.add_column("videos", sa.Column("webhook_url", sa.String(length=2048), nullable=True))
    op.add_column("tenants", sa.Column("webhook_secret", sa.String(length=64), nullable=True))
    op.add_column("tenants", sa.Column("former_secret", sa.String(length=64), nullable=True))
    op.add_column("tenants", sa.Column("former_until", _AT, nullable=True))
    _endpoints()
    _deliveries()


def _endpoints() -> None:
    op.create_table(
        "webhook_endpoints",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("url", sa.String(length=2048), nullable=False),
        sa.Column("events", postgresql.ARRAY(sa.Text()), nullable=False),
        sa.Column("description", sa.String(length=300), nullable=True),
        sa.Column("enabled", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("created_at", _AT, server_default=_NOW, nullable=False),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("webhook_endpoints_tenant", "webhook_endpoints", ["tenant"])


def _deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("id", _ID, nullable=False),
        sa.Column("tenant", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=24), nullable=False),
        sa.Column("endpoint_id", _ID, nullable=True),
        sa.Column("video_id", _ID, nullable=True),
        sa.Column("at", _AT, server_default=_NOW, nullable=False),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("tries", sa.Integer(), server_default="0", nullable=False),
        sa.Column("next_at", _AT, server_default=_NOW, nullable=False),
        sa.Column("tried_at", _AT, nullable=True),
        sa.Column("status_code", sa.Integer(), nullable=True),
        sa.Column("latency_ms", sa.Integer(), nullable=True),
        sa.Column("response_head", sa.Text(), nullable=True),
        sa.Column("problem", sa.String(length=300), nullable=True),
        sa.Column("delivered_at", _AT, nullable=True),
        sa.Column("dead_at", _AT, nullable=True),
        sa.ForeignKeyConstraint(["tenant"], ["tenants.name"]),
        sa.ForeignKeyConstraint(["endpoint_id"], ["webhook_endpoints.id"], ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["video_id"], ["videos.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id"),
    )
    pending = sa.text("delivered_at IS NULL AND dead_at IS NULL")
    due = {"postgresql_where": pending}
    op.create_index("webhook_deliveries_due", "webhook_deliveries", ["next_at"], **due)
    page = ["tenant", sa.literal_column("id DESC")]
    op.create_index("webhook_deliveries_page", "webhook_deliveries", page)
    op.create_index("webhook_deliveries_endpoint", "webhook_deliveries", ["endpoint_id"])
    op.create_index("webhook_deliveries_video", "webhook_deliveries", ["video_id"])
    brin = {"postgresql_using": "brin"}
    op.create_index("webhook_deliveries_at", "webhook_deliveries", ["at"], **brin)
