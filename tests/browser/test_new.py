"""The form for a new video: limits, all faults at once, images, one job per form."""

from io import BytesIO

import pytest
from PIL import Image

from shared.jobs import queries
from shared.vocabulary.catalog import MODELS
from shared.vocabulary.states import GroupState
from tests.browser.conftest import Visit
from tests.browser.staging import Stage

pytestmark = pytest.mark.browser


def rows(stage: Stage) -> list[dict]:
    return queries.page(stage.farm, queries.Filter(tenant=None), limit=100).rows


def picture() -> dict:
    out = BytesIO()
    Image.new("RGB", (160, 128), "teal").save(out, "PNG")
    return {"name": "teal.png", "mimeType": "image/png", "buffer": out.getvalue()}


def test_a_double_click_makes_one_job(visit: Visit, stage: Stage):
    visitor = visit("/new")
    visitor.page.fill("#prompt", "a red ball")

    visitor.page.dblclick("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    assert len(rows(stage)) == 1


def test_the_same_form_sent_twice_makes_one_job(visit: Visit, stage: Stage):
    visitor = visit("/new", script=False)
    visitor.page.fill("#prompt", "a red ball")
    form = {
        name: visitor.page.input_value(f"#new [name={name}]")
        for name in ("csrf_token", "form_key", "prompt", "model")
    }

    answers = [
        visitor.context.request.post(f"{visitor.address}/new", form=form, max_redirects=0)
        for _ in range(2)
    ]

    assert {one.status for one in answers} == {303}
    assert len({one.headers["location"] for one in answers}) == 1
    assert len(rows(stage)) == 1


def test_the_rail_foresees_what_the_form_says(visit: Visit, stage: Stage):
    stage.beat(GroupState.IDLE)
    visitor = visit("/new?model=wan-tiny-t2v")
    rail = visitor.page.locator("#estimate")
    rail.get_by_text("Say what the video shows").wait_for()

    visitor.page.fill("#prompt", "it's a red ball")
    rail.get_by_text("place in the queue").wait_for()
    visitor.page.fill("#count", "3")
    rail.get_by_text("1 to 3").wait_for()
    assert '"variations": 3' in rail.locator("#as-curl-text").text_content()
    assert visitor.axe() == []

    visitor.page.fill("#frames", "80")
    rail.get_by_text("frames is 80").wait_for()
    assert rows(stage) == []


def test_the_rail_needs_no_image_to_foresee_a_video_from_one(visit: Visit, stage: Stage):
    stage.beat(GroupState.IDLE)
    visitor = visit("/new?model=wan-tiny-i2v")

    visitor.page.fill("#prompt", "it begins to rain")

    visitor.page.locator("#estimate").get_by_text("place in the queue").wait_for()
    assert rows(stage) == []


def test_all_faults_stand_beside_their_fields(visit: Visit, stage: Stage):
    visitor = visit("/new", expected=("400",))

    visitor.page.fill("#frames", "80")
    visitor.page.fill("#size", "100x100")
    visitor.page.click("#create")
    visitor.page.wait_for_selector("#faults")

    assert "4k+1" in visitor.text("#frames-fault")
    assert "size is" in visitor.text("#size-fault")
    assert "prompt is empty" in visitor.text("#prompt-fault")
    assert visitor.page.input_value("#frames") == "80"
    assert visitor.axe() == []
    assert rows(stage) == []


def test_a_model_of_a_small_world_says_what_it_knows(visit: Visit):
    visitor = visit("/new?model=wan-mini-t2v")

    assert MODELS["wan-mini-t2v"].example in visitor.text("#prompt-hint")
    assert visitor.axe() == []
    visitor.page.select_option("#model", "wan-tiny-t2v")
    visitor.page.wait_for_selector("#prompt-hint", state="detached")


def test_another_model_brings_its_own_limits_and_keeps_what_was_typed(visit: Visit, stage: Stage):
    visitor = visit("/new")
    visitor.page.fill("#prompt", "a red ball")
    assert visitor.page.locator("#input_reference").count() == 0

    visitor.page.select_option("#model", "wan-tiny-i2v")
    visitor.page.wait_for_selector("#input_reference")

    assert visitor.page.input_value("#prompt") == "a red ball"
    assert visitor.page.get_attribute("#shift", "placeholder") == "5"


def test_an_image_starts_a_video_and_is_kept_by_edit(visit: Visit, stage: Stage):
    visitor = visit("/new?model=wan-tiny-i2v")
    visitor.page.fill("#prompt", "it turns")
    visitor.page.set_input_files("#input_reference", picture())
    visitor.page.wait_for_selector("#preview[src^='blob:']")
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")
    assert visitor.page.locator("img.input").evaluate("one => one.decode().then(() => 1)") == 1

    visitor.page.click("#edit")
    visitor.page.wait_for_url("**/new?from=*")
    visitor.page.fill("#seed", "123")
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    second, first = rows(stage)
    assert second["image_sha256"] == first["image_sha256"]
    assert (second["spec"]["seed"], second["remixed_from"]) == (123, first["id"])


DROPPED = """async () => {
  const canvas = new OffscreenCanvas(128, 128);
  canvas.getContext("2d").fillRect(0, 0, 9, 9);
  const file = new File([await canvas.convertToBlob()], "x.png", {type: "image/png"});
  const transfer = new DataTransfer();
  transfer.items.add(file);
  return transfer;
}"""


def test_a_dropped_image_lands_in_the_field(visit: Visit):
    visitor = visit("/new?model=wan-tiny-i2v")
    data = visitor.page.evaluate_handle(DROPPED)

    visitor.page.dispatch_event("#prompt", "drop", {"dataTransfer": data})

    assert visitor.page.evaluate("document.getElementById('input_reference').files.length") == 1


def test_without_script_another_model_is_one_button_away(visit: Visit):
    visitor = visit("/new", script=False)
    visitor.page.fill("#prompt", "a red ball")

    visitor.page.select_option("#model", "wan-tiny-i2v")
    visitor.page.click("text=Show this model's limits")

    assert visitor.page.locator("#input_reference").count() == 1
    assert visitor.page.input_value("#prompt") == "a red ball"


def test_the_models_own_negative_prompt_counts_as_default(visit: Visit, stage: Stage):
    visitor = visit("/new?model=wan2.2-t2v-a14b")
    visitor.page.fill("#prompt", "a red ball")
    visitor.page.click("#create")
    visitor.page.wait_for_url("**/jobs/video_*")

    (row,) = rows(stage)
    assert "negative_prompt" not in row["asked"]
    assert "低质量" in row["spec"]["negative_prompt"]
