"""What an attempt was expected to take, and the index that finds the runs it is learnt from."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    column = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
    op.add_column("attempts", sa.Column("expected", column, nullable=True))
    op.create_index(
        "videos_runs",
        "videos",
        ["model", sa.literal_column("completed_at DESC")],
        postgresql_where=sa.text("state = 'completed'"),
    )
