"""What a key may do beyond its scope, and the GPU-seconds of the day it used last."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0016"
down_revision = "0015"


def upgrade() -> None:
    limits = sa.Column(
        "limits", postgresql.JSONB(none_as_null=True), server_default="{}", nullable=False
    )
    op.add_column("api_keys", limits)
    op.add_column("api_keys", sa.Column("used_day", sa.Date(), nullable=True))
    op.add_column("api_keys", sa.Column("used_s", sa.Float(), server_default="0", nullable=False))
