"""The pool of connections: whoever asks gets one that works."""

from sqlalchemy import text

_WHO = text("SELECT pg_backend_pid()")
_HANG_UP = text("SELECT pg_terminate_backend(:pid, 2000)")


def test_connections_that_postgres_closed_are_not_handed_out(farm):
    with farm.db.connect() as one, farm.db.connect() as other:
        closed = one.scalar(_WHO)
        other.execute(_HANG_UP, {"pid": closed})

    with farm.db.connect() as one, farm.db.connect() as other:
        living = {one.scalar(_WHO), other.scalar(_WHO)}

    assert closed not in living
    assert len(living) == 2
