"""Run by Alembic: one connection, one transaction, one migrator at a time."""

from alembic import context
from sqlalchemy import NullPool, create_engine, text

from shared.machinery.tables import Base

_MIGRATOR_LOCK = 7_221_901


def _run() -> None:
    engine = create_engine(context.config.attributes["database_url"], poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATOR_LOCK})
        context.configure(connection=connection, target_metadata=Base.metadata)
        context.run_migrations()


_run()
