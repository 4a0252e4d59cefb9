import pytest
from pathlib import Path

from tests.browser.test_groups import running
from tests.browser.visitor import DESK, PHONE

OUT = Path("/tmp/shots")
OUT.mkdir(exist_ok=True)


def test_shots(visit, stage, running, farm):
    from shared.machinery.tables import Attempt
    from sqlalchemy import text

    with farm.db.connect() as db:
        db.execute(
            text("""INSERT INTO attempts (video_id, number, group_name, incarnation, ranks, claimed_at, ended_at, outcome, kind, message, report)
          SELECT v.id, 100 + n, 'g0', 'life-1', 2, now() - n * interval '17 min', now() - n * interval '17 min',
           CASE WHEN n % 13 = 5 THEN 'requeued' ELSE 'completed' END, CASE WHEN n % 13 = 5 THEN 'hang' END, CASE WHEN n % 13 = 5 THEN 'No step was finished for 60 s.' END,
           '{"cached": {"cached_ratio": 0.41}, "build": {"precision": "bf16", "attention": "fa3"}}'
          FROM (SELECT id FROM videos LIMIT 1) v, generate_series(1, 80) n WHERE (n * 7) % 5 < 3""")
        )
    for theme in ("dark", "light"):
        for size, width in ((DESK, "wide"), (PHONE, "phone")):
            v = visit("/groups/g0", size=size)
            if theme == "light":
                v.page.click("button[name=theme]")
            for name, path in {
                "overview": "/",
                "groups": "/groups",
                "g0": "/groups/g0",
                "g1": "/groups/g1",
                "job": f"/jobs/{running}",
            }.items():
                v.go(path)
                v.page.screenshot(path=str(OUT / f"{name}-{theme}-{width}.png"), full_page=True)
            v.go("/groups/g0")
            v.page.click("#drain-now")
            v.page.screenshot(path=str(OUT / f"dialog-{theme}-{width}.png"))


def test_empty(visit):
    for size, width in ((DESK, "wide"), (PHONE, "phone")):
        v = visit("/groups", size=size)
        v.page.screenshot(path=str(OUT / f"empty-{width}.png"), full_page=True)
