"""Postgres: one engine per process, every statement its own transaction, schema by Alembic."""

import select
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import InvalidatePoolError

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
    engine = create_engine(
        settings.database_url,
        isolation_level="AUTOCOMMIT",
        skip_autocommit_rollback=True,
        pool_size=32,
        max_overflow=0,  # those beyond the size would log in anew at each use
        pool_use_lifo=True,  # few are used, and these have prepared what they are asked
        pool_timeout=5,
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
    event.listen(engine, "checkout", _refuse_hung_up)
    return engine


def _refuse_hung_up(connection: Any, *_: object) -> None:  # noqa: ANN401 - the driver's own
    """Let the pool connect anew after Postgres hung up: whoever is idle has nothing to hear.

    This costs a look at the socket, where a ping would cost a round trip per statement.
    """
    if connection.closed or _has_word(connection.fileno()):
        raise InvalidatePoolError


def _has_word(line: int) -> bool:
    poll = select.poll()
    poll.register(line, select.POLLIN)
    return bool(poll.poll(0))


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


@contextmanager
def transaction(engine: Engine) -> Generator[Connection]:
    """Write several things, all or none; each statement sees what is committed by then."""
    with (
        engine.connect().execution_options(isolation_level="READ COMMITTED") as connection,
        connection.begin(),
    ):
        yield connection


def _alembic(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    config.attributes["database_url"] = database_url
    return config
