"""An index for the lists of all tenants' videos in one state, which passed over all newer ones."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"


def upgrade() -> None:
    op.create_index("videos_states", "videos", ["state", sa.literal_column("id DESC")])
