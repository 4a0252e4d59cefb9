import pytest
from shared.vocabulary.spec import FailureKind
from tests.browser.visitor import DESK, PHONE

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


def test_shots(visit, stage):
    failed = stage.submit("portrait of a circle", max_attempts=1)
    stage.give_back(
        stage.claim(), FailureKind.BAD_INPUT, "The image is empty. Nothing was rendered."
    )
    for theme in ("dark", "light"):
        for name, size in (("desk", DESK), ("phone", PHONE)):
            v = visit("/docs", size=size, log_in=(theme == "dark"))
            if theme == "light":
                v.page.click("button[name=theme]")
            for n, p in {
                "contents": "/docs",
                "cache": "/docs/how-to/cache-steps",
                "errors": "/docs/reference/errors#does_not_fit",
                "api": "/docs/reference/api",
                "tls": "/docs/how-to/tls-and-nginx",
                "states": "/docs/reference/states",
                "mini": "/docs/explanation/miniature",
            }.items():
                v.go(p)
                v.page.screenshot(path=f"/tmp/shots-docs/{n}-{theme}-{name}.png")
            if theme == "dark":
                v.go(f"/jobs/{failed}")
                v.page.screenshot(path=f"/tmp/shots-docs/job-{theme}-{name}.png")
            v.go("/docs/nothing") if False else None
