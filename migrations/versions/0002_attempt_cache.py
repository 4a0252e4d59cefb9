"""What the block cache was told to do in an attempt."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    column = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
    op.add_column("attempts", sa.Column("cache", column, nullable=True))
