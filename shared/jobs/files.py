"""Uploaded files: a tenant's pictures by id. They go by `removal`, as everything does."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import insert

from shared.jobs.ledger import Values, in_seconds
from shared.machinery.farm import Farm
from shared.machinery.tables import File
from shared.vocabulary.ids import new_id

_DAY_S: Final = 86_400.0
_ALIVE: Final = File.expires_at > func.now()


def add(farm: Farm, tenant: str, given: Values) -> Values:
    """Remember a stored picture; the same one of the same tenant is the same file, kept longer.

    Args:
        farm: the handles.
        tenant: whose it is.
        given: its `sha256`, `bytes`, `width`, `height`, `filename` and `purpose`.
    """
    until = in_seconds(farm.settings.file_days * _DAY_S)
    row = given | {"id": new_id("file"), "tenant": tenant, "expires_at": until}
    statement = (
        insert(File)
        .values(row)
        .on_conflict_do_update(
            index_elements=[File.sha256, File.tenant], set_={"expires_at": until}
        )
        .returning(*File.__table__.c)
    )
    with farm.db.connect() as db:
        return dict(db.execute(statement).mappings().one())


def one(farm: Farm, file_id: str, tenant: str | None) -> Values | None:
    """Read a file; None when there is none for this tenant, or it has expired."""
    statement = select(*File.__table__.c).where(File.id == file_id, _ALIVE, *_of(tenant))
    with farm.db.connect() as db:
        row = db.execute(statement).mappings().first()
    return dict(row) if row else None


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in order, and whether more follow."""

    rows: list[Values]
    has_more: bool


def page(
    farm: Farm,
    tenant: str | None,
    *,
    purpose: str | None = None,
    after: str | None = None,
    limit: int,
    ascending: bool = False,
) -> Page:
    """Read a page by its cursor, the newest first; the row that the cursor names may be gone."""
    statement = select(*File.__table__.c).where(_ALIVE, *_of(tenant))
    if purpose is not None:
        statement = statement.where(File.purpose == purpose)
    if after is not None:
        statement = statement.where(File.id > after if ascending else File.id < after)
    statement = statement.order_by(File.id.asc() if ascending else File.id.desc())
    with farm.db.connect() as db:
        rows = [dict(row) for row in db.execute(statement.limit(limit + 1)).mappings()]
    return Page(rows[:limit], has_more=len(rows) > limit)


def _of(tenant: str | None) -> Sequence[ColumnElement[bool]]:
    return () if tenant is None else (File.tenant == tenant,)
