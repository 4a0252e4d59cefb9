"""The videos of a key or of a group are found without looking through all others."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"


def upgrade() -> None:
    for name, column in (("videos_keys", "key_name"), ("videos_groups", "group_name")):
        op.create_index(name, "videos", [column, sa.literal_column("id DESC")])
