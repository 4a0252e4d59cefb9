"""Postgres: one engine per process, every statement its own transaction, schema by Alembic."""

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine

import migrations
from shared.machinery.settings import Settings

# A frozen client must not hold a row lock for long: SKIP LOCKED would pass its row by.
_SESSION = {
    "statement_timeout": "3000",
    "lock_timeout": "2000",
    "idle_in_transaction_session_timeout": "10000",
    "plan_cache_mode": "force_custom_plan",  # a generic plan cannot use a partial index
}


def connect(settings: Settings) -> Engine:
    """Open a pool of autocommit connections, sized for the API's threads."""
    options = " ".join(f"-c {name}={value}" for name, value in _SESSION.items())
    return create_engine(
        settings.database_url,
        isolation_level="AUTOCOMMIT",
        pool_size=8,
        max_overflow=24,
        pool_timeout=5,
        pool_pre_ping=True,
        hide_parameters=True,  # an error's text would carry prompts into the log
        connect_args={
            "options": options,
            "connect_timeout": 3,
            "keepalives_idle": 10,
            "keepalives_interval": 3,
            "keepalives_count": 3,
            "tcp_user_timeout": 20_000,
            "application_name": "wanfarm",
        },
    )


def upgrade(database_url: str) -> None:
    """Bring the schema to this version; nothing to do is fine, two at once take turns."""
    command.upgrade(_alembic(database_url), "head")


def is_current(engine: Engine) -> bool:
    """Tell whether the schema is the one that this code was written for."""
    head = ScriptDirectory.from_config(_alembic("")).get_current_head()
    with engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision() == head


@contextmanager
def snapshot(engine: Engine) -> Generator[Connection]:
    """Read several things as of one moment."""
    with (
        engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection,
        connection.begin(),
    ):
        yield connection


def _alembic(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["database_url"] = database_url
    return config
