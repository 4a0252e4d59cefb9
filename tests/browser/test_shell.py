"""Logging in and out, scopes, theme, and what a hidden or offline page does."""

import pytest

from shared.jobs import keys
from shared.machinery.farm import Farm
from tests.browser.conftest import Visit
from tests.browser.staging import Stage

pytestmark = pytest.mark.browser


def test_a_login_link_works_once_and_then_explains(visit: Visit, farm: Farm, key: str):
    token = keys.create_login_token(farm, key.split("_")[1])
    first = visit(f"/login?t={token}&next=/jobs", log_in=False)
    assert first.page.locator("#key").count() == 0

    first.page.click("button.primary")
    first.page.wait_for_url("**/jobs")
    second = visit(f"/login?t={token}", log_in=False, expected=("401",))
    second.page.click("button.primary")

    assert "works once" in second.text("[role=alert]")


def test_a_wrong_key_is_refused_and_a_right_one_leads_back(visit: Visit, key: str):
    visitor = visit("/jobs?state=failed", log_in=False, expected=("401",))
    visitor.page.fill("#key", "wf_nonsense1_x")
    visitor.page.click("button.primary")
    assert "not valid" in visitor.text("[role=alert]")

    visitor.page.fill("#key", key)
    visitor.page.click("button.primary")

    visitor.page.wait_for_url("**/jobs?state=failed")


def test_logging_out_closes_the_door(visit: Visit):
    visitor = visit("/")

    visitor.page.click("text=Log out")
    visitor.page.wait_for_url("**/login")
    visitor.go("/jobs")

    assert "/login?next=/jobs" in visitor.page.url


def test_a_read_only_key_sees_no_actions(visit: Visit, farm: Farm, stage: Stage):
    video_id = stage.submit("a ball")
    reader = keys.create(farm, "wall-screen", "read")[1]
    visitor = visit("/login", log_in=False, expected=("403",))
    visitor.log_in(reader)

    visitor.go(f"/jobs/{video_id}")
    assert visitor.page.locator("#cancel, #rerun, #edit, a[href='/new']").count() == 0
    visitor.go("/new")

    assert "'submit'" in visitor.text("main")


def test_the_theme_survives_a_reload(visit: Visit):
    visitor = visit("/jobs")
    assert visitor.page.get_attribute("html", "data-theme") == "dark"

    visitor.page.click("button[name=theme]")
    visitor.page.reload()

    assert visitor.page.get_attribute("html", "data-theme") == "light"
    assert visitor.page.url.endswith("/jobs")


def test_the_first_page_teaches_a_command_with_its_own_address(visit: Visit, address: str):
    visitor = visit("/")

    assert f"{address}/v1/videos" in visitor.text(".empty pre")


def test_a_new_job_changes_the_numbers_without_a_reload(visit: Visit, stage: Stage):
    visitor = visit("/")
    visitor.page.evaluate("window.same = true")

    stage.submit("a ball")
    visitor.page.wait_for_selector(".tiles strong.queued >> text=1")

    assert visitor.page.evaluate("window.same") is True


def test_a_hidden_page_asks_for_nothing(visit: Visit, stage: Stage):
    stage.submit("a ball")
    visitor = visit("/")
    hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
    tell = "document.dispatchEvent(new Event('visibilitychange'))"
    visitor.page.evaluate(hide % "true" + tell)
    visitor.page.wait_for_timeout(500)
    visitor.requests.clear()

    visitor.page.wait_for_timeout(5000)
    assert visitor.requests == []
    visitor.page.evaluate(hide % "false" + tell)
    visitor.page.wait_for_timeout(1000)

    assert "/_/overview" in visitor.requests


def test_a_lost_server_is_told_with_its_time(visit: Visit, stage: Stage):
    stage.submit("a ball")
    visitor = visit("/", expected=("ERR_INTERNET_DISCONNECTED", "htmx:"))

    visitor.context.set_offline(True)
    visitor.page.wait_for_selector("#live-word >> text=Offline since")
    visitor.context.set_offline(False)

    visitor.page.wait_for_selector("#live-word >> text=Polling")


def test_the_keyboard_reaches_pages_and_rows(visit: Visit, stage: Stage):
    video_id = stage.submit("a ball")
    visitor = visit("/")

    visitor.page.keyboard.press("g")
    visitor.page.keyboard.press("j")
    visitor.page.wait_for_url("**/jobs")
    visitor.page.keyboard.press("j")
    visitor.page.keyboard.press("Enter")
    visitor.page.wait_for_url(f"**/jobs/{video_id}")
    visitor.page.keyboard.press("?")

    assert visitor.page.locator("#keys-help[open]").count() == 1
