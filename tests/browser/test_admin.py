"""The admin pages in a browser: their looks, and a key made, copied and revoked by keyboard."""

from typing import Any

import pytest

from shared.jobs import audit, keys, pauses, webhooks
from shared.machinery.farm import Farm
from shared.vocabulary.errors import WanfarmError
from tests.browser.conftest import Visit
from tests.browser.visitor import DESK, PHONE, Visitor
from tests.conftest import wait_for
from tests.services.hooks import listen

pytestmark = pytest.mark.browser
OPS = audit.Actor("default", "abcdefgh", "ops-laptop", "req_01m7q5cqg0eejstb3z1dq9397k")
SECTIONS = ("", "/keys", "/webhooks", "/audit", "/settings")


def do_deeds(farm: Farm, reason: str = "moving house") -> None:
    """Leave something to see in each section."""
    pauses.close(farm, ("intake",), by="ops-laptop", reason=reason, actor=OPS)
    for name, scope, tenant in (("studio", "submit", "films"), ("wall-screen", "read", "default")):
        new = keys.NewKey(name, scope, tenant, 30 * 86_400)
        keys.make(farm, new, OPS)
    keys.revoke(farm, new.id, actor=OPS)
    hook = listen(farm, f"https://hooks.example/{reason.replace(' ', '/')}")
    for _ in range(2):
        webhooks.test(farm, hook)
    webhooks.change(farm, hook["id"], {"enabled": False}, actor=OPS)
    webhooks.test(farm, hook)


@pytest.mark.parametrize(
    ("theme", "size"),
    [
        pytest.param("dark", DESK, id="dark-desk"),
        pytest.param("light", PHONE, id="light-phone"),
        pytest.param("light", DESK, id="light-desk", marks=pytest.mark.long),
        pytest.param("dark", PHONE, id="dark-phone", marks=pytest.mark.long),
    ],
)
def test_admin_pages_are_accessible_and_fit(visit: Visit, farm: Farm, theme: str, size: tuple):
    do_deeds(farm, "moving house, " * 12)
    visitor = visit("/admin", size=size)
    if theme == "light":
        visitor.page.click("button[name=theme]")
    found: dict[str, list[str]] = {}
    for section in SECTIONS:
        visitor.go(f"/admin{section}")
        for fold in visitor.page.locator("main details > summary").all():
            fold.click()
        visitor.check_width()
        found[section] = visitor.axe()
    visitor.go("/admin").page.click("text=Pause dispatch")
    found["dialog"] = visitor.axe()

    assert {path: faults for path, faults in found.items() if faults} == {}


def test_a_key_is_made_copied_and_revoked_by_keyboard_on_plain_http(
    chromium: Any, address: str, key: str, farm: Farm
):
    visitor = Visitor(chromium, address.replace("127.0.0.1", "gpu-box"))
    visitor.log_in(key)
    page = visitor.page
    page.keyboard.press("g")
    page.keyboard.press("a")
    page.wait_for_url("**/admin")
    visitor.go("/admin/keys")
    assert page.evaluate("isSecureContext") is False

    page.focus("#name")
    page.keyboard.type("studio")
    page.keyboard.press("Enter")
    page.wait_for_selector("#new-key")
    assert page.evaluate("document.activeElement.textContent") == visitor.text("#new-key")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    wait_for(lambda: page.inner_text("[data-copy]") == "Copied")
    page.focus("#name")
    page.keyboard.press("Control+V")
    made = page.input_value("#name")
    key_id = keys.verify(farm, f"{made}").key_id

    page.focus("[aria-label='Revoke studio']")
    page.keyboard.press("Enter")
    assert "Within two seconds" in visitor.text("dialog[open]")
    page.keyboard.press("Shift+Tab")
    with page.expect_navigation():
        page.keyboard.press("Enter")

    assert f"revoked the key {key_id} (studio)" in visitor.text("#done")
    with pytest.raises(WanfarmError):
        keys.caller_of(farm, key_id)
    assert [row["action"] for row in audit.deeds(farm, limit=5).rows] == [
        "key.revoke", "key.create",
    ]  # fmt: skip
    assert visitor.leave() == []


def test_a_door_is_paused_and_resumed_without_script(visit: Visit, farm: Farm):
    visitor = visit("/admin", script=False)

    visitor.page.fill("#intake [name=reason]", "moving house")
    visitor.page.click("#intake form button")
    assert "moving house" in visitor.text("#intake")
    visitor.page.click("#intake form button")

    assert "New videos are taken." in visitor.text("#intake")
    assert pauses.closed(farm) == []
