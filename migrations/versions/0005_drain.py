"""Whether a group was asked to take no other job, and why."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("gpu_groups", sa.Column("drain", sa.String(length=8), nullable=True))
    op.add_column("gpu_groups", sa.Column("drain_reason", sa.String(length=300), nullable=True))
