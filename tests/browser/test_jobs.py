"""The list of jobs and the page of one: filters, paging, live steps, cancelling, copying."""

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import text

from shared.jobs import lifecycle, queries
from shared.machinery.farm import Farm
from shared.machinery.settings import Settings
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.spec import FailureKind
from tests.browser.conftest import Visit, serving
from tests.browser.staging import Stage
from tests.browser.visitor import Visitor
from tests.conftest import wait_for
from tests.services.jobs import ago, edit

pytestmark = pytest.mark.browser
RARELY = "localStorage.setItem('wf.live', '10000')"


def test_filters_survive_a_reload(visit: Visit, stage: Stage):
    stage.submit("a red ball")
    stage.submit("a blue square")
    visitor = visit("/jobs")

    visitor.page.fill("#search", "ball")
    visitor.page.select_option("select[name=state]", "queued")
    with visitor.page.expect_navigation():
        visitor.page.click("button:text('Filter')")
    visitor.page.reload()

    assert visitor.page.input_value("#search") == "ball"
    assert visitor.page.input_value("select[name=state]") == "queued"
    assert visitor.page.locator(".jobs a.prompt").all_inner_texts() == ["a red ball"]


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", "wan-tiny-t2v"), ("group", "g0"), ("key", "ops-laptop"), ("since", "24h")],
)
def test_each_filter_narrows_the_list(visit: Visit, stage: Stage, name: str, value: str):
    other = stage.submit("a red ball")
    edit(stage.farm, other, model="wan-tiny-i2v", key_name="night", created_at=ago(30 * 3600))
    edit(stage.farm, stage.submit("a blue square"), group_name="g0")

    visitor = visit(f"/jobs?{name}={value}")

    assert visitor.page.input_value(f"select[name={name}]") == value
    assert visitor.page.locator(".jobs a.prompt").all_inner_texts() == ["a blue square"]


def test_pages_lead_both_ways_without_loss_or_repeat(visit: Visit, stage: Stage):
    made = [stage.submit(f"ball {number}") for number in range(65)]
    visitor = visit("/jobs")

    down = [_ids(visitor)]
    while visitor.page.locator("#older").count():
        visitor.page.click("#older")
        down.append(_ids(visitor))
    up = [_ids(visitor)]
    while visitor.page.locator("#newer").count():
        visitor.page.click("#newer")
        up.append(_ids(visitor))

    assert [one for page in down for one in page] == made[::-1]
    assert up == down[::-1]


def _ids(visitor: Visitor) -> list[str]:
    links = visitor.page.locator(".jobs a.prompt")
    return [one.get_attribute("href").rpartition("/")[2] for one in links.all()]


def test_steps_arrive_by_the_stream_and_the_player_at_the_end(visit: Visit, stage: Stage):
    video_id = stage.submit("a red ball")
    fence = stage.claim().fence
    visitor = visit("/")
    visitor.page.evaluate(RARELY)  # so that what is seen soon has come by the stream
    visitor.go(f"/jobs/{video_id}")
    visitor.page.wait_for_selector("#live-word >> text=Live")

    stage.denoise(fence, 11)
    visitor.page.wait_for_selector("#steps[data-step='11']", timeout=5000)
    classes = [one.get_attribute("class") for one in visitor.page.locator("rect.cell.high").all()]
    cached = sum("cached" in one for one in classes)
    assert (len(classes) - 1, cached) == (16, 6)  # less the legend's one, on two lanes
    stage.complete(fence)
    visitor.page.wait_for_selector("#player", timeout=5000)

    assert "completed" in visitor.text(".state")
    assert visitor.text("#announce") == "Now completed"
    assert visitor.page.title().startswith("✓")
    assert visitor.page.locator("#cancel").count() == 0


def test_an_open_table_stays_open_while_steps_arrive(visit: Visit, stage: Stage):
    video_id = stage.submit("a red ball")
    fence = stage.claim().fence
    stage.denoise(fence, 3)
    visitor = visit(f"/jobs/{video_id}")
    stage.step(fence, 4)
    visitor.page.wait_for_selector("#steps[data-step='4']")  # a click meets no swap any more
    visitor.page.click("#step-table summary")
    visitor.page.wait_for_selector("#step-table[open]")

    stage.step(fence, 5)
    visitor.page.wait_for_selector("#steps[data-step='5']")

    assert visitor.page.locator("#step-table[open] tbody tr").count() == 5


@pytest.fixture
def crowded(page_settings: Settings) -> Iterator[str]:
    """A server that has no place for another stream."""
    with serving(page_settings.model_copy(update={"max_streams": 0})) as url:
        yield url


def test_a_refused_stream_is_replaced_by_polling(
    chromium: Any, crowded: str, key: str, stage: Stage
):
    video_id = stage.submit("a red ball")
    fence = stage.claim().fence
    visitor = Visitor(chromium, crowded, expected=("503",))
    visitor.log_in(key)
    visitor.go(f"/jobs/{video_id}")
    visitor.page.wait_for_selector("#live-word >> text=Polling")

    stage.denoise(fence, 5)
    visitor.page.wait_for_selector("#steps[data-step='5']", timeout=8000)

    assert visitor.leave() == []


def test_the_log_is_followed_while_it_is_open(visit: Visit, stage: Stage):
    video_id = stage.submit("a red ball")
    fence = stage.claim().fence
    stage.phase(fence, "denoise", 5)
    visitor = visit(f"/jobs/{video_id}")
    log = visitor.page.locator("#log pre")

    assert log.inner_text() == ""
    visitor.page.click("#log summary")
    log.get_by_text("name=denoise").wait_for()
    stage.step(fence, 1)
    log.get_by_text("step=1 ").wait_for()
    visitor.page.uncheck("#follow")
    stage.step(fence, 2)
    visitor.page.wait_for_selector("text=2/20")

    assert "step=2 " not in log.inner_text()
    assert visitor.axe() == []
    visitor.page.click("#full-log")
    visitor.page.wait_for_url("**/log?tail=5000")
    assert "step=2 " in visitor.text("body")


def test_cancelling_asks_first_and_names_the_effect(visit: Visit, stage: Stage):
    video_id = stage.submit("a red ball")
    stage.denoise(stage.claim().fence, 3)
    visitor = visit(f"/jobs/{video_id}")

    visitor.page.click("#cancel")
    assert "stops at the next step" in visitor.text("#cancel-dialog")
    visitor.page.click("text=Keep it")
    assert queries.one(stage.farm, video_id, None)["cancel_requested_at"] is None
    visitor.page.click("#cancel")
    visitor.page.click("#cancel-dialog button.danger")

    visitor.page.wait_for_selector(".badge >> text=cancelling")


def test_a_failure_comes_first_and_tells_every_attempt(visit: Visit, stage: Stage):
    video_id = stage.submit("a red ball", max_attempts=2)
    stage.give_back(stage.claim(), FailureKind.RANK_DIED, "Rank 1 died.")
    _make_due(stage)
    stage.give_back(stage.claim(), FailureKind.BAD_INPUT, "The image is empty.")
    visitor = visit(f"/jobs/{video_id}")

    assert "The image is empty." in visitor.text(".main-column > .card:first-child")
    story = visitor.text(".timeline")
    assert "Rank 1 died." in story
    assert "attempt 2" in story


def _make_due(stage: Stage) -> None:
    with stage.farm.db.connect() as db:
        db.execute(text("UPDATE videos SET run_after = now()"))


def test_a_rerun_is_one_new_job_with_the_same_seed(visit: Visit, stage: Stage):
    first = stage.submit("a red ball", seed=99)
    visitor = visit(f"/jobs/{first}")

    visitor.page.dblclick("#rerun")
    visitor.page.wait_for_url(lambda url: url.rpartition("/")[2] not in {first, "rerun"})
    second = queries.one(stage.farm, visitor.page.url.rpartition("/")[2], None)

    assert (second["remixed_from"], second["spec"]["seed"]) == (first, 99)
    assert len(_all(stage)) == 2


def _all(stage: Stage) -> list[dict]:
    return queries.page(stage.farm, queries.Filter(tenant=None), limit=100).rows


def by_tab(visitor: Visitor, wanted: str) -> None:
    """Walk to an element as somebody without a mouse does."""
    for _ in range(80):
        if visitor.page.evaluate("document.activeElement.id") == wanted:
            return
        visitor.page.keyboard.press("Tab")
    pytest.fail(f"Tab never came to {wanted}")


def test_a_draft_is_made_and_promoted_by_keyboard_alone(
    visit: Visit, stage: Stage, key: str, farm: Farm
):
    visitor = visit("/login", log_in=False)
    page, keyboard = visitor.page, visitor.page.keyboard
    by_tab(visitor, "key")
    keyboard.type(key)
    keyboard.press("Enter")
    page.wait_for_url(f"{visitor.address}/")
    keyboard.press("n")
    page.wait_for_url("**/new")
    keyboard.type("a red ball passes behind a blue square")
    by_tab(visitor, "drafts")
    keyboard.press("Enter")
    page.wait_for_url("**/jobs/video_*")
    draft = page.url.rpartition("/")[2]

    claimed = stage.claim()
    stage.complete(claimed.fence, steps=claimed.spec.steps)
    page.wait_for_selector("#promote")
    keyboard.press("p")
    page.wait_for_url(lambda url: "/jobs/" in url and draft not in url)

    final = queries.one(farm, page.url.rpartition("/")[2], None)
    spec = MODELS[final["model"]]
    assert final["promoted_from"] == draft
    assert (final["spec"]["steps"], final["spec"]["cache"]) == (spec.steps, "default")
    stage.complete(stage.claim().fence, steps=spec.steps)
    page.wait_for_selector("#compare")
    assert visitor.text("#compare") == "Draft | Final"
    by_tab(visitor, "compare")
    keyboard.press("Enter")
    page.wait_for_url(f"**/compare?ids={draft},{final['id']}")


def test_prompts_are_text_and_nothing_else(visit: Visit, stage: Stage):
    video_id = stage.submit("<img src=x onerror=alert(1)><script>alert(2)</script>")
    visitor = visit(f"/jobs/{video_id}")

    assert "<script>alert(2)" in visitor.text("h1")
    assert "<script>alert(2)" in visitor.go("/jobs").text(".jobs")


# Keeps each word that the button says: it takes them back after two seconds. The live page may have
# another button in the place of this one by then, so it is looked for anew.
NOTE = """() => { window.words = [];
new MutationObserver(() => words.push(document.querySelector("[data-copy]").textContent))
.observe(document.body, {childList: true, subtree: true}); }"""
PASTE = """() => { const t = document.createElement("textarea"); document.body.append(t);
t.focus(); return true; }"""


def test_curl_is_copied_on_plain_http_and_makes_the_same_video(
    chromium: Any, address: str, key: str, stage: Stage
):
    prompt = 'it\'s a "red" ball\nwith $HOME and a \\ in its prompt'
    video_id = stage.submit(prompt, seed=5, guidance_high=2.5)
    box = address.replace("127.0.0.1", "gpu-box")
    visitor = Visitor(chromium, box)
    visitor.log_in(key)
    visitor.go(f"/jobs/{video_id}")
    assert visitor.page.evaluate("isSecureContext") is False

    visitor.page.click("#curl summary")
    visitor.page.evaluate(NOTE)
    visitor.page.click("[data-copy]")
    wait_for(lambda: visitor.page.evaluate("words.includes('Copied')"))  # a look that CSP allows
    visitor.page.evaluate(PASTE)
    visitor.page.keyboard.press("Control+V")
    command = visitor.page.locator("body > textarea").last.input_value()
    assert visitor.leave() == []
    made = _run(command.replace("gpu-box", "127.0.0.1"), key)

    spec = queries.one(stage.farm, made["id"], None)["spec"]
    assert spec == queries.one(stage.farm, video_id, None)["spec"]


def _run(command: str, key: str) -> dict:
    done = subprocess.run(
        ["bash", "-c", command],
        env={"WANFARM_API_KEY": key, "PATH": "/usr/bin:/bin", "HOME": "/nowhere"},
        capture_output=True,
        timeout=20,
        check=True,
    )
    return json.loads(done.stdout)


def test_who_cancelled_and_when_is_told(visit: Visit, stage: Stage):
    video_id = stage.submit("a red ball")
    lifecycle.cancel(stage.farm, video_id, by="night-shift", reason="wrong colour")

    visitor = visit(f"/jobs/{video_id}")

    assert "night-shift: wrong colour" in visitor.text("#cancelled-title")
    assert visitor.page.locator("#cancelled-title time[title]").count() == 1


def test_reading_submitting_and_cancelling_work_without_script(visit: Visit, stage: Stage):
    visitor = visit("/new", script=False)

    visitor.page.fill("#prompt", "two green triangles cross")
    visitor.page.fill("#seed", "42")
    visitor.page.click("#create")
    assert "two green triangles cross" in visitor.text("h1")
    visitor.go("/jobs").page.click(".jobs a.prompt")
    visitor.page.click("#cancel")

    assert "cancelled" in visitor.text(".state")
    assert [row["state"] for row in _all(stage)] == ["cancelled"]
