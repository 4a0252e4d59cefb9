"""Which draft a video was promoted from."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    op.add_column("videos", sa.Column("promoted_from", sa.String(40, collation="C"), nullable=True))
