"""The documentation in a browser: readable in both themes and at both widths, without a script."""

import pytest

from shared.vocabulary.spec import FailureKind
from tests.browser.conftest import Visit
from tests.browser.staging import Stage
from tests.browser.visitor import DESK, PHONE

PAGES = (
    "/docs",
    "/docs/how-to/cache-steps",
    "/docs/reference/errors",
    "/docs/tutorial/first-video",
)


@pytest.mark.browser
@pytest.mark.parametrize(
    ("theme", "size"),
    [
        pytest.param("dark", DESK, id="dark-desk"),
        pytest.param("light", PHONE, id="light-phone"),
        pytest.param("light", DESK, id="light-desk", marks=pytest.mark.long),
        pytest.param("dark", PHONE, id="dark-phone", marks=pytest.mark.long),
    ],
)
def test_pages_are_accessible_and_fit(visit: Visit, theme: str, size: tuple):
    visitor = visit("/docs", log_in=False, size=size)
    if theme == "light":
        visitor.page.click("button[name=theme]")

    found = {path: visitor.go(path).axe() for path in PAGES}

    assert visitor.page.get_attribute("html", "data-theme") == theme
    assert {path: faults for path, faults in found.items() if faults} == {}
    assert not [path for path in visitor.requests if path.endswith(".js")]


@pytest.mark.browser
def test_the_code_of_a_failed_job_leads_to_its_section(visit: Visit, stage: Stage):
    failed = stage.submit("portrait of a circle", max_attempts=1)
    stage.give_back(stage.claim(), FailureKind.BAD_INPUT, "The image is empty.")
    visitor = visit(f"/jobs/{failed}")

    visitor.page.click("#error-title a")

    visitor.page.wait_for_url("**/docs/reference/errors#invalid_input")
    assert visitor.page.is_visible("#invalid_input")
    assert visitor.text("nav [aria-current] >> nth=0") == "Docs"
