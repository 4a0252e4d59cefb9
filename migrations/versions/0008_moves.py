"""No statement takes a video from one state to another that does not follow it."""

from alembic import op

revision = "0008"
down_revision = "0007"

_REFUSE = """
CREATE FUNCTION refuse_move() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  RAISE EXCEPTION 'A video does not move from % to %.', OLD.state, NEW.state
    USING ERRCODE = 'check_violation', CONSTRAINT = 'videos_moves', TABLE = 'videos';
END $$
"""
# the condition is cheap: the function is called for what it refuses only
_GUARD = """
CREATE TRIGGER videos_moves BEFORE UPDATE OF state ON videos FOR EACH ROW
  WHEN ((OLD.state, NEW.state) NOT IN (('queued', 'in_progress'),
                                       ('queued', 'cancelled'),
                                       ('in_progress', 'queued'),
                                       ('in_progress', 'completed'),
                                       ('in_progress', 'failed'),
                                       ('in_progress', 'cancelled')))
  EXECUTE FUNCTION refuse_move()
"""


def upgrade() -> None:
    op.execute(_REFUSE)
    op.execute(_GUARD)
