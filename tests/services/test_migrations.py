"""The schema: what the migrations build is what the code expects, however often they run."""

import subprocess
import sys
import uuid

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from psycopg import sql
from sqlalchemy import CheckConstraint, create_engine, inspect, text

from shared.machinery.database import connect, is_current, snapshot, upgrade
from shared.machinery.tables import Base
from tests.farm.conftest import ROOT
from tests.services.jobs import submit


@pytest.fixture
def empty_url(services):
    """A database without any table."""
    name = sql.Identifier(f"wanfarm_empty_{uuid.uuid4().hex[:8]}")
    with services.admin() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
    url = services.url_of(name.as_string().strip('"'))
    yield url.replace("postgresql://", "postgresql+psycopg://", 1)
    with services.admin() as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@pytest.fixture
def engine(empty_url):
    made = create_engine(empty_url)
    yield made
    made.dispose()


def test_an_upgrade_from_empty_builds_the_tables_the_code_describes(empty_url, engine):
    upgrade(empty_url)

    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_the_constraints_and_indexes_are_those_the_code_describes(empty_url, engine):
    upgrade(empty_url)

    found = inspect(engine)
    for table in Base.metadata.tables.values():
        described = {c.name for c in table.constraints if isinstance(c, CheckConstraint)}
        assert {check["name"] for check in found.get_check_constraints(table.name)} == described
        indexes = {index["name"] for index in found.get_indexes(table.name)}
        assert indexes == {index.name for index in table.indexes}


def test_an_upgrade_of_an_up_to_date_schema_does_nothing(empty_url, engine):
    upgrade(empty_url)
    before = objects(engine)

    upgrade(empty_url)

    assert objects(engine) == before


def test_two_upgrades_at_once_take_turns(empty_url, engine):
    code = "import sys; from shared.machinery.database import upgrade; upgrade(sys.argv[1])"
    both = [subprocess.Popen([sys.executable, "-c", code, empty_url], cwd=ROOT) for _ in range(2)]

    assert [process.wait(60) for process in both] == [0, 0]
    assert is_current(engine)


def test_an_empty_database_is_not_current(empty_url, engine):
    assert is_current(engine) is False

    upgrade(empty_url)

    assert is_current(engine) is True


def objects(engine) -> list[tuple]:
    """All tables and indexes, by the identity that a rebuild would change."""
    statement = "SELECT oid, relname, relfilenode FROM pg_class WHERE relnamespace = :ours"
    with engine.connect() as connection:
        ours = connection.scalar(text("SELECT 'public'::regnamespace::oid"))
        return sorted(tuple(r) for r in connection.execute(text(statement), {"ours": ours}))


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("statement_timeout", "3s"),
        ("lock_timeout", "2s"),
        ("idle_in_transaction_session_timeout", "10s"),
    ],
)
def test_no_session_can_hold_the_farm_up(farm, setting, value):
    with farm.db.connect() as connection:
        assert connection.scalar(text(f"SHOW {setting}")) == value


def test_a_snapshot_sees_one_moment(farm):
    submit(farm)
    with snapshot(farm.db) as one_moment:
        count = text("SELECT count(*) FROM videos")
        before = one_moment.scalar(count)
        submit(farm)

        assert one_moment.scalar(count) == before == 1


def test_opening_a_farm_connects_to_nothing(settings):
    unreachable = settings.model_copy(
        update={"database_url": "postgresql+psycopg://127.0.0.1:1/nowhere"}
    )

    connect(unreachable).dispose()
