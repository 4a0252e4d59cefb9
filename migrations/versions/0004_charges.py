"""What attempts cost, what tenants have used, and what a model takes."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    nothing = {"server_default": "0", "nullable": False}
    op.add_column("attempts", sa.Column("charged_s", sa.Double(), **nothing))
    op.add_column("tenants", sa.Column("used_s", sa.Double(), **nothing))
    op.add_column("tenants", sa.Column("purged_s", sa.Double(), **nothing))
    op.create_check_constraint("weight_positive", "tenants", "weight > 0")
    op.create_table(
        "costs",
        sa.Column("model", sa.String(length=64), nullable=False),
        sa.Column("rate", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("model"),
    )
