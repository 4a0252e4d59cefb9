"""Where the latents of an unfinished video were saved last."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    column = postgresql.JSONB(none_as_null=True, astext_type=sa.Text())
    op.add_column("videos", sa.Column("checkpoint", column, nullable=True))
