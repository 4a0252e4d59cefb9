"""Since when a group has its model loaded, and how many failures in a row may be its own."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    since = sa.Column("warm_since", sa.DateTime(timezone=True), nullable=True)
    streak = sa.Column("failure_streak", sa.Integer(), server_default="0", nullable=False)
    op.add_column("gpu_groups", since)
    op.add_column("gpu_groups", streak)
